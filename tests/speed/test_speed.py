"""Speed, held to what was recorded: `pytest -m speed`, off by default because only a quiet machine can answer.

A work's CPU seconds are divided by those of a bare Python loop in the same process; beyond 1.5 times the recorded ratio is a failure.
`python -m tests.speed.test_speed` records anew and prints what changed.
"""
from __future__ import annotations

import json

import pytest

from tests.speed.bench import FLOWS, MOONCAKE, RECORDED, TRACE, in_child

WORKS = ("W1", "W1x4", "W2", "prefix", "W3", "10k")
OTHERS = ("fleet", *FLOWS, "agents", "burst", "rl")
SLACK = 1.5

needs_trace = pytest.mark.skipif(not TRACE.exists() or not MOONCAKE.exists(), reason="the traces are not in the data folder")


def measured(work: str) -> float:
    return in_child("--child", work, "0", "3")["ratio"]


@needs_trace
@pytest.mark.speed
@pytest.mark.parametrize("work", WORKS)
def test_not_slower_than_recorded(work):
    assert measured(work) <= SLACK * json.loads(RECORDED.read_text())[work]


@pytest.mark.speed
@pytest.mark.parametrize("work", OTHERS)
def test_fleets_flows_and_agents_are_not_slower_than_recorded(work):
    assert measured(work) <= SLACK * json.loads(RECORDED.read_text())[work]


@needs_trace
@pytest.mark.speed
def test_cost_grows_linearly():
    """Ten times the requests cost ten times the time, within 15 %."""
    small, large = (in_child("--child", work, "0", "3") for work in ("10k", "W3"))
    assert large["run_cpu_s"] / large["requests"] == pytest.approx(small["run_cpu_s"] / small["requests"], rel=0.15)


@pytest.mark.speed
def test_ten_thousand_agents_at_once_cost_no_more_each():
    """Ten LLM calls each, tools in sandboxes, 64 replicas: at most 30 CPU-s, within a quarter of linear: larger works miss more caches."""
    few, many = in_child("--child", "agents", "0", "3"), in_child("--child", "agents_10k", "0", "1")
    assert many["audit"]
    assert many["run_cpu_s"] <= 30
    assert many["run_cpu_s"] / many["requests"] <= 1.25 * few["run_cpu_s"] / few["requests"]


@pytest.mark.speed
@pytest.mark.parametrize("work", ["rl_20", "rl_long_20"])
def test_twenty_versions_of_8192_samples(work, tmp_path):
    """512 prompts x 16 samples of up to 28k tokens on 64 GPUs: at most 20 CPU-s and 500 MiB, the whole process."""
    spent = in_child("--process", work, str(tmp_path))
    assert spent["process_cpu_s"] <= 20
    assert spent["peak_rss_mib"] <= 500


def main() -> None:
    old = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    new = {work: round(measured(work), 3) for work in (*WORKS, *OTHERS)}
    for work, ratio in new.items():
        print(f"{work:5s} {old.get(work, float('nan')):8.3f} -> {ratio:8.3f} x bare loop")
    RECORDED.write_text(json.dumps(new, indent=2) + "\n")


if __name__ == "__main__":
    main()
