"""Runs of reinforcement learning small enough to be worked out by hand: trainers with stated times, rewards of a second, short answers."""
from __future__ import annotations

import copy
from typing import Any

import sim
from sim.core.registry import SYNCS
from sim.physics.trainer import TrainStep
from sim.policy.ends import ends
from sim.spec.llm import llm
from sim.spec.load import loads
from sim.spec.training import seated

MODEL = "Qwen/Qwen2.5-1.5B"
UPDATE, LOGPROB, REWARD = 10.0, 3.0, 1.0
RUN = {
    "kind": "rl", "name": "run", "mode": "sync_disaggregated", "steps": 3, "prompts": 8, "samples": 4, "prompt": 100,
    "answers": {"value": 400, "cap": 1000}, "times": {"update": UPDATE, "logprob": LOGPROB},
    "rewards": [{"kind": "rule", "time": REWARD, "p_timeout": 0}],
}  # fmt: skip
VARIED = {"mean": 300, "sigma": 0.8, "cap": 1500}


def scenario(pool: Any = None, duration: Any = None, colocated: bool = False, **run: Any) -> dict[str, Any]:
    """Two replicas and a trainer of four GPUs, or of theirs; `run` is put over `RUN`, where None leaves a key out."""
    trainer = {"name": "learner", "gpu": "h100_sxm", "gpus": 2, "shares": "rollouts"} if colocated else {
        "name": "learner", "gpu": "h100_sxm", "gpus": 4}  # fmt: skip
    engine = {"max_num_seqs": 64, "max_model_len": 4096}
    pools = [{"name": "rollouts", "gpu": "h100_sxm", "replicas": 2, **(pool or {}), "engine": engine | (pool or {}).get("engine", {})}]
    if colocated:
        run = {"mode": "sync_colocated", **run}
    given = {key: value for key, value in {**copy.deepcopy(RUN), **run}.items() if value is not None}
    found = {"name": "rl", "seed": 1, "model": MODEL, "cluster": {"pools": pools, "trainers": [trainer]}, "workloads": [given]}
    return found | ({"duration": duration} if duration is not None else {})


def played(**changes: Any) -> sim.Result:
    """The result, whose audits hold."""
    result = sim.run(scenario(**changes))
    assert not faults(result)
    return result


def faults(result: sim.Result) -> dict[str, str]:
    return {name: check["detail"] for name, check in result.summary["audit"].items() if not check["ok"]}


def rows(result: sim.Result, name: str) -> Any:
    """A table as a DataFrame; of groups and samples, in the order of their numbers."""
    frame = result.tables[name].to_pandas()
    order = {"rl_groups": ["group"], "rl_samples": ["group", "number"]}.get(name)
    return frame.sort_values(order, ignore_index=True) if order else frame


def plan(given: dict[str, Any], **options: Any) -> Any:
    """What a sync of this kind takes in a scenario, worked out beside the run."""
    known, problems = SYNCS.check(options)
    assert not problems
    found = loads(given)
    trainer, pool = found.cluster.trainers[0], found.cluster.pools[0]
    step = TrainStep(llm(MODEL), seated(found.cluster, trainer), "")
    return SYNCS.make(known).plan(ends(step, pool, pool.replicas, trainer.shares == pool.name))
