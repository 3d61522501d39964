"""Round robin: each replica in turn, whatever it holds."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from sim.core.request import Request
from sim.policy.route.base import View


@dataclasses.dataclass
class RoundRobin:
    """Replicas in turn."""

    sees: ClassVar[str] = "nothing"

    _next: int = dataclasses.field(default=0, init=False)

    def pick(self, request: Request, views: Sequence[View]) -> int:
        turn = self._next % len(views)
        self._next = turn + 1
        return views[turn].index
