"""Burstiness on several scales of time, told from the Fano curve: how variance over mean of the counts grows with the window.

A rate that is the product of independent factors of mean 1, each with variance v and a correlation exp(-t / memory), has the covariance
rate^2 (prod(1 + v exp(-t / memory)) - 1). Multiplied out that is a sum of exponentials, and for each, with x = window / memory,

    F(window) - 1  gets  2 rate v memory (1 - (1 - exp(-x)) / x).

The variance of counts is taken about their own mean over the log, which hides what is slower than the log: of n windows the expected factor
is F(window) - F(n window) / n. The curve is fitted as it is seen, so that a short log does not pass for a calm one.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from workloads.fitting.figures import counts

POINTS, PHASES = 18, 4
LEAST_WINDOWS = 8
MOST_VARIANCE, LEAST_VARIANCE = 1e3, 1e-4

Fano = Callable[[np.ndarray], np.ndarray]


class Curve(NamedTuple):
    """Fano factors `values` of counts in `windows` (seconds) over a log of `span` seconds at `rate` per second; `errors` of their logs."""

    windows: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    rate: float
    span: float

    def seen(self, law: Fano) -> np.ndarray:
        """What this log would show, on average, of a law's Fano factors."""
        whole = np.floor(self.span / self.windows + 1e-9)
        return np.asarray(np.maximum(law(self.windows) - law(whole * self.windows) / whole, 1e-9))

    def misfit(self, law: Fano) -> np.ndarray:
        """Differences of the logarithms, each over its error."""
        return np.asarray((np.log(self.seen(law)) - np.log(self.values)) / self.errors)


class Scale(NamedTuple):
    """A factor of the rate: its `variance`, its mean being 1, and its `memory` in seconds."""

    variance: float
    memory: float


def curve(times: np.ndarray, span: float, least: float) -> Curve:
    """The Fano curve of a log, from windows of `least` seconds up to an eighth of its span."""
    rate = len(times) / span
    windows = np.geomspace(least, max(span / LEAST_WINDOWS, 2 * least), POINTS)
    found = []
    for window in windows.tolist():
        # Several phases of the windows: their mean is less at the mercy of where a burst falls.
        phases = [_counts_from(times, shift * window, window, span) for shift in np.arange(PHASES) / PHASES]
        parts = [phase.var() / phase.mean() for phase in phases if len(phase) > 1 and phase.any()]
        found.append(float(np.mean(parts)) if parts else math.nan)
    values = np.array(found)
    good = np.isfinite(values) & (values > 0)
    # The log of a variance of n independent counts has the error sqrt(2 / n); a model is not wanted nearer than some per cent anyway.
    errors = np.sqrt(2 * windows / span + 0.05**2)
    return Curve(windows[good], values[good], errors[good], rate, span)


def law(rate: float, scales: Sequence[Scale], floor: float = 1.0) -> Fano:
    """Fano factors of counts at a rate of these scales; `floor`: what they would be at a constant rate."""
    terms = [
        (math.prod(scale.variance for scale in some), 1 / sum(1 / scale.memory for scale in some))
        for number in range(1, len(scales) + 1) for some in combinations(scales, number)
    ]  # fmt: skip
    return _sum(rate, terms, floor)


def lognormal_law(rate: float, sigma: float, memory: float, floor: float = 1.0) -> Fano:
    """The same of a lognormal factor whose logarithm has the spread `sigma`: exp(sigma^2 exp(-t / memory)) - 1, written as its series."""
    terms = [(sigma ** (2 * n) / math.factorial(n), memory / n) for n in range(1, 40)]
    return _sum(rate, terms, floor)


def fitted(curve: Curve, number: int) -> list[Scale]:
    """So many scales, the shortest memory first, that come nearest to a Fano curve."""
    from scipy.optimize import least_squares

    shortest, longest = math.log(curve.windows[0] / 4), math.log(curve.span / 4)
    low, high = np.repeat([[math.log(LEAST_VARIANCE), shortest], [math.log(MOST_VARIANCE), longest]], number, axis=0).reshape(2, number, 2)

    def scales(at: np.ndarray) -> list[Scale]:
        return [Scale(math.exp(variance), math.exp(memory)) for variance, memory in at.reshape(number, 2)]

    best, nearest = math.inf, None
    for variance in (0.03, 0.3, 3.0):
        memories = np.linspace(shortest, longest, number + 2)[1:-1]
        start = np.column_stack([np.full(number, math.log(variance)), memories])
        done = least_squares(lambda at: curve.misfit(law(curve.rate, scales(at))), start.ravel(), bounds=(low.ravel(), high.ravel()))
        if done.cost < best:
            best, nearest = done.cost, done.x
    assert nearest is not None
    return sorted(scales(nearest), key=lambda scale: scale.memory)


def fitted_lognormal(curve: Curve, floor: float) -> tuple[float, float]:
    """(sigma, memory in seconds) of a lognormal factor that comes nearest to a Fano curve."""
    from scipy.optimize import least_squares

    low, high = [math.log(1e-3), math.log(curve.windows[0])], [math.log(3.0), math.log(curve.span / 2)]
    best, nearest = math.inf, None
    for sigma in (0.1, 0.5, 1.5):
        for share in (0.3, 0.7):
            start = [math.log(sigma), low[1] + share * (high[1] - low[1])]
            done = least_squares(
                lambda at: curve.misfit(lognormal_law(curve.rate, math.exp(at[0]), math.exp(at[1]), floor)), start, bounds=(low, high)
            )
            if done.cost < best:
                best, nearest = done.cost, done.x
    assert nearest is not None
    return math.exp(nearest[0]), math.exp(nearest[1])


def _counts_from(times: np.ndarray, begin: float, window: float, span: float) -> np.ndarray:
    return counts(times[np.searchsorted(times, begin) :] - begin, window, span - begin)


def _sum(rate: float, terms: Sequence[tuple[float, float]], floor: float) -> Fano:
    def at(windows: np.ndarray) -> np.ndarray:
        total = np.full(len(windows), float(floor))
        for variance, memory in terms:
            x = windows / memory
            total += 2 * rate * variance * memory * (1 + np.expm1(-x) / x)
        return total

    return at
