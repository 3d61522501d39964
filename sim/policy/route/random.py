"""Random: any replica, equally likely. The baseline that the others must beat."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from sim.core.request import Request
from sim.core.rng import Draws
from sim.policy.route.base import View


@dataclasses.dataclass
class Random:
    """Uniformly at random."""

    sees: ClassVar[str] = "nothing"

    _draws: Draws | None = dataclasses.field(default=None, init=False)

    def seed(self, draws: Draws) -> None:
        self._draws = draws

    def pick(self, request: Request, views: Sequence[View]) -> int:
        assert self._draws is not None, "seed the router first"
        return views[self._draws.below(len(views))].index
