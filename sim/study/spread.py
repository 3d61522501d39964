"""Mean and percentiles, of values held as an array or run-length coded and coming a page at a time."""
from __future__ import annotations

from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)
# Beyond so many rows, run-length coded values are counted in bins: 2 ** BIN_BITS to an octave, from SHORTEST to LONGEST seconds.
SORTABLE = 50_000
BIN_BITS = 14
SHORTEST, LONGEST = 1e-9, 1e9


def distribution(values: np.ndarray) -> dict[str, float] | None:
    """Mean and percentiles (linear between order statistics) of the values, which are put in another order; None when there are none."""
    if not len(values):
        return None
    mean = float(values.mean())
    return {"mean": mean} | _named(np.percentile(values, PERCENTILES, overwrite_input=True))


class Spread:
    """Mean and percentiles of run-length coded values: a percentile is the smallest value with at least that share of the weight at or
    below it. Beyond `SORTABLE` rows a histogram stands in for the sort: off by half a bin, 0.003 %.
    """

    def __init__(self) -> None:
        self._weight, self._sum, self._rows = 0.0, 0.0, 0
        self._pieces: list[tuple[np.ndarray, np.ndarray]] = []
        self._bins: np.ndarray | None = None

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """`values` in seconds, and how many there are of each."""
        self._weight += float(weights.sum())
        # Not `values @ weights`: a dot product wakes the threads of BLAS, which cost more than it saves.
        self._sum += float((values * weights).sum())
        self._rows += len(values)
        self._pieces.append((values, weights))
        if self._rows > SORTABLE:
            self._pour()

    def distribution(self) -> dict[str, float] | None:
        """{mean, p50, p90, ...} in seconds; None when nothing has any weight."""
        if not self._weight:
            return None
        if self._bins is None:
            values, weights = (np.concatenate(parts) for parts in zip(*self._pieces, strict=True))
            order = np.argsort(values, kind="stable")
            values, weights = values[order], weights[order]
        else:
            filled = np.flatnonzero(self._bins)
            values, weights = _middle(filled + _bin(SHORTEST)), self._bins[filled]
        # A whisker below the share, so that rounding in the product does not skip the value that reaches it exactly.
        places = np.searchsorted(np.cumsum(weights), [self._weight * p / 100 * (1 - 1e-12) for p in PERCENTILES])
        return {"mean": self._sum / self._weight} | _named(values[np.minimum(places, len(values) - 1)])

    def _pour(self) -> None:
        """Move what was kept into the bins."""
        if self._bins is None:
            self._bins = np.zeros(int(_bin(LONGEST) - _bin(SHORTEST)) + 1)
        for values, weights in self._pieces:
            bins = _bin(np.fmin(LONGEST, np.fmax(SHORTEST, values))) - _bin(SHORTEST)
            low = int(bins.min(initial=len(self._bins)))
            counts = np.bincount(bins - low, weights)
            self._bins[low : low + len(counts)] += counts
        self._pieces = []


def _bin(seconds: Any) -> Any:
    """The number of a value's bin: the leading bits of a positive float, read as an integer, are a logarithmic scale."""
    return np.asarray(seconds, dtype="f8").view("i8") >> (52 - BIN_BITS)


def _middle(bins: np.ndarray) -> np.ndarray:
    return ((2 * bins + 1) << (51 - BIN_BITS)).view("f8")


def _named(points: np.ndarray) -> dict[str, float]:
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, points, strict=True)}
