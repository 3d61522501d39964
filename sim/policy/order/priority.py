"""Higher `priority` first, equals by arrival; the lowest priority is preempted first, of equals the one that came last.

vLLM's `scheduling_policy: priority`, whose numbers run the other way. Nobody is preempted to let a higher priority in: a running request
gives way only when the next tokens of those running do not fit in the cache.
"""
from __future__ import annotations

import dataclasses

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order


@dataclasses.dataclass
class Priority(Order):
    """By the priority of the request, which is that of its workload."""

    def queue(self) -> Waiting:
        return Ranked(_rank)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(_rank, running)


def _rank(request: Request) -> float:
    return -request.priority
