"""Means and percentiles against the definition, sorted and counted in bins, whole and a page at a time."""
from __future__ import annotations

import numpy as np
import pytest

from sim.study import spread
from sim.study.spread import PERCENTILES, Spread, distribution


def coded(values, weights, pages=1):
    found = Spread()
    for part in zip(np.array_split(values, pages), np.array_split(weights, pages), strict=True):
        found.add(*part)
    return found.distribution()


def test_distributions():
    assert distribution(np.empty(0)) is None
    assert distribution(np.array([3.0, 1.0, 2.0])) == {"mean": 2.0, "p50": 2.0, "p90": 2.8, "p95": 2.9, "p99": 2.98}


def test_a_percentile_is_the_smallest_value_with_that_share_at_or_below_it():
    found = coded(np.array([3.0, 1.0]), np.array([10, 90]))
    assert (found["p50"], found["p90"], found["p95"], found["mean"]) == (1, 1, 3, 1.2)


def test_nothing_has_no_spread():
    assert Spread().distribution() is None
    assert coded(np.empty(0), np.empty(0, dtype=int)) is None
    assert coded(np.ones(2), np.zeros(2, dtype=int)) is None


@pytest.mark.parametrize("pages", [1, 3, 40])
def test_the_histogram_agrees_with_the_sort(monkeypatch, pages):
    rng = np.random.Generator(np.random.PCG64(1))
    values, weights = rng.lognormal(-4, 1, 20_000), rng.integers(1, 100, 20_000)
    exact = coded(values, weights)
    every = np.sort(np.repeat(values, weights))
    for p in PERCENTILES:
        assert exact[f"p{p}"] == every[-(-len(every) * p // 100) - 1]
    assert coded(values, weights, pages) == pytest.approx(exact, rel=1e-12)
    # Large enough to be counted from the first page, or only after some were kept.
    for limit in (100, 9_000):
        monkeypatch.setattr(spread, "SORTABLE", limit)
        assert coded(values, weights, pages) == pytest.approx(exact, rel=3.1e-5)


def test_the_bins_take_what_lies_outside_them(monkeypatch):
    monkeypatch.setattr(spread, "SORTABLE", 0)
    found = coded(np.array([0.0, 1e-12, 1e12, np.inf]), np.array([10, 10, 40, 40]))
    assert found["p50"] == pytest.approx(1e9, rel=1e-4)
