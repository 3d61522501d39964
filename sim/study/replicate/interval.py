"""How sure a figure is: intervals over replications or batches, tests of differences, where a warm-up ends, when there are runs enough.

Plain functions of numbers, without a clock. Sources: A. Law, Simulation Modeling and Analysis, 5th ed., sections 9.4 (replications and
relative precision) and 9.5 (warm-up, batch means), 10.2 (paired differences); K. White, An effective truncation heuristic for bias
reduction in simulation output (Simulation 69, 1997) for MSER; S. Holm, A simple sequentially rejective multiple test procedure (Scand. J.
Statistics 6, 1979); E. Wilson, Probable inference (JASA 22, 1927) for shares; S. Asmussen and P. Glynn, Stochastic Simulation,
section III.4, for the spread of batches around the whole (sectioning).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.core.errors import BadInput

LEVEL = 0.95
REPLICATIONS, BATCHES = "replications", "batch means"
ROUNDING = 1e-12  # differences that small beside the figures are those of the last digits


class Interval(NamedTuple):
    """`mean` with `low` and `high`, `half` of their distance, from `n` values by `method`; `level` is the share of such intervals that hold
    what they are of.
    """

    mean: float
    low: float
    high: float
    half: float
    n: int
    method: str
    level: float

    @property
    def relative(self) -> float:
        """`half` over the mean's size; infinite where the mean is 0 and `half` is not."""
        return self.half / abs(self.mean) if self.mean else math.inf if self.half else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half:.2g} ({self.level:.0%}, n = {self.n}, {self.method})"


def student(values: Sequence[float] | np.ndarray, level: float = LEVEL, method: str = REPLICATIONS) -> Interval:
    """Student's interval for the mean of independent values. Raises BadInput for fewer than two, and for a level outside (0, 1).

    >>> str(student([1.0, 2.0, 3.0]))
    '2 ± 2.5 (95%, n = 3, replications)'
    """
    values = np.asarray(values, dtype=float)
    return around(values, float(values.mean()) if len(values) else 0.0, level, method)


def around(values: Sequence[float] | np.ndarray, centre: float, level: float = LEVEL, method: str = BATCHES) -> Interval:
    """An interval about `centre`, a figure of the whole, from the spread of the figures of its parts around it. Raises as `student`."""
    values, centre = np.asarray(values, dtype=float), float(centre)
    many(len(values), level)
    far = apart(np.full(len(values), centre), values)
    deviation = math.sqrt(float((far**2).sum()) / (len(values) - 1))
    half = quantile(level, len(values)) * deviation / math.sqrt(len(values))
    return Interval(centre, centre - half, centre + half, half, len(values), method, level)


def share(values: Sequence[bool] | np.ndarray, level: float = LEVEL, method: str = REPLICATIONS) -> Interval:
    """Wilson's interval for how often something is true, which stays within 0 and 1; `mean` is how often it was. Raises as `student`.

    >>> [round(share([True] * 10)[place], 3) for place in (0, 1, 2)]
    [1.0, 0.722, 1.0]
    """
    from scipy.special import ndtri

    n = len(values)
    many(n, level)
    p, z = float(np.mean(values)), float(ndtri(0.5 + level / 2))
    middle, spread = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = max(middle - spread, 0.0) if p > 0 else 0.0, min(middle + spread, 1.0) if p < 1 else 1.0
    return Interval(p, low, high, (high - low) / 2, n, method, level)


def many(n: int, level: float = LEVEL) -> None:
    """Raise BadInput where no interval can be given."""
    if n < 2:
        raise BadInput(f"found {n}; an interval needs 2 replications or more")
    if not 0 < level < 1:
        raise BadInput(f"found the level {level:g}; a share between 0 and 1 is wanted, such as 0.95")


def quantile(level: float, n: int) -> float:
    """Of Student's distribution with n - 1 degrees of freedom: how many standard errors an interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + level / 2))


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences of pairs, other - one; what is only rounding is 0."""
    differences = other - one
    return np.where(np.abs(differences) <= ROUNDING * np.maximum(np.abs(one), np.abs(other)), 0.0, differences)


