"""Shortest program first, by the tokens it will still generate over all calls to come: an oracle, where the workload foresees them.

Shortest remaining processing time has the least mean time in system on one machine (Schrage, Operations Research 1968), so this bounds what
orders that must guess, such as `least_attained`, may hope for. It counts output tokens: those of this call that are not out yet, and those
that its sender says lie ahead. Where nothing is said of these, a call is a program of its own. The longest program is preempted first.
"""
from __future__ import annotations

import dataclasses

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order


@dataclasses.dataclass
class ShortestProgram(Order):
    """Programs are compared when a call is queued; how far a running one has come is not looked up."""

    def queue(self) -> Waiting:
        return Ranked(_left_to_do)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(_foreseen, running)


def _foreseen(request: Request) -> float:
    """Output tokens of this call and of those after it."""
    return request.output + (request.ahead if request.ahead == request.ahead else 0.0)


def _left_to_do(request: Request) -> float:
    return _foreseen(request) - request.generated
