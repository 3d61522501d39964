"""The figures by which traffic is compared with traffic, and how near two of them are wanted to be.

Fano factor: variance over mean of the number of requests in a window of so many seconds; 1 for Poisson arrivals, larger where they come in
bunches, and growing with the window where bunches last. Correlations are compared by their difference, all else by its ratio.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WINDOWS = (1, 10, 60, 600)
PEAKS = (1, 60)
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
# Fewer windows than this say nothing of a variance.
LEAST_WINDOWS = 8
NEAR, NEAR_FANO = 0.1, 0.3


class Quantity(NamedTuple):
    """`within`: how far off it may be, a fraction of the real figure, or an `absolute` difference."""

    name: str
    words: str
    within: float
    absolute: bool = False


def quantities() -> list[Quantity]:
    """All of them, in the order of a table."""
    return [
        Quantity("rate", "requests per second", NEAR),
        Quantity("gap_cv", "CV of the gaps", NEAR),
        *(Quantity(f"fano_{window}s", f"Fano factor, {window} s", NEAR_FANO) for window in WINDOWS),
        *(Quantity(f"peak_{window}s", f"peak to mean, {window} s", NEAR_FANO) for window in PEAKS),
        *(Quantity(f"{side}_{mark}", f"{side} tokens {mark}", NEAR) for side in ("input", "output") for mark in QUANTILES),
        Quantity("pearson", "Pearson correlation", NEAR, True),
        Quantity("spearman", "rank correlation", NEAR, True),
    ]


def counts(times: np.ndarray, window: float, span: float) -> np.ndarray:
    """Requests in each whole window of [0, span)."""
    whole = int(span / window + 1e-9)
    return np.bincount((times[times < whole * window] / window).astype(np.int64), minlength=whole)[:whole]


def fano(times: np.ndarray, window: float, span: float) -> float:
    """Variance over mean of the requests in windows of [0, span); NaN where there are too few windows or no request."""
    found = counts(times, window, span)
    return float(found.var() / found.mean()) if len(found) >= LEAST_WINDOWS and found.any() else math.nan


def figures(times: np.ndarray, prompt: np.ndarray, output: np.ndarray, span: float, tick: float = 0.0) -> dict[str, float]:
    """Every quantity of the requests at `times` in [0, span), ascending; NaN where there is too little to tell.

    `tick`: seconds of a coarse clock, which tells nothing of gaps and of windows shorter than two ticks.
    """
    gaps = np.diff(times)
    found = {
        "rate": len(times) / span,
        "gap_cv": float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.any() else math.nan,
    }
    found |= {f"fano_{window}s": fano(times, window, span) for window in WINDOWS}
    for window in PEAKS:
        here = counts(times, window, span)
        found[f"peak_{window}s"] = float(here.max() / here.mean()) if len(here) >= LEAST_WINDOWS and here.any() else math.nan
    for side, tokens in (("input", prompt), ("output", output)):
        at = np.quantile(tokens, list(QUANTILES.values())).tolist() if len(tokens) else [math.nan] * len(QUANTILES)
        found |= {f"{side}_{mark}": value for mark, value in zip(QUANTILES, at, strict=True)}
    if tick:
        blurred = [name for name in found if name.startswith(("fano_", "peak_")) and float(name[5:-1]) < 2 * tick]
        found |= dict.fromkeys(["gap_cv", *blurred], math.nan)
    return found | {"pearson": correlation(prompt, output), "spearman": rank_correlation(prompt, output)}


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 where one of them does not vary."""
    if len(one) < 2 or not np.ptp(one) or not np.ptp(other):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, equal values sharing their mean rank."""
    return correlation(_ranks(one), _ranks(other))


def off(quantity: Quantity, found: float, real: float) -> float:
    """How far `found` lies from `real`: a fraction of it, or the difference where the quantity is compared so."""
    if quantity.absolute:
        return found - real
    return found / real - 1 if real else math.nan


def distance(found: Mapping[str, float], real: Mapping[str, float], names: Sequence[str]) -> float:
    """Mean of the logarithms of found / real, signs left out, over those figures that both have."""
    pairs = [(found[name], real[name]) for name in names]
    logs = [abs(math.log(one / other)) for one, other in pairs if one > 0 and other > 0]
    return float(np.mean(logs)) if logs else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(number)
    return np.asarray((last - (number - 1) / 2)[place])