def p_value(differences: Sequence[float] | np.ndarray) -> float:
    """How likely differences this far from 0 are by chance, by Student's two-sided test of their mean. Raises BadInput for fewer than two.

    >>> p_value([0.0, 0.0]), p_value([1.0, 1.0]), round(p_value([1.0, 2.0, 3.0]), 3)
    (1.0, 0.0, 0.074)
    """
    from scipy.special import stdtr

    values = np.asarray(differences, dtype=float)
    many(len(values))
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error <= ROUNDING * abs(mean):
        return 0.0 if mean else 1.0
    return float(2 * stdtr(len(values) - 1, -abs(mean) / error))


def welch(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray, level: float = LEVEL) -> tuple[Interval, float]:
    """The interval of mean(other) - mean(one) of samples that do not belong together in pairs, and its p-value (Welch 1947).

    `n` is that of the smaller sample. Raises BadInput when one has fewer than two values.
    """
    from scipy.special import stdtr, stdtrit

    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    n = min(len(first), len(second))
    many(n, level)
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    mean, error = float(second.mean() - first.mean()), math.sqrt(sum(parts))
    if error <= ROUNDING * max(abs(float(first.mean())), abs(float(second.mean()))):
        return Interval(mean, mean, mean, 0.0, n, "Welch", level), 0.0 if mean else 1.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Interval(mean, mean - half, mean + half, half, n, "Welch", level), float(2 * stdtr(freedom, -abs(mean) / error))


def holm(values: Sequence[float]) -> list[float]:
    """P-values of several questions asked at once, raised so that calling those below 5 % significant errs in any with at most 5 %.

    >>> holm([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def enough(interval: Interval, relative: float) -> bool:
    """Whether an interval is within `relative` of its mean. The bound is relative / (1 + relative), so that the error relative to the true
    mean, which is not known, is within it (Law, section 9.4.1).
    """
    return interval.half <= relative / (1 + relative) * abs(interval.mean)


def wanted(interval: Interval, relative: float) -> float:
    """How many replications will be enough, if the spread is what it seems to be; infinite for a mean of 0."""
    bound = relative / (1 + relative) * abs(interval.mean)
    if interval.half <= bound:
        return interval.n
    return max(interval.n + 1, math.ceil(interval.n * (interval.half / bound) ** 2)) if bound else math.inf


class Truncation(NamedTuple):
    """The first `cut` of `n` values are the warm-up; `settled`: whether the series lasts long enough beyond it to tell."""

    cut: int
    n: int
    settled: bool


def mser(series: Sequence[float] | np.ndarray, size: int = 5) -> Truncation:
    """Where the warm-up of a series ends, by MSER: means of `size` values in a row are left out from the start so that the standard error
    of the mean of the rest is least. At most half of the series is given up: what is still better then has not `settled`.

    >>> mser([9.0] * 20 + [1.0, 2.0] * 90)
    Truncation(cut=20, n=200, settled=True)
    """
    values = np.asarray(series, dtype=float)
    count = len(values) // size
    if count < 10:
        return Truncation(0, len(values), False)
    means = values[: count * size].reshape(count, size).mean(axis=1)
    means = means - means.mean()
    left = count - np.arange(count // 2 + 1)
    after, squares = (np.cumsum(part[::-1])[::-1][: len(left)] for part in (means, means**2))
    errors = np.maximum(squares - after**2 / left, 0.0) / left.astype(float) ** 2
    # Of equals the first: nothing is given up for what is only rounding.
    best = int(np.flatnonzero(errors <= errors.min() * (1 + 1e-9) + 1e-300)[0])
    return Truncation(best * size, len(values), best < count // 2)


def correlation(values: Sequence[float] | np.ndarray) -> float:
    """Of each value with the next, from -1 to 1; 0 where all are the same."""
    centred = np.asarray(values, dtype=float)
    centred = centred - centred.mean()
    spread = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / spread if spread else 0.0


def correlated(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> bool:
    """Whether means of batches hang together more than chance allows (von Neumann 1941), so that an interval from them is too narrow."""
    from scipy.special import ndtri

    n = len(values)
    return correlation(values) > float(ndtri(level)) * math.sqrt((n - 2) / (n * n - 1)) if n > 3 else False
