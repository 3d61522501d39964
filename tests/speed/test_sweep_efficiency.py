"""How much of two cores a sweep turns into points: seconds of its points, run one after the other, over twice its wall time from start to
end, the start of its processes among it. To be run on a machine that does nothing else.
"""
from __future__ import annotations

import os
import time

import pytest

import sim

POINTS, SAMPLE, JOBS, LEAST = 48, 6, 2, 0.85
SCENARIO = {
    "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "poisson", "rate": 30, "num_requests": 70_000, "lengths": {"kind": "fixed", "input": 300, "output": 50}}],
}  # fmt: skip


@pytest.mark.speed
def test_two_cores_are_used_well():
    if len(os.sched_getaffinity(0)) < JOBS:
        pytest.skip(f"there are fewer than {JOBS} cores")
    rates = [30 + number / 10 for number in range(POINTS)]
    alone = sim.sweep(SCENARIO, {"workloads.0.rate": rates[:: POINTS // SAMPLE]}, crew=1, figures=["ttft_s.p99"]).frame["seconds"].mean()
    began = time.perf_counter()
    found = sim.sweep(SCENARIO, {"workloads.0.rate": rates}, crew=JOBS, figures=["ttft_s.p99"])
    spent = time.perf_counter() - began
    assert found.failed == 0
    efficiency = alone * POINTS / (JOBS * spent)
    print(f"{POINTS} points of {alone:.2f} s in {spent:.1f} s on {JOBS} cores: {efficiency:.1%}; load {os.getloadavg()[0]:.1f}")
    assert efficiency >= LEAST
