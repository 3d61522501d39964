"""Self-exciting arrivals: every request makes further ones likely for a while, as retries, agents and word of mouth do.

The intensity is mu + sum over earlier arrivals of n b exp(-b age), b = 1 / decay (Hawkes 1971, Biometrika 58): a request is followed by
`branching` = n others on average, those by others of their own. Drawn by its clusters (Hawkes and Oakes 1974): spontaneous requests come as
a Poisson process, each has a Poisson number of followers, after exponential delays. What the time before `start` left behind is drawn with
the mean and the variance of equilibrium, so that mean and variance of all later counts are those of the stationary process:

    mean = mu / (1 - n),   Var N(t) / (mean t) = 1 + n (2 - n) / (1 - n)^2 (1 - (1 - exp(-a t)) / (a t)),   a = (1 - n) b.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from workloads._rate import in_blocks
from workloads.base import BLOCK, OpenLoop, PositiveSeconds, Rate


@dataclass(kw_only=True)
class Hawkes(OpenLoop):
    """`rate`: mean requests per second, of which a part 1 - `branching` is spontaneous. `decay`: mean time to a follower."""

    rate: Rate
    branching: Annotated[float, Field(ge=0, lt=0.995)]
    decay: PositiveSeconds

    def fano(self, window: float) -> float:
        """Variance over mean of the number of arrivals in a window of so many seconds (infinite: the limit)."""
        n = self.branching
        limit = n * (2 - n) / (1 - n) ** 2
        if math.isinf(window):
            return 1 + limit
        x = (1 - n) * window / self.decay
        return 1 + limit * (1 + math.expm1(-x) / x)

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return in_blocks(self._final(rng))

    def _final(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Arrivals that nothing can precede any more: those before the last spontaneous one drawn."""
        # Followers are drawn apart: a higher rate squeezes the spontaneous requests and leaves their clusters as they are.
        spontaneous, followers, before = rng.spawn(3)
        later = self._with_followers(followers, self._left_behind(before))
        now = 0.0
        while True:
            begun = now + np.cumsum(spontaneous.standard_exponential(BLOCK) / (self.rate * (1 - self.branching)))
            now = float(begun[-1])
            known = np.sort(np.concatenate([later, self._with_followers(followers, begun)]))
            final = int(np.searchsorted(known, now))
            yield known[:final]
            later = known[final:]

    def _left_behind(self, rng: np.random.Generator) -> np.ndarray:
        """Direct followers of requests before the start.

        Their expected number, the excess intensity at the start over b, has in equilibrium the mean n rate / b and the variance
        n^2 rate / (2 (1 - n) b); it is drawn from the gamma law of these.
        """
        n = self.branching
        if not n:
            return np.empty(0)
        expected = rng.standard_gamma(2 * (1 - n) * self.rate * self.decay) * n / (2 * (1 - n))
        return rng.standard_exponential(rng.poisson(expected)) * self.decay

    def _with_followers(self, rng: np.random.Generator, begun: np.ndarray) -> np.ndarray:
        """These arrivals and all that follow from them, in no order."""
        generations = [begun]
        while len(generations[-1]):
            parents = generations[-1]
            causes = np.repeat(parents, rng.poisson(self.branching, len(parents)))
            generations.append(causes + self.decay * rng.standard_exponential(len(causes)))
        return np.concatenate(generations)
