"""A cost tabulated over one size (tokens of a step, context of the decoders) and linear between its knots.

Kernels are smooth on the scale of their tiles, so a few hundred knots replace an evaluation per size: what an engine needs to price a step
in a microsecond, and what makes the cost of a run of decode steps affine piece by piece.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

from sim.physics.base import Cost

ZERO = Cost(0.0, 0.0, 0.0, 0.0, 0.0)
CONTEXT_RATIO = 1.5  # of neighbouring context knots: interpolated attention is within 0.4 % everywhere, 0.04 % on average


class Curve:
    """`cost` has arrays, one value per knot (ascending). Beyond the last knot its last piece goes on."""

    def __init__(self, knots: np.ndarray, cost: Cost):
        self.knots = [float(knot) for knot in knots]
        self.cost = Cost(*(np.broadcast_to(np.asarray(part, float), knots.shape) for part in cost))

    def at(self, size: float) -> Cost:
        """The cost of one size."""
        i = self.piece(size)
        share = (size - self.knots[i]) / (self.knots[i + 1] - self.knots[i])
        return Cost(*(float(part[i] + (part[i + 1] - part[i]) * share) for part in self.cost))

    def piece(self, size: float) -> int:
        """The knot at or before `size`, never the last one."""
        return min(max(bisect_right(self.knots, size) - 1, 0), len(self.knots) - 2)

    def seconds(self, most: int) -> list[float]:
        """The seconds of every whole size from 0 to `most`; 0 for nothing."""
        values: np.ndarray = np.interp(np.arange(most + 1), self.knots, self.cost.seconds)
        values[0] = 0.0
        return [float(value) for value in values]


def total(costs: Iterable[tuple[float, Cost]]) -> Cost:
    """Sum of costs, each taken a number of times."""
    parts = [0.0, 0.0, 0.0, 0.0, 0.0]
    for times, cost in costs:
        for i, part in enumerate(cost):
            parts[i] = parts[i] + times * part
    return Cost(*parts)


def token_knots(most: int, captured: tuple[int, ...] = ()) -> np.ndarray:
    """Token counts at which a step's kernels are evaluated: every 8 to 64 rows, finer where there are few, and the captured sizes."""
    pieces = [*range(1, 17), *range(24, 257, 8), *range(272, 1025, 16), *range(1056, 2049, 32), *range(2112, 8193, 64)]
    pieces += range(8448, most + 256, 256)
    kept = {piece for piece in pieces if piece < most} | {size for size in captured if size < most} | {1, max(most, 2)}
    return np.array(sorted(kept), float)


def context_knots(most: int, windows: Iterable[int]) -> np.ndarray:
    """Context lengths at which decode attention is evaluated: geometric, with a knot at each sliding window, where the cost bends."""
    count = int(np.ceil(np.log(max(most, 2) / 16.0) / np.log(CONTEXT_RATIO))) + 1
    grown = 16.0 * CONTEXT_RATIO ** np.arange(max(count, 1))
    return np.array(sorted({1.0, 4.0, 8.0, *np.round(grown).tolist(), *(float(window) for window in windows if window > 1)}), float)
