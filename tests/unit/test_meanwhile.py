"""The union of intervals, and what GPUs had no step in it: against a plain loop over small slices of time, and in a run."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.spec.load import loads
from sim.study.meanwhile import Union

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(PAIRS, PAIRS)
def test_seconds_within_a_union_are_those_of_a_plain_loop(some, asked):
    start, end = np.array([min(p) for p in some], float), np.array([max(p) for p in some], float)
    begins, ends = np.array([min(p) for p in asked], float), np.array([max(p) for p in asked], float)
    seconds = {t for a, b in zip(start, end, strict=True) for t in range(int(a), int(b))}
    wanted = [sum(t in seconds for t in range(int(a), int(b))) for a, b in zip(begins, ends, strict=True)]
    assert Union(start, end).within(begins, ends).tolist() == pytest.approx(wanted)


def test_what_never_ends_is_left_out():
    assert Union(np.array([0.0, 5.0]), np.array([np.nan, 6.0])).within(np.array([0.0]), np.array([10.0])).tolist() == [1.0]


def test_one_agent_leaves_its_gpu_idle_while_its_tools_work():
    agent = {"system": 100, "message": 50, "calls": 5, "output": 20, "tools": {"build": 1}}
    workload = {"kind": "agents", "concurrency": 1, "num_sessions": 1, "turns": 1, "agents": {"main": agent},
                "tools": {"build": {"time": "10s", "observation": 30}}}  # fmt: skip
    scenario = {"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": [{"gpu": "h100_sxm", "replicas": 2}]}, "workloads": [workload]}
    found = sim.run(loads(scenario)).summary["tools"]["gpu_idle"]
    # Four calls of ten seconds, on two GPUs.
    assert found["gpu_hours"] == pytest.approx(4 * 10 * 2 / 3600)
    assert found["of_idle"] > 0.97
    assert found["of_gpu_time"] < found["of_idle"]
