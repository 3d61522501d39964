"""Gamma arrivals: gaps of a chosen coefficient of variation; above 1 the requests come in bunches, at 1 this is Poisson.

The gaps have shape 1 / cv^2 and mean 1 / rate. vLLM's `--burstiness` is that shape. Production traffic of language models is described
by gamma and Weibull gaps with a cv between 1 and 10 (ServeGen, arXiv:2505.09999).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.base import BLOCK, Rate, Renewal, Variation


@dataclass(kw_only=True)
class Gamma(Renewal):
    """`rate`: mean requests per second. `cv`: standard deviation of the gaps over their mean."""

    rate: Rate
    cv: Variation

    def gaps(self, rng: np.random.Generator) -> np.ndarray:
        shape = self.cv**-2
        return rng.standard_gamma(shape, BLOCK) / (shape * self.rate)
