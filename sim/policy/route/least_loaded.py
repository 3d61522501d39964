"""Least loaded: the replica with the fewest requests in flight; the first of equals."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import attrgetter

from sim.core.request import Request
from sim.policy.route.base import View

IN_FLIGHT = attrgetter("in_flight")


@dataclasses.dataclass
class LeastLoaded:
    """Fewest requests in flight."""

    def pick(self, request: Request, views: Sequence[View]) -> int:
        return min(views, key=IN_FLIGHT).index
