"""Lengths, solve rates and what they come to: simulation against closed forms, and luck that stays where it is."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import special

from sim.core.errors import BadInput
from workloads.rollouts.answers import Answers
from workloads.rollouts.lengths import AnswerLengths
from workloads.rollouts.solve import Solving

MATH = {"mean": 2500, "sigma": 0.8, "cap": 28672}
LONG = {"mean": 9000, "sigma": 0.9, "cap": 16384, "group_rho": 0.6, "difficulty": 0.5, "p_cap": 0.1, "drift_per_100_steps": 1.06}
PROMPTS, SAMPLES = 1000, 8


def answers(lengths, key=7, **solving):
    solving = solving or {"solve_rate_beta": (0.6, 0.6), "drift_per_100_steps": 0.2}
    return Answers(AnswerLengths.model_validate(lengths), Solving.model_validate(solving), key)


def drawn(made, version=0):
    """Tokens, right and cut, prompts by samples."""
    groups = [made.group(number, 0, SAMPLES, version) for number in range(PROMPTS)]
    return tuple(np.array([[one[k] for one in group] for group in groups]) for k in range(3))


def near(values, expected):
    """Means over prompts within four standard errors, or a thousandth where they hardly vary."""
    values = values.mean(axis=1) if values.ndim == 2 else values
    assert abs(values.mean() - expected) <= 4 * values.std() / math.sqrt(len(values)) + 1e-3 * expected


@pytest.mark.parametrize(("lengths", "version"), [(MATH, 0), (LONG, 200), ({"mean": 500, "cap": 600, "group_rho": 0.0}, 0)])
def test_simulation_meets_the_closed_forms(lengths, version):
    made = answers(lengths)
    tokens, right, cut = drawn(made, version)
    near(tokens, made.mean(version))
    near(cut, made.share_cut(version))
    near(right, made.right(version))
    solved = right.sum(axis=1)
    near(((solved > 0) & (solved < SAMPLES)).astype(float), made.valid(SAMPLES, version))
    near(tokens.max(axis=1), made.longest(SAMPLES, 1, version))
    near(tokens.max(axis=1).reshape(-1, 10).max(axis=1), made.longest(SAMPLES, 10, version))
    kept = np.sort(tokens, axis=1)[:, 5]
    near(kept, made.ranked(6, SAMPLES, 1, 1, version))
    near(np.sort(kept.reshape(-1, 10), axis=1)[:, 7], made.ranked(6, SAMPLES, 8, 10, version))


def test_a_lognormal_below_a_distant_cap_has_its_own_mean_and_correlations():
    made = answers({"median": 1000, "sigma": 0.7, "cap": 10**7, "group_rho": 0.4})
    assert made.mean() == pytest.approx(1000 * math.exp(0.7**2 / 2), rel=1e-4)
    assert made.share_cut() == pytest.approx(0, abs=1e-12)
    tokens, _, _ = drawn(made)
    assert correlation(np.log(tokens)) == pytest.approx(0.4, abs=0.04)
    assert correlation(tokens) == pytest.approx(math.expm1(0.4 * 0.49) / math.expm1(0.49), abs=0.05)


def correlation(values):
    """Of two in a group: the intraclass correlation of a one-way analysis of variance."""
    count = values.shape[1]
    between = count * values.mean(axis=1).var(ddof=1)
    inside = values.var(axis=1, ddof=1).mean()
    return (between - inside) / (between + (count - 1) * inside)


def test_the_longest_of_independent_exponentials_is_a_harmonic_sum():
    """With one group of n and no correlation: mean (1 + 1/2 + ... + 1/n)."""
    made = answers({"mean": 1000, "cap": 10**6, "group_rho": 0.0})
    for samples in (1, 4, 16):
        assert made.longest(samples) == pytest.approx(1000 * sum(1 / k for k in range(1, samples + 1)), rel=2e-3)
    # The k-th of n is the sum of the last k gaps.
    assert made.ranked(6, 8) == pytest.approx(1000 * sum(1 / k for k in range(3, 9)), rel=2e-3)


def test_the_share_cut_of_a_lognormal():
    made = answers(MATH)
    median = 2500 * math.exp(-0.32)
    assert made.share_cut() == pytest.approx(special.ndtr(-math.log(28672 / median) / 0.8), rel=1e-6)


def test_wrong_answers_run_to_the_cap():
    made = answers({"value": 500, "cap": 2000, "p_cap": 0.3}, solve_rate=0.75)
    assert made.share_cut() == pytest.approx(0.25 * 0.3)
    assert made.mean() == pytest.approx(500 + 1500 * 0.25 * 0.3)
    tokens, right, cut = drawn(made)
    assert set(np.unique(tokens)) == {500, 2000}
    assert not (right & cut).any()
    assert (tokens[cut] == 2000).all()


def test_hard_prompts_have_long_answers():
    made = answers({**MATH, "difficulty": 0.9})
    hard = [made.nature(number) for number in range(2000)]
    assert np.corrcoef([one.ease for one in hard], [one.effect for one in hard])[0, 1] == pytest.approx(-0.9, abs=0.02)
    tokens, right, _ = drawn(made)
    assert tokens[right].mean() < tokens[~right].mean()


def test_drift_makes_answers_longer_and_prompts_easier():
    made = answers({**MATH, "drift_per_100_steps": 1.06})
    assert made.mean(100) / made.mean(0) == pytest.approx(1.06, rel=2e-3)
    assert made.right(100) > made.right(0)
    early, late = made.group(3, 0, 50, 0), made.group(3, 0, 50, 100)
    assert all(b.tokens >= a.tokens for a, b in zip(early, late, strict=True))
    assert all(b.right >= a.right for a, b in zip(early, late, strict=True) if not b.cut)


def test_luck_belongs_to_the_place():
    made = answers(MATH)
    assert made.group(5, 0, 4, 0) == made.group(5, 0, 16, 0)[:4]
    assert made.group(5, 1, 4, 0) != made.group(5, 0, 4, 0)
    assert made.nature(5) == answers({**MATH, "mean": 100}).nature(5)
    shorter = answers({**MATH, "cap": 2000}).group(5, 0, 16, 0)
    assert [min(one.tokens, 2000) for one in made.group(5, 0, 16, 0)] == [one.tokens for one in shorter]
    assert answers(MATH, key=8).group(5, 0, 4, 0) != made.group(5, 0, 4, 0)


@pytest.mark.parametrize("lengths", [{"mean": 4000, "sigma": 0.9, "cap": 8192}, {"median": 1, "sigma": 0.5, "cap": 8192, "p_cap": 0.2}])
def test_a_mean_measured_under_the_cap(lengths):
    made = answers(lengths)
    found = made.matching(5698)
    assert found.mean() == pytest.approx(5698, rel=1e-6)
    assert found.nature(3) == made.nature(3)
    with pytest.raises(BadInput, match="no scale of the law"):
        made.matching(8192)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (2.0, 1.0), (1.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("samples", [1, 2, 8, 16])
def test_valid_groups_of_a_beta_population(a, b, samples):
    """1 - B(a + n, b) / B(a, b) - B(a, b + n) / B(a, b)."""
    made = Solving(solve_rate_beta=(a, b))
    exact = 1 - (special.beta(a + samples, b) + special.beta(a, b + samples)) / special.beta(a, b)
    assert made.valid(samples) == pytest.approx(exact, abs=2e-4)
    assert made.mean() == pytest.approx(a / (a + b), abs=1e-4)
    assert answers({"value": 500, "cap": 600}, solve_rate_beta=(a, b)).valid(samples) == pytest.approx(exact, abs=2e-3)


@given(st.floats(0, 1), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_valid_groups_of_one_rate(rate, samples):
    assert Solving(solve_rate=rate).valid(samples) == pytest.approx(1 - rate**samples - (1 - rate) ** samples, abs=1e-9)


def test_solve_rates_rise_and_stay_within_their_bounds():
    made = Solving(solve_rate_beta=(0.6, 0.6), drift_per_100_steps=0.5)
    rates = [made.rate(np.linspace(-5, 5, 21), version) for version in (0, 100, 10_000)]
    assert (rates[0] <= rates[1]).all()
    assert (rates[1] <= rates[2]).all()
    assert (rates[0] >= 0).all()
    assert (rates[2] <= 1).all()
    assert (np.diff(rates[0]) >= 0).all()


@pytest.mark.parametrize(("spec", "options", "words"), [
    (Solving, {}, "one of solve_rate_beta"),
    (Solving, {"solve_rate": 0.5, "solve_rate_beta": (1, 1)}, "one of solve_rate_beta"),
    (Solving, {"solve_rate": 1.0, "drift_per_100_steps": 0.1}, "does not drift"),
    (AnswerLengths, {"mean": 100, "sigma": 1, "cap": 500, "max": 400}, "in place of `max`"),
    (AnswerLengths, {"mean": 100, "sigma": 1}, "cap"),
    (AnswerLengths, {"mean": 0.2, "sigma": 1, "cap": 10}, "at least 1 is wanted"),
    (AnswerLengths, {"mean": 100, "sigma": 1, "cap": 10, "group_rho": 1.0}, "0.99"),
])  # fmt: skip
def test_what_is_wrong_is_said(spec, options, words):
    with pytest.raises(ValidationError, match=words):
        spec.model_validate(options)
