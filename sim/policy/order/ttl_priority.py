"""Whoever was preempted first, then calls whose session's cache is still kept here, then the others; each by the arrival of their program.

The order of Continuum (arXiv 2511.02230), which goes with a time to live of caches (`retention: {kind: ttl}`): to let those in first whose
cache waits for them is to use it before its time is over, and to give its blocks back soonest. Whether a call came in time is settled when
it arrives: one that did keeps its rank though its time runs out while it waits, as its cache stays until it is admitted there.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order
from sim.policy.order.program_fcfs import ProgramFcfs

Rank = tuple[int, float]
PREEMPTED, IN_TIME, LATE = range(3)


@dataclasses.dataclass
class TtlPriority(Order):
    """Where nothing is kept this is `program_fcfs` with those that were preempted first."""

    meters: ClassVar[bool] = True

    _programs: ProgramFcfs = dataclasses.field(default_factory=ProgramFcfs, init=False)
    _kept: Callable[[Request], float] | None = dataclasses.field(default=None, init=False)

    def keeps(self, until: Callable[[Request], float]) -> None:
        self._kept = until

    def queue(self) -> Waiting:
        return Ranked(self.rank)

    def victim(self, running: dict[int, Request]) -> Request:
        """Of the newest program: who runs has no other claim."""
        return last(self._programs.began, running)

    def rank(self, request: Request) -> Rank:
        """Its class, and when its program began, s."""
        began = self._programs.began(request)
        if request.preemptions:
            return PREEMPTED, began
        until = self._kept(request) if self._kept is not None else -math.inf
        return IN_TIME if until >= request.arrival else LATE, began
