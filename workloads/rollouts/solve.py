"""How often a model is right: a population of prompts, each with its own chance to be solved, which rises as training goes on.

The chance p of a prompt is Beta(a, b) over the prompts: with a and b below 1 most are solved nearly always or nearly never. Training moves
each prompt alike on the scale of a standard normal, p = Beta^-1(Phi(z + drift v / 100)) at version v for a prompt with ease z, so that the
order of prompts stays, p stays within 0 and 1, and two runs that share their luck have the same easy prompts.

A group of n answers teaches something only when they differ: of independent answers that is P(valid | p, n) = 1 - p^n - (1 - p)^n, which
over Beta(a, b) is 1 - B(a + n, b) / B(a, b) - B(a, b + n) / B(a, b).
"""
from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from sim.spec.frozen import Spec

Shape = Annotated[float, Field(ge=0.01, le=1e4)]


class Solving(Spec):
    """`solve_rate_beta`: a and b of the population; or `solve_rate`: the same chance for all prompts. `drift_per_100_steps` is in standard
    deviations of a normal, above 0 where training makes more of them right.
    """

    solve_rate_beta: tuple[Shape, Shape] | None = None
    solve_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    drift_per_100_steps: Annotated[float, Field(ge=-10, le=10)] = 0.0

    @model_validator(mode="after")
    def _one(self) -> Solving:
        if (self.solve_rate_beta is None) == (self.solve_rate is None):
            raise ValueError("one of solve_rate_beta, such as [0.6, 0.6], and solve_rate, such as 0.5, is wanted")
        if self.solve_rate in (0.0, 1.0) and self.drift_per_100_steps:
            raise ValueError(f"a solve_rate of {self.solve_rate:g} does not drift; take one between 0 and 1")
        return self

    def rate(self, ease: Any, version: float = 0.0) -> Any:
        """The chance that an answer is right, of prompts with this ease (a standard normal over the prompts; a number or an array).

        >>> round(float(Solving(solve_rate=0.5, drift_per_100_steps=1.0).rate(0.3, 100)), 4)
        0.8413
        """
        from scipy import special

        shift = self.drift_per_100_steps * version / 100.0
        if self.solve_rate_beta is None:
            same = self.solve_rate if not shift else special.ndtr(special.ndtri(self.solve_rate) + shift)
            return same + np.zeros_like(ease)
        return special.betaincinv(*self.solve_rate_beta, special.ndtr(ease + shift))

    def mean(self, version: float = 0.0) -> float:
        """The chance that an answer is right, over the prompts."""
        grid, weights = self._prompts
        return float(weights @ self.rate(grid, version))

    def valid(self, samples: int, version: float = 0.0) -> float:
        """The share of groups of so many samples that are neither all right nor all wrong."""
        grid, weights = self._prompts
        rate = self.rate(grid, version)
        return float(weights @ (1.0 - rate**samples - (1.0 - rate) ** samples))

    @cached_property
    def _prompts(self) -> tuple[np.ndarray, np.ndarray]:
        return normal_grid()


def normal_grid(step: float = 0.02, reach: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights for means over a standard normal: the trapezoidal rule, which for smooth functions is as good as exact."""
    grid = np.arange(-round(reach / step), round(reach / step) + 1) * step
    density = np.exp(-0.5 * grid * grid)
    return grid, density / density.sum()
