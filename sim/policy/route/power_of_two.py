"""Power of two choices: draw two replicas, take the less loaded: nearly the balance of asking all, at the cost of asking two.

Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 2001.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sim.core.request import Request
from sim.core.rng import Draws
from sim.policy.route.base import View


@dataclasses.dataclass
class PowerOfTwo:
    """The less loaded of two drawn at random."""

    _draws: Draws | None = dataclasses.field(default=None, init=False)

    def seed(self, draws: Draws) -> None:
        self._draws = draws

    def pick(self, request: Request, views: Sequence[View]) -> int:
        assert self._draws is not None, "seed the router first"
        n = len(views)
        first = self._draws.below(n)
        second = (first + 1 + self._draws.below(n - 1)) % n if n > 1 else first
        a, b = views[first], views[second]
        return a.index if a.in_flight <= b.in_flight else b.index
