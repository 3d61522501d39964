"""Watts of a step, and what a power cap does to its length."""
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.errors import BadInput
from sim.physics.base import Work
from sim.physics.power import COMPUTE, FLOOR, LEAST_CLOCK, MEMORY, Activity, at_clock, clock, watts
from sim.physics.step import EngineStep
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool

H100 = gpu("h100_sxm")
SHARE = st.floats(0, 1)


def step(cap=None, **changes) -> EngineStep:
    pool = Pool.model_validate({"gpu": "h100_sxm", "power_cap": cap, **changes})
    return EngineStep(llm("meta-llama/Llama-3.1-8B"), H100, pool)


def test_watts_add_up_and_stop_at_the_limit():
    assert watts(70, 700, Activity(0.0, 0.0)) == pytest.approx(70 + 630 * FLOOR)
    assert watts(70, 700, Activity(0.1, 0.5)) == pytest.approx(70 + 630 * (FLOOR + 0.1 * COMPUTE + 0.5 * MEMORY))
    assert watts(70, 700, Activity(0.9, 0.9)) == 700
    assert watts(70, 700, Activity(0.9, 0.9), limit=350) == 350


@given(SHARE, SHARE, SHARE, st.floats(LEAST_CLOCK, 1))
def test_more_work_or_a_higher_clock_never_draws_less(flops, more, moved, share):
    low, high = sorted((flops, more))
    assert watts(70, 700, Activity(low, moved)) <= watts(70, 700, Activity(high, moved))
    assert watts(70, 700, Activity(moved, low)) <= watts(70, 700, Activity(moved, high))
    assert watts(70, 700, Activity(flops, moved), share) <= watts(70, 700, Activity(flops, moved))


def test_clock_of_a_cap_is_the_cube_root_of_the_power_above_idle():
    assert clock(H100, None) == clock(H100, 700) == 1.0
    assert clock(H100, 350) == pytest.approx((280 / 630) ** (1 / 3))
    assert at_clock(H100, 0.5).flops == {dtype: peak / 2 for dtype, peak in H100.flops.items()}
    assert replace(at_clock(H100, 0.5), flops=H100.flops) == H100


@pytest.mark.parametrize("cap", [50, 701, 80])
def test_a_cap_that_no_clock_holds_is_refused(cap):
    with pytest.raises(BadInput, match=r"between 87 W .* and 700 W"):
        clock(H100, cap)


def test_a_cap_slows_prompts_and_leaves_decoding_as_it_is():
    full, half = step(), step(350)
    prompt, token = Work(((2048, 0),), 0, 0), Work((), 8, 8 * 512)
    ratio = half.step(prompt).seconds / full.step(prompt).seconds
    assert 1.15 < ratio < 1.31
    assert half.step(token).seconds / full.step(token).seconds == pytest.approx(1.0, abs=0.03)


def test_fast_and_plain_forms_agree_under_a_cap():
    capped = step(350)
    seconds, slope, _ = capped.line(64, 64 * 1000)
    assert seconds == pytest.approx(capped.step(Work((), 64, 64 * 1000)).seconds, rel=0.01)
    assert slope > 0


def test_no_cap_and_a_cap_at_the_tdp_are_the_same():
    work = Work(((500, 100),), 32, 32 * 700)
    assert step(700).step(work) == step().step(work)
