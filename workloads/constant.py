"""Arrivals at even intervals: request k at start + k / rate, the first at `start` itself."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workloads.base import BLOCK, OpenLoop, Rate


@dataclass(kw_only=True)
class Constant(OpenLoop):
    """`rate`: requests per second."""

    rate: Rate

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        first = 0
        while True:
            # Divided, not summed up: request k is at k / rate to the last bit, however large k is.
            yield np.arange(first, first + BLOCK) / self.rate
            first += BLOCK
