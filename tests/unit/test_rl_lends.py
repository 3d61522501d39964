"""Rollouts whose GPUs serve others between two rounds: nothing is different for the rollouts but when the next round begins."""
from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.core.errors import BadInput
from sim.spec.load import loads

MODEL = "Qwen/Qwen2.5-7B"
RL = {
    "kind": "rl", "name": "rl", "mode": "sync_disaggregated", "steps": 3, "prompts": 16, "samples": 4, "rollout": "rollouts",
    "prompt": {"median": 300, "sigma": 0.5}, "answers": {"mean": 400, "sigma": 0.8, "cap": 4096},
}  # fmt: skip


def scenario(lends, owner="rollouts"):
    """Four replicas that roll out and three that chat, on the same GPUs where something is lent; one more that always chats."""
    options = {"gpu": "h100_sxm", "engine": {"max_num_seqs": 256}}
    pools = {name: options | {"name": name, "replicas": 4 if name in (owner, "rollouts") else 3} for name in ("rollouts", "chat")}
    pools["chat"]["model"] = "meta-llama/Llama-3.1-8B"
    if lends is not None:
        borrower = "chat" if owner == "rollouts" else "rollouts"
        how = {"lend": {"how": "preempt"}} if owner == "chat" else {"take_back": {"how": "preempt"}}
        pools[borrower]["shares"] = {"pool": owner} | how
    always = pools["chat"] | {"name": "own", "replicas": 1}
    always.pop("shares", None)
    lengths = {"kind": "uniform", "input": [200, 1500], "output": [50, 400]}
    chat = {"kind": "poisson", "name": "chat", "rate": 8, "num_requests": 500, "model": "meta-llama/Llama-3.1-8B", "lengths": lengths}
    cluster = {"pools": [*pools.values(), always], "trainers": [{"name": "train", "gpu": "h100_sxm", "gpus": 8}]}
    return {"model": MODEL, "seed": 1, "cluster": cluster, "workloads": [RL | {"lends": lends}, chat]}


def sound(base):
    result = sim.run(base)
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    assert result.summary["requests"]["completed"] == result.summary["requests"]["arrived"]
    return result


def test_rounds_are_the_same_and_others_are_served_in_between():
    alone, lent = sound(scenario(None)), sound(scenario({}))
    steps, other = (one.tables["rl_steps"].to_pandas() for one in (alone, lent))
    for column in ("tokens", "length", "groups"):
        assert steps[column].tolist() == other[column].tolist()
    np.testing.assert_allclose(steps["wait"], other["wait"], rtol=1e-6)
    # What changing hands takes, all of it, is part of the step.
    assert (steps["switch"] == 0).all()
    np.testing.assert_allclose(other["end"] - other["start"] - other["switch"], steps["end"] - steps["start"], rtol=1e-6)
    rows = lent.tables["lendings"]
    assert rows["kind"].tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 3
    back = rows["served"][rows["kind"] == 1].reshape(3, 3).max(axis=1)
    assert (back[:, None] >= rows["start"][rows["kind"] == 1].reshape(3, 3)).all()
    np.testing.assert_allclose(back - rows["start"][rows["kind"] == 1][::3], other["switch"], rtol=1e-6)
    served = lent.requests[lent.requests["workload"] == "chat"]
    pools = np.array([lent.tables["replicas"].labels["pool"][code] for code in lent.tables["replicas"]["pool"]])
    assert (pools[served["replica"]] == "chat").sum() > 50
    # A version goes out to all replicas that there are.
    assert lent.tables["rl_syncs"]["bytes"].tolist() == alone.tables["rl_syncs"]["bytes"].tolist()


def test_in_the_tail_one_after_the_other():
    late, soon = sound(scenario({})), sound(scenario({"tail": 0.5}))
    for name in ("tokens", "wait"):
        np.testing.assert_allclose(late.tables["rl_steps"][name], soon.tables["rl_steps"][name], rtol=0.05)
    first = [one.tables["lendings"]["start"][0] for one in (late, soon)]
    assert first[1] < first[0]
    assert soon.summary["lending"]["chat"]["gpu_hours"] > late.summary["lending"]["chat"]["gpu_hours"]
    assert soon.summary["lending"]["chat"]["lend"]["sent_on"] == 0


def test_some_of_them():
    rows = sound(scenario({"replicas": 2, "tail": 0.5})).tables["lendings"]
    kinds = rows["kind"].tolist()
    assert (kinds.count(0), kinds.count(1)) == (8, 6)


def test_rollouts_may_borrow_for_their_rounds():
    result = sound(scenario({}, owner="chat"))
    rows = result.tables["lendings"]
    assert rows["kind"].tolist() == [0] * 4 + ([1] * 4 + [0] * 4) * 3 + [1] * 4
    assert rows["start"][0] == 0.0
    replicas = result.tables["replicas"]
    mine = replicas["pool"] == replicas.labels["pool"].index("rollouts")
    assert result.tables["rl_samples"]["begun"].min() <= replicas["ready"][mine].min()


@pytest.mark.parametrize(("more", "says"), [
    ({"mode": "one_step_off"}, "engines hardly ever idle"), ({"mode": "async", "staleness": {"kind": "verl"}}, "engines hardly ever idle"),
    ({"lends": {"tail": 2}}, r"lends.tail: found 2"), ({"lends": {"replicas": 0}}, r"lends.replicas: found 0"),
])  # fmt: skip
def test_what_cannot_be_lent(more, says):
    base = scenario({})
    base["workloads"][0] |= more
    with pytest.raises(BadInput, match=says):
        loads(base)


def test_nothing_is_lent_that_is_not_shared():
    base = scenario({})
    del base["cluster"]["pools"][1]["shares"]
    with pytest.raises(BadInput, match="pool rollouts shares no GPUs"):
        sim.run(base)
    base = scenario({})
    base["workloads"][0]["lends"] = None
    with pytest.raises(BadInput, match="nobody decides when the GPUs change hands"):
        loads(base)
