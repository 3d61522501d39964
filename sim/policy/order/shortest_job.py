"""Shortest job first, by the output tokens still to come: known exactly, or predicted with an error. The longest answer is preempted first.

Shortest first has the least mean wait there is on one machine (Smith, Naval Research Logistics 1956), and may starve the long. A predictor
is modelled by its error alone: predicted = actual x exp(sigma z), z normal and drawn per request, so that a request has the same prediction
on every replica and after a preemption.
"""
from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from pydantic import Field

from sim.core.request import Request
from sim.core.rng import Draws, mix
from sim.policy.batch.base import Waiting
from sim.policy.order._ranked import Ranked, last
from sim.policy.order.base import Order

BITS = 53


@dataclasses.dataclass
class ShortestJob(Order):
    """`sigma` is the standard deviation of the logarithm of predicted over actual output length; 0 is an oracle."""

    sigma: Annotated[float, Field(ge=0, le=10)] = 0.0
    _salt: int = dataclasses.field(default=0, init=False)

    def seed(self, draws: Draws) -> None:
        self._salt = draws.below(2**BITS)

    def queue(self) -> Waiting:
        return Ranked(self.left_to_do)

    def victim(self, running: dict[int, Request]) -> Request:
        return last(self.predicted, running)

    def left_to_do(self, request: Request) -> float:
        """Output tokens it is expected to need beyond those it has when it is put in the queue."""
        return max(self.predicted(request) - request.generated, 0.0)

    def predicted(self, request: Request) -> float:
        """Output tokens in all, as foreseen; who has the most is preempted first, for how far a running one has come is not looked up."""
        return request.output * self._error(request.id)

    def _error(self, number: int) -> float:
        if not self.sigma:
            return 1.0
        # Box and Muller: two uniform numbers, the first above 0, make a normal one.
        radius, angle = (((mix(self._salt, 2 * number + k) >> (64 - BITS)) + 0.5) / 2**BITS for k in (0, 1))
        return math.exp(self.sigma * math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle))
