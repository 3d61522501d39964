"""Lognormal lengths: many short ones, a long tail; what prompt and answer lengths look like when only two figures of them are known.

Each side is a map of exactly two figures and optional bounds: `input: {mean: 1000, p99: 4000, max: 8192}`. The centre is `mean` or
`median`; the spread is `sigma` (standard deviation of the logarithm), `p90`, `p95` or `p99`. The figures describe the law before `min`
(default 1) and `max` clip it. A quantile is median exp(z sigma), the mean is median exp(sigma^2 / 2).
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.core.errors import did_you_mean
from workloads.lengths.base import MOST_TOKENS, Correlation, Lengths, normals, tokens

CENTRES = ("mean", "median")
QUANTILES = {"p90": 1.2815515655446004, "p95": 1.6448536269514722, "p99": 2.3263478740408408}
SPREADS = ("sigma", *QUANTILES)
BOUNDS = ("min", "max")
MOST_SIGMA = 10


@dataclass(kw_only=True)
class Lognormal(Lengths):
    """`correlation`: rank correlation of input and output."""

    input: dict[str, float]
    output: dict[str, float]
    correlation: Correlation = 0.0

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        for side in ("input", "output"):
            yield from _check(side, values[side])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = normals(rng, count, self.correlation)
        return _scaled(self.input, first), _scaled(self.output, second)


def law(figures: Mapping[str, float]) -> tuple[float, float]:
    """(median, sigma) of the lognormal law with the given centre and spread. Raises ValueError when there is none.

    >>> law({"median": 100, "sigma": 0.5})
    (100, 0.5)
    >>> median, sigma = law({"mean": 1000, "p99": 4000})
    >>> round(median * math.exp(sigma**2 / 2)), round(median * math.exp(QUANTILES["p99"] * sigma))
    (1000, 4000)
    """
    centre = next(key for key in CENTRES if key in figures)
    spread = next(key for key in SPREADS if key in figures)
    if spread == "sigma":
        sigma = figures["sigma"]
    else:
        z, ratio = QUANTILES[spread], math.log(figures[spread] / figures[centre])
        if ratio < 0:
            raise ValueError(f"{spread} ({figures[spread]:g}) is below the {centre} ({figures[centre]:g})")
        # Of a mean and a quantile: z s - s^2 / 2 = ratio, whose smaller root is the law meant.
        if centre == "mean" and ratio > z * z / 2:
            raise ValueError(f"no lognormal law has a {spread} beyond {math.exp(z * z / 2):.3g} times its mean; give median and sigma")
        sigma = z - math.sqrt(z * z - 2 * ratio) if centre == "mean" else ratio / z
        if sigma > MOST_SIGMA:
            raise ValueError(f"{spread} ({figures[spread]:g}) is too far above the {centre} ({figures[centre]:g})")
    median = figures["median"] if centre == "median" else figures["mean"] * math.exp(-sigma * sigma / 2)
    return median, sigma


def _check(side: str, figures: Mapping[str, float]) -> Iterable[tuple[str, str]]:
    known = (*CENTRES, *SPREADS, *BOUNDS)
    wrong = [key for key in figures if key not in known]
    for key in wrong:
        yield f"{side}.{key}", f"unknown key; {did_you_mean(key, known)}"
    for key, value in figures.items():
        if key in known and (value < 0 or (value == 0 and key != "sigma")):
            wrong.append(key)
            yield f"{side}.{key}", f"found {value:g}; a positive number is wanted"
        elif key in known and value > (MOST_SIGMA if key == "sigma" else MOST_TOKENS):
            wrong.append(key)
            yield f"{side}.{key}", f"found {value:g}; at most {MOST_SIGMA if key == 'sigma' else MOST_TOKENS} is wanted"
    for names in (CENTRES, SPREADS):
        found = [name for name in names if name in figures]
        if len(found) != 1 and not wrong:
            wrong += names
            yield side, f"found {' and '.join(found) or 'none'} of {', '.join(names)}; exactly one of them is wanted"
    if not wrong:
        if figures.get("min", 1) > figures.get("max", math.inf):
            yield side, f"min ({figures['min']:g}) is above max ({figures['max']:g})"
        try:
            law(figures)
        except ValueError as error:
            yield side, str(error)


def _scaled(figures: Mapping[str, float], normal: np.ndarray) -> np.ndarray:
    median, sigma = law(figures)
    values = median * np.exp(sigma * normal)
    return tokens(np.clip(values, figures.get("min", 1.0), figures.get("max", 2.0**31 - 1)))
