"""Join the shortest queue: the replica with the fewest requests that wait; of equals the one with the fewest in flight, then the first."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import attrgetter

from sim.core.request import Request
from sim.policy.route.base import View

QUEUE = attrgetter("queued", "in_flight")


@dataclasses.dataclass
class JoinShortestQueue:
    """Fewest requests waiting."""

    def pick(self, request: Request, views: Sequence[View]) -> int:
        return min(views, key=QUEUE).index
