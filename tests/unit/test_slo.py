"""Service levels on tasks of agents and on steps of reinforcement learning, beside those on requests."""
from __future__ import annotations

import pytest
from plans import problem

import sim
from sim.report.page import render
from sim.report.text import block


def learning(slo):
    made = problem(slo=slo)
    del made["plan"]
    made["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": 8}]
    made["workloads"] = [{"kind": "rl", "mode": "sync_disaggregated", "steps": 3, "prompts": 4, "samples": 4, "prompt": 100,
                          "answers": {"mean": 50, "sigma": 0.5, "cap": 200}}]  # fmt: skip
    return made


def test_a_limit_on_steps_alone_is_met_or_not():
    result = sim.run(learning({"rl_step_p50": "1h"}))
    slo = result.summary["slo"]
    assert slo["met"] is True
    assert slo["attainment"] is None
    [row] = slo["limits"]
    assert row["measured_s"] == pytest.approx(result.summary["rl"]["rl"]["step_s"]["p50"])
    assert "SLO: met" in block(result.summary)
    assert "RL step p50" in render(result)
    assert sim.run(learning({"rl_step_p50": "1ms"})).summary["slo"]["met"] is False


def test_limits_on_steps_and_on_requests_must_all_hold():
    met = [sim.run(learning({"rl_step_p50": step, "tpot_p99": "1s"})).summary["slo"] for step in ("1h", "1ms")]
    assert [slo["met"] for slo in met] == [True, False]
    assert met[0]["target"] == 0.99


def test_a_limit_on_tasks_is_that_of_agents():
    made = problem(slo={"task_p95": "1h"})
    del made["plan"]
    made["workloads"] = [{"kind": "agents", "preset": "chat", "rate": 2, "num_sessions": 4}]
    summary = sim.run(made).summary
    [row] = summary["slo"]["limits"]
    assert row["measured_s"] == pytest.approx(summary["agents"]["task_time_s"]["p95"])
    assert summary["slo"]["met"] is True
