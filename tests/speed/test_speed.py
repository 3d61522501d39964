"""Speed, held to what was recorded: `pytest -m speed`, off by default because only a quiet machine can answer.

A work's CPU seconds are divided by those of a bare Python loop in the same process; beyond 1.5 times the recorded ratio is a failure.
`python -m tests.speed.test_speed` records anew and prints what changed.
"""
from __future__ import annotations

import json

import pytest

from tests.speed.bench import FLOWS, MOONCAKE, RECORDED, TRACE, in_child

WORKS = ("W1", "W1x4", "W2", "prefix", "W3", "10k")
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
@pytest.mark.parametrize("work", ["fleet", *FLOWS])
def test_fleets_and_flows_are_not_slower_than_recorded(work):
    assert measured(work) <= SLACK * json.loads(RECORDED.read_text())[work]


@needs_trace
@pytest.mark.speed
def test_cost_grows_linearly():
    """Ten times the requests cost ten times the time, within 15 %."""
    small, large = (in_child("--child", work, "0", "3") for work in ("10k", "W3"))
    assert large["run_cpu_s"] / large["requests"] == pytest.approx(small["run_cpu_s"] / small["requests"], rel=0.15)


def main() -> None:
    old = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    new = {work: round(measured(work), 3) for work in (*WORKS, "fleet", *FLOWS)}
    for work, ratio in new.items():
        print(f"{work:5s} {old.get(work, float('nan')):8.3f} -> {ratio:8.3f} x bare loop")
    RECORDED.write_text(json.dumps(new, indent=2) + "\n")


if __name__ == "__main__":
    main()
