"""Who does what in each run of reinforcement learning: which pool generates, which trainer learns, how many GPUs that is, in which mode.

`peak` is what one replica can generate: tokens per second at full batch, by how long the contexts are on average. Where the cache holds
fewer of them than the engine takes at a time, the cache says how many. It is what the bubble of rollouts is measured against: that an
engine is busy says little, for it is so with one sequence.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.physics.base import Work
from sim.physics.step import EngineStep

if TYPE_CHECKING:
    from sim.world.cluster import World

KIND = "rl"
SHORTEST, LONGEST, POINTS = 128.0, 131_072.0, 21
# What the options of a grader call the number of cases that it grades at a time.
SERVERS = ("workers", "concurrency")


def setups(world: World) -> list[dict[str, Any]]:
    """One entry for each workload of kind `rl`: name, pool, trainer, mode, GPUs of both roles, whether they are the same, groups per
    version, samples per group, the options of its gate (None: rounds), servers of each grader where it has a number of them, dollars per
    hour of those that are `rented`, and `peak`;
    `filtered`: groups may be rejected; `alone`: nobody but rollouts asks the pool on its behalf; `sandboxes`: the pools it asks for some.
    """
    names = world.recorder.tables["requests"].labels["workload"]
    kinds = [options["kind"] for options in world.scenario.workloads]
    return [_setup(world, names[number], world.workloads[number]) for number, kind in enumerate(kinds) if kind == KIND]


def _setup(world: World, name: str, run: Any) -> dict[str, Any]:
    pools = [pool.name for pool in world.scenario.cluster.pools]
    at = pools.index(run.rollout) if run.rollout else 0
    pool, trainer = world.scenario.cluster.pools[at], next(iter(world.trainers)) if not run.trainer else run.trainer
    return {
        "name": name, "pool": pool.name, "trainer": trainer, "mode": run.mode,
        "colocated": world.trainers[trainer].spec.shares == pool.name,
        "gpus_rollout": pool.replicas * pool.parallel.gpus, "gpus_train": world.trainers[trainer].spec.gpus,
        "steps": run.steps, "prompts": run.prompts, "samples": run.samples, "gate": _options(run.staleness),
        "graders": {one.name or one.kind: _servers(one) for one in run.rewards},
        "rented": {one.name or one.kind: price for one in run.rewards if (price := vars(one).get("price_per_hour")) is not None},
        "filtered": run.dynamic_sampling is not None, "alone": _alone(run, pool.name, pools),
        "sandboxes": sorted({run.sandboxes[key] for key in run.sandboxes}),
        "peak": peak(world.models[at], world.memories[at].blocks * pool.engine.block_size),
    }  # fmt: skip


def _options(gate: Any) -> dict[str, Any] | None:
    """The public fields of a policy, and its kind."""
    if gate is None:
        return None
    fields = {name: value for name, value in vars(gate).items() if not name.startswith("_")}
    return {"kind": type(gate).__module__.rpartition(".")[2], **fields}


def _servers(grader: Any) -> int | None:
    options = vars(grader)
    return next((options[key] for key in SERVERS if options.get(key) is not None), None)


def _alone(run: Any, pool: str, pools: list[str]) -> bool:
    """Whether all others that it asks, such as judges, are told by the names of other pools."""
    return all(model in pools and model != pool for model in run.models.values())


def peak(model: EngineStep, room: int) -> dict[str, list[float]]:
    """`tokens_per_s` of a replica whose cache has room for so many tokens, at some `context` lengths, ascending: it decodes, its batch as
    full as engine and cache allow.
    """
    seats = model.pool.engine.max_num_seqs * model.pool.parallel.dp
    contexts = np.geomspace(SHORTEST, max(min(LONGEST, float(room)), 2 * SHORTEST), POINTS).tolist()
    batches = [max(1, min(seats, int(room // context))) for context in contexts]
    rates = [model.pace * batch / model.step(Work((), batch, int(batch * context))).seconds
             for batch, context in zip(batches, contexts, strict=True)]  # fmt: skip
    return {"context": contexts, "batch": [float(batch) for batch in batches], "tokens_per_s": rates}
