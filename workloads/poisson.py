"""Poisson arrivals: independent exponential gaps, what many independent users add up to."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.base import BLOCK, Rate, Renewal


@dataclass(kw_only=True)
class Poisson(Renewal):
    """`rate`: mean requests per second."""

    rate: Rate

    def gaps(self, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_exponential(BLOCK) / self.rate
