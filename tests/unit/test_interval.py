"""Intervals, tests and warm-ups against tables of statistics, and against their own promise on made-up data."""
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy import stats

import sim.study.replicate.interval
from sim.core.errors import BadInput
from sim.core.rng import stream
from sim.report.intervals import give_or_take
from sim.study.figures import flat
from sim.study.replicate.interval import (
    apart,
    around,
    correlated,
    enough,
    holm,
    mser,
    p_value,
    share,
    student,
    wanted,
    welch,
)


def test_the_examples():
    assert doctest.testmod(sim.study.replicate.interval).failed == 0


def test_students_interval_is_the_textbooks():
    values = np.array([1.53, 1.66, 2.24, 3.54, 1.1])
    one = student(values)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (one.low, one.high) == pytest.approx((low, high))
    assert (one.n, one.method, one.half) == (5, "replications", pytest.approx((high - low) / 2))
    assert one.relative == pytest.approx(one.half / values.mean())
    assert student(values, 0.99).half > one.half


def test_of_what_does_not_vary_there_is_no_doubt():
    one = student([3.0, 3.0 + 4e-16, 3.0])
    assert one.half == 0.0
    assert student([0.0, 0.0]).relative == 0.0
    assert student([1.0, -1.0]).relative == math.inf


def test_sectioning_counts_the_bias_of_the_parts():
    assert around([4.0, 6.0], 5.0).half == pytest.approx(student([4.0, 6.0]).half)
    assert around([4.0, 6.0], 7.0).half > student([4.0, 6.0]).half


def test_numpys_floats_do_not_get_through():
    """Their comparisons are no bool, which whoever writes a figure counts on."""
    one = around(np.array([0.2, 0.3]), np.float64(0.25))
    assert {type(value) for value in (one.mean, one.low, one.high, one.half)} == {float}
    assert give_or_take("ttft_s.p99", one) == "250 ± 635 ms"
    found = flat({"ttft_s": {"p99": np.float64(0.25)}, "requests": {"completed": 3}, "slo": {"met": True}})
    assert [type(value) for value in found.values()] == [float, int, bool]


def test_shares_are_wilsons():
    truth = stats.binomtest(7, 20).proportion_ci(method="wilson")
    one = share([True] * 7 + [False] * 13)
    assert (one.mean, one.low, one.high) == (0.35, pytest.approx(truth.low), pytest.approx(truth.high))
    assert (share([False] * 4).low, share([True] * 4).high) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values):
    for of in (student, share, p_value, lambda one: around(one, 0.0), lambda one: welch(one, [1.0, 2.0])):
        with pytest.raises(BadInput, match="2 replications or more"):
            of(values)
    with pytest.raises(BadInput, match="level 95"):
        student([1.0, 2.0], 95)


def test_tests_are_scipys():
    rng = stream(1, "tests")
    one, other = rng.normal(0, 1, 12), rng.normal(0.5, 2, 9)
    assert p_value(one) == pytest.approx(stats.ttest_1samp(one, 0).pvalue)
    truth = stats.ttest_ind(other, one, equal_var=False)
    interval, p = welch(one, other)
    assert p == pytest.approx(truth.pvalue)
    assert (interval.low, interval.high) == pytest.approx(tuple(truth.confidence_interval(0.95)))
    assert welch([1.0, 1.0], [2.0, 2.0])[1] == 0.0


def test_rounding_is_no_difference():
    one = np.array([0.3, 0.1 + 0.2, 1e9])
    far = apart(one, np.array([0.1 + 0.2, 0.3, 1e9 + 1e-7]))
    assert far.tolist() == [0.0, 0.0, 0.0]
    assert p_value(far) == 1.0


def test_holm_never_lets_a_larger_one_pass_before_a_smaller():
    values = stream(2, "holm").random(40) ** 3
    raised = holm(values.tolist())
    order = np.argsort(values)
    assert (np.diff(np.array(raised)[order]) >= 0).all()
    assert all(values[place] <= raised[place] <= 1 for place in range(40))
    assert raised[order[0]] == pytest.approx(min(1.0, 40 * values[order[0]]))
    assert holm([]) == []


def test_intervals_hold_what_they_say():
    """Of 4,000 samples of a skewed law, of ten values each a mean of 200; the share is known to 0.7 %."""
    rng, level = stream(3, "coverage"), 0.95
    samples = rng.exponential(2.0, (4000, 10, 200)).mean(axis=2)
    held = [one.low <= 2.0 <= one.high for one in map(student, samples)]
    assert np.mean(held) == pytest.approx(level, abs=0.015)
    shares = rng.random((3000, 40)) < 0.9
    assert np.mean([one.low <= 0.9 <= one.high for one in map(share, shares)]) == pytest.approx(level, abs=0.025)


def test_holm_errs_in_five_of_a_hundred():
    """Seventeen figures without a difference each time, which hang together in pairs."""
    rng, wrong = stream(4, "family"), 0
    for _ in range(600):
        noise = rng.normal(0, 1, (17, 8))
        noise[1::2] = noise[:-1:2] + 0.5 * noise[1::2]
        wrong += min(holm([p_value(row) for row in noise])) < 0.05
    assert wrong / 600 <= 0.075


def test_enough_is_of_the_true_mean():
    one = student([9.0, 11.0, 10.0, 10.0])
    assert one.relative == pytest.approx(0.13, abs=0.001)
    assert enough(one, 0.16)
    assert not enough(one, 0.14)
    assert wanted(one, 0.16) == 4
    assert wanted(one, 0.01) > 400
    assert wanted(student([1.0, -1.0]), 0.1) == math.inf


def test_a_warm_up_is_found():
    rng = stream(5, "warm-up")
    series = rng.normal(1.0, 0.2, 4000) + 5 * np.exp(-np.arange(4000) / 100)
    found = mser(series)
    assert found.settled
    assert 300 <= found.cut <= 900
    assert series[found.cut :].mean() == pytest.approx(1.0, abs=0.02)


def test_steady_series_lose_little():
    rng = stream(6, "steady")
    cuts = [mser(rng.exponential(1.0, 1000)).cut for _ in range(50)]
    assert np.median(cuts) <= 100
    assert mser(np.ones(1000)) == (0, 1000, True)


def test_what_never_settles_is_said():
    assert not mser(np.arange(1000.0)).settled
    assert mser(np.arange(30.0)) == (0, 30, False)


def test_batches_that_hang_together_are_seen():
    rng = stream(7, "batches")
    alone = [correlated(rng.normal(0, 1, 20)) for _ in range(400)]
    walk = [correlated(np.cumsum(rng.normal(0, 1, 20))) for _ in range(100)]
    assert np.mean(alone) == pytest.approx(0.05, abs=0.04)
    assert np.mean(walk) > 0.9
    assert not correlated([1.0, 1.0, 1.0, 1.0])
