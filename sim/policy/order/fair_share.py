"""Fair share per tenant: the virtual token counter of Sheng et al. (Fairness in Serving Large Language Models, OSDI 2024, Algorithm 2).

Each tenant, here a workload, has a counter of the service it got: its prompts' tokens when they are admitted and its output tokens as they
come, each with a weight (1 and 2 there). Whoever waits with the least counter is served next, a tenant's own requests in order of arrival.
A tenant that comes back has its counter lifted to the least of those that wait (to that of the last tenant that waited, if none does), so
that idling saves nothing up. Theorem 4.4: of two tenants that wait all the while, neither gets ahead by more than 2 max(w_p L, w_q M),
with L the longest prompt and M the tokens the cache holds. A prompt computed again after a preemption is not charged twice.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Annotated, ClassVar

from pydantic import Field

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order._tenants import Tenants
from sim.policy.order.base import Order

Weight = Annotated[float, Field(ge=0, le=1e6)]


class Counter:
    """A tenant's service: `base` at step `since`, from where each of its `decoding` requests adds an output token a step."""

    __slots__ = ("base", "decoding", "since")

    def __init__(self) -> None:
        self.base = 0.0
        self.decoding = self.since = 0


@dataclasses.dataclass
class FairShare(Order):
    """Weights of an input and of an output token."""

    meters: ClassVar[bool] = True

    input_weight: Weight = 1.0
    output_weight: Weight = 2.0
    _counters: dict[int, Counter] = dataclasses.field(default_factory=dict, init=False)
    _members: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict, init=False)
    _step: int = dataclasses.field(default=0, init=False)
    _queue: Tenants | None = dataclasses.field(default=None, init=False)

    def queue(self) -> Waiting:
        self._queue = Tenants(self.service, self.charge, self.lift)
        return self._queue

    def victim(self, running: dict[int, Request]) -> Request:
        """The newest request of the tenant that got most."""
        return max(running.values(), key=lambda request: (self.service(request.workload), request.arrival, request.id))

    def service(self, tenant: int) -> float:
        """Weighted tokens the tenant got, as of the step of the last event."""
        counter = self._counters.get(tenant)
        if counter is None:
            return 0.0
        return counter.base + self.output_weight * counter.decoding * (self._step - counter.since)

    def charge(self, request: Request) -> float:
        """What its admission adds to its tenant's service."""
        return 0.0 if request.preemptions else self.input_weight * request.prompt

    def lift(self, tenant: int, waiting: Collection[int], before: int | None) -> None:
        """A tenant none of whose requests waited has one: `waiting` tenants do, or `before` was the last that did."""
        if waiting:
            least = min(self.service(other) for other in waiting)
        elif before is not None:
            least = self.service(before)
        else:
            return
        self._counter(tenant).base += max(least - self.service(tenant), 0.0)

    def at(self, step: int) -> None:
        if self._queue is not None and self._queue.newcomers:
            self._step = step
            self._queue.take_in()

    def admitted(self, request: Request) -> None:
        self._counter(request.workload).base += self.charge(request)
        self._members[request.id] = -1, request.generated

    def joined(self, request: Request, step: int) -> None:
        self._account(request, step, 1)
        self._members[request.id] = step, request.generated

    def left(self, request: Request, step: int) -> None:
        decoding = self._members[request.id][0] >= 0
        self._account(request, step, -1 if decoding else 0)
        del self._members[request.id]

    def _account(self, request: Request, step: int, change: int) -> None:
        """Bring the tenant's counter to `step` and to the tokens the request really has, and change how many of its requests decode."""
        joined, known = self._members[request.id]
        counter, self._step = self._counter(request.workload), step
        counted = known + (step - joined if joined >= 0 else 0)
        counter.base += self.output_weight * (counter.decoding * (step - counter.since) + request.generated - counted)
        counter.since = step
        counter.decoding += change

    def _counter(self, tenant: int) -> Counter:
        return self._counters.setdefault(tenant, Counter())
