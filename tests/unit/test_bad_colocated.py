"""What of shared GPUs does not fit or goes wrong: refused before it begins, or seen by the audit."""
from __future__ import annotations

import numpy as np
import pytest
import yaml

from sim.core.errors import BadInput
from sim.physics.hybrid import check
from sim.physics.memory import divide
from sim.physics.train_memory import states as kept
from sim.physics.trainer import TrainStep
from sim.report.inventory import inventory, text
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.load import dump, loads
from sim.spec.scenario import Pool, Scenario
from sim.spec.trainer import Trainer
from sim.spec.training import problems
from sim.study.audit import audit
from sim.study.run import run
from tests.unit.hybrid_runs import MODEL, plugged, scenario, spans
from workloads.rollouts.options import Updates


@pytest.fixture(autouse=True)
def _known():
    with plugged():
        yield


# -- memory --------------------------------------------------------------
def test_keys_and_values_have_less_room():
    chip, pool = gpu("h100_sxm"), Pool(gpu="h100_sxm")
    alone, beside = divide(llm(MODEL), chip, pool), divide(llm(MODEL), chip, pool, residual=15e9)
    assert (alone.blocks - beside.blocks) * alone.per_block == pytest.approx(15e9, abs=alone.per_block)
    parted = {name: run(scenario({"residual": name})).meta["pools"][0]["kv_blocks"] for name in ("0GB", "4GB", "15GB")}
    per_block = run(scenario()).meta["pools"][0]["memory"]["per_block"]
    assert (parted["0GB"] - parted["4GB"]) * per_block == pytest.approx(4e9, abs=per_block)
    assert (parted["4GB"] - parted["15GB"]) * per_block == pytest.approx(11e9, abs=per_block)
    facts = inventory(loads(scenario()))
    assert facts["pools"][0]["memory"]["kv_tokens"] == 16 * parted["4GB"]
    assert "on the 8 x h100_sxm of rollouts by fsdp" in text(facts)


def test_what_does_not_fit_is_refused_by_name_and_size():
    with pytest.raises(BadInput, match=r"75\.0 GB of them its trainer's; 1\.6 GB too little.* residual: 73\.3GB") as error:
        run(scenario({"residual": "75GB"}))
    assert error.value.problems[0].path == "cluster.pools.0"
    with pytest.raises(BadInput, match=r"GB too little; most of it is optimizer\. It would fit with offload: optimizer") as error:
        run(scenario({"model": "Qwen/Qwen2.5-32B"}))
    assert error.value.problems[0].path == "cluster.trainers.0"
    large = scenario({"model": "meta-llama/Llama-3.1-70B", "offload": "optimizer"})
    with pytest.raises(BadInput, match=r"It would fit with gpus: 16, and as many in pool rollouts"):
        run(large)


def test_the_host_has_to_hold_both():
    step = TrainStep(llm("Qwen/Qwen2.5-7B"), Trainer(gpu="h100_sxm", gpus=8, shares="serve"))
    states = sum(kept(step.llm, step.trainer))
    assert check(step, 10e9) == states + 10e9
    with pytest.raises(BadInput, match=r"11\.4 GB of states and 400\.0 GB of engine weights for each of 8 GPUs, .*sleep_level: 2"):
        check(step, 400e9, "cluster.trainers.0")
    dropped = TrainStep(step.llm, step.trainer.model_copy(update={"sleep_level": 2}))
    assert check(dropped, 400e9) == states


# -- the audit --------------------------------------------------------------
def faults(result):
    return audit(result)["I8"]["detail"]


@pytest.fixture
def corruptible():
    return run(scenario(workload={"rounds": 2}))


def test_the_audit_sees_a_step_while_the_trainer_has_the_gpus(corruptible):
    assert "no engine has a GPU" in faults(corruptible)
    update = next(start for name, start, _ in spans(corruptible) if name == "update")
    table = corruptible.tables["stretches"]
    table["start"][3] = update + 1e-3
    assert "train: 1 stretches of pool rollouts while the trainer has its GPUs" in faults(corruptible)


def test_the_audit_sees_a_replica_awake_beside_the_trainer(corruptible):
    table = corruptible.tables["pauses"]
    sleeps = np.flatnonzero(table["why"] == table.labels["why"].index("sleep"))
    table["end"][sleeps[0]] -= 1e-3
    assert "train: 1 replicas are not asleep just while the trainer is awake" in faults(corruptible)


def test_the_audit_sees_a_trainer_that_slept_too_short(corruptible):
    table = corruptible.tables["train_states"]
    table["state"][0] = table.labels["state"].index("wait")
    assert "train: 4 replicas are not asleep" in faults(corruptible)


def test_the_audit_counts_gpus(corruptible):
    corruptible.meta["trainers"][0]["gpus"] = 4
    assert "are not those of its 4 GPUs" in faults(corruptible)


