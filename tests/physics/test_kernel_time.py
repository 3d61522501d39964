"""Kernels that take a multiple of what is known of them: steps follow, the host does not."""
from __future__ import annotations

import pytest

from sim.physics.base import Work
from sim.physics.step import EngineStep
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool

WORKS = (Work((), 32, 32_000), Work(((1000, 0),), 16, 16_000), Work((), 1, 100))


@pytest.mark.parametrize(("chip", "tp"), [("h100_sxm", 1), ("h100_sxm", 2), ("l40s", 2), ("a100_sxm_80gb", 4)])
@pytest.mark.parametrize("times", [0.8, 1.2])
def test_steps_take_that_many_times_as_long(chip, tp, times):
    usual, other = (
        EngineStep(llm("llama-3.1-8b"), gpu(chip), Pool(gpu=chip, parallel={"tp": tp}, kernel_time=factor)) for factor in (1.0, times)
    )
    assert other.host == usual.host
    for work in WORKS:
        assert other.step(work).seconds - other.host == pytest.approx(times * (usual.step(work).seconds - usual.host), rel=0.005)
