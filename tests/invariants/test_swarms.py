"""What agents that begin agents cost for each message of a user, against the closed form of a branching process.

An agent begins m sub-agents on average, down to a depth D, so that there are m^i at depth i for each message (Harris, The theory of
branching processes, 1963, chapter 1). Each call sends the whole context again, so that the tokens of an agent of n calls are n times what
it begins with, and what each call adds once for every call after it.
"""
from __future__ import annotations

import numpy as np
import pytest

import sim
from tests.unit.driven import driven

SYSTEM, TASK, OUTPUT, RESULT = 50, 30, 8, 20


def swarm(made, depth, **spawn):
    node = {"system": SYSTEM, "task": TASK, "output": OUTPUT, "calls": made, "budget": {"depth": depth}}
    node["spawns"] = [{"agent": "node", "result": RESULT, **spawn}]
    return {"kind": "agents", "name": "swarm", "rate": 20, "agents": {"node": node}}


def tokens(calls, handed):
    """Prompt and output tokens of an agent that gets back `handed` tokens on average after each call but the last."""
    return calls * (SYSTEM + TASK) + (OUTPUT + handed) * calls * (calls - 1) / 2 + calls * OUTPUT


@pytest.mark.parametrize(("depth", "count"), [(0, 3), (1, 3), (2, 3), (3, 2), (6, 1)])
def test_what_a_message_sets_off_grows_with_depth(depth, count):
    """Every agent begins `count` others after the first of its two calls: figures of the run, depth by depth."""
    engine = {"enable_prefix_caching": False, "max_model_len": 4096}
    pools = [{"gpu": "l4", "replicas": 2, "engine": engine}]
    work = swarm(2, depth, calls=[1], count=count) | {"num_sessions": 5, "turns": 1}
    result = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": pools}, "workloads": [work]})
    found = result.summary["agents"]["amplification"]
    for level, row in enumerate(found["by_depth"]):
        each = tokens(2, RESULT * count if level < depth else 0)
        assert (row["agents"], row["calls"], row["tokens"]) == (count**level, 2 * count**level, each * count**level)
        assert row["compute"] == row["tokens"]
    assert len(found["by_depth"]) == depth + 1
    assert found["compute"] == sum(row["compute"] for row in found["by_depth"])
    assert all(entry["ok"] for entry in result.summary["audit"].values())


def test_compute_of_random_swarms_is_that_of_the_branching_process():
    """A sub-agent with chance 0.95 after each of three calls but the last: m = 1.9. Sums by depth and in all within 2 %."""
    share, depth, sessions = 0.95, 2, 800
    world = driven(swarm(3, depth, share=share) | {"rate": 1000, "num_sessions": sessions, "turns": 1})
    table = world.tables["agents"]
    spent = table["prompt_tokens"] + table["output_tokens"]
    expected = [tokens(3, RESULT * share if level < depth else 0) * (2 * share) ** level for level in range(depth + 1)]
    np.testing.assert_allclose(np.bincount(table["depth"], spent) / sessions, expected, rtol=0.02)
    assert spent.sum() / sessions == pytest.approx(sum(expected), rel=0.02)
