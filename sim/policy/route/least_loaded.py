"""Least loaded: the replica with the fewest requests in flight; the first of equals."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter

from sim.core.request import Request
from sim.policy.route.base import View

IN_FLIGHT = attrgetter("in_flight")


@dataclasses.dataclass
class LeastLoaded:
    """Fewest requests in flight."""

    _all: Sequence[View] | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _first: Callable[[], int] | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def rank(self, views: Sequence[View], first: Callable[[], int]) -> None:
        """Somebody keeps a ranking: of just these views, `first` says which one it is."""
        self._all, self._first = views, first

    def pick(self, request: Request, views: Sequence[View]) -> int:
        if views is self._all and self._first is not None:
            return self._first()
        return min(views, key=IN_FLIGHT).index
