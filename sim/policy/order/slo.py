"""Earliest deadline first: a request is due its time to first token after it arrived, and each class, told by `priority`, has its own.

EDF meets all deadlines where any order can (Liu and Layland, J. ACM 1973, for one machine and preemption); under overload it serves the
late ones first and may meet none. The latest deadline is preempted first.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.request import Request
from sim.core.units import Seconds
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order

Target = Annotated[Seconds, Field(gt=0)]


@dataclasses.dataclass
class Slo(Order):
    """`ttft` is the target of every class that `classes` ({priority: target}) does not name."""

    ttft: Target = 1.0
    classes: dict[int, Target] = dataclasses.field(default_factory=dict)

    def queue(self) -> Waiting:
        return Ranked(self.deadline)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(self.deadline, running)

    def deadline(self, request: Request) -> float:
        """Simulated second at which its first token is due."""
        return request.arrival + self.classes.get(request.priority, self.ttft)