# -- bad input --------------------------------------------------------------
AUTO = {"autoscale": {"max": 4, "policy": {"kind": "concurrency", "target": 4}}}
TRAIN = {"kind": "train", "steps": 1, "batch": 8, "lengths": {"kind": "fixed", "input": 1, "output": 9}}
BAD = [
    ("pool", {"shares": "rolouts"}, {}, "cluster.trainers.0.shares", "no pool is named 'rolouts'; did you mean rollouts?"),
    ("gpu", {"gpu": "h200_sxm"}, {}, "cluster.trainers.0.gpu", "the GPUs of pool rollouts are h100_sxm"),
    ("gpus", {"gpus": 16}, {}, "cluster.trainers.0.gpus", "found 16, but pool rollouts has 4 replicas of 2: 8 GPUs"),
    ("autoscale", {}, AUTO, "cluster.trainers.0.shares", "pool rollouts has autoscale"),
    ("start", {}, {"start": {"cold": True}}, "cluster.trainers.0.shares", "pool rollouts has a start"),
    ("memory", {}, {"gpu_memory": "64GB"}, "cluster.trainers.0.shares", "has a gpu_memory, of which its trainer knows nothing"),
    ("cap", {}, {"power_cap": 500}, "cluster.trainers.0.shares", "has a power_cap, of which its trainer knows nothing"),
    ("price", {"price_per_hour": 2}, {}, "cluster.trainers.0", "price_per_hour is said by pool rollouts"),
    ("node", {"node": "hgx_h100"}, {}, "cluster.trainers.0", "node is said by pool rollouts"),
    ("residual", {"shares": None, "residual": "9GB"}, {}, "cluster.trainers.0", "residual is of a trainer that shares"),
    ("level", {"shares": None, "sleep_level": 2}, {}, "cluster.trainers.0", "sleep_level is of a trainer that shares"),
]


@pytest.mark.parametrize(("trainer", "pool", "path", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_told_before_the_run(trainer, pool, path, words):
    with pytest.raises(BadInput) as error:
        loads(scenario(trainer, pool))
    assert [(p.path, words in p.message) for p in error.value.problems] == [(path, True)], str(error.value)


def test_only_one_trainer_and_only_whole_engines():
    given = scenario()
    given["cluster"]["trainers"].append({**given["cluster"]["trainers"][0], "name": "second"})
    with pytest.raises(BadInput, match="trainer train shares the GPUs of pool rollouts already"):
        loads(given)
    given = scenario(pool={"role": "prefill"})
    given["cluster"]["pools"].append({"name": "decode", "role": "decode", "gpu": "h100_sxm"})
    with pytest.raises(BadInput, match="pool rollouts has role prefill; only engines that do both"):
        loads(given)


def test_kind_train_does_not_wake_it():
    given = scenario()
    given["workloads"] = [TRAIN]
    with pytest.raises(BadInput, match="only while its engines sleep, and kind train wakes nobody") as error:
        loads(given)
    assert [problem.path for problem in error.value.problems] == ["workloads.0.trainer"]


def asked(trainer=None, pools=None, **workload):
    """Paths and messages for a run of reinforcement learning with these options."""
    base = loads(scenario(trainer)).model_dump()
    base["cluster"]["pools"] = [base["cluster"]["pools"][0] | {"name": name} for name in pools or ["rollouts"]]
    run = {"kind": "rl", "trainer": "", "rollout": "", "mode": "sync_colocated", "prompts": 8, "samples": 8, "updates": Updates()}
    base["workloads"] = [{**run, "checkpoint": None, **workload}]
    return [(problem.path, problem.message) for problem in problems(Scenario.model_validate(base))]


def test_modes_suit_whose_gpus_they_are():
    alone = {"shares": None}
    assert asked() == asked(alone, mode="async") == []
    [(path, message)] = asked(mode="one_step_off")
    assert path == "workloads.0.mode"
    assert "with mode one_step_off they do not; write mode: sync_colocated" in message
    [(path, message)] = asked(alone)
    assert path == "workloads.0.mode"
    assert "trainer train has GPUs of its own, which no engines could use; write shares: rollouts there" in message
    [(path, message)] = asked(pools=["rollouts", "judges"], rollout="judges")
    assert path == "workloads.0.rollout"
    assert "found pool judges, but trainer train shares the GPUs of pool rollouts" in message


def test_a_trainer_of_its_own_gpus_changes_hands_with_nobody():
    with pytest.raises(BadInput, match="trainer train has GPUs of its own, which do not change hands"):
        run(scenario({"shares": None}))


def test_a_scenario_that_was_saved_says_the_same():
    given = loads(scenario({"sleep_level": 2, "residual": "15GB"}))
    assert loads(yaml.safe_load(dump(given))) == given
