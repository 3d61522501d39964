"""Programs in order of arrival: all calls of a program rank with its first, so that those of old programs go before those of new ones.

Between its calls an agent runs tools, and a queue by the arrival of each call sends it to the back every time. In order of programs it
keeps its place (Continuum, arXiv 2511.02230, takes this as its base), also when it is preempted; the newest program is preempted first. A
program arrives at a replica when its first call comes to it. Calls of one program go by their own arrival.
"""
from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order


@dataclasses.dataclass
class ProgramFcfs(Order):
    """A request without a session is a program of its own."""

    # Who is called off while it waits has begun its program all the same, so that both engines have to take it in at the same step.
    meters: ClassVar[bool] = True

    _began: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict, init=False)

    def queue(self) -> Waiting:
        return Ranked(self.began)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(self.began, running)

    def began(self, request: Request) -> float:
        """When the first call of its program that came here arrived, s."""
        if request.program < 0 and request.session < 0:
            return request.arrival
        return self._began.setdefault(request.task, request.arrival)
