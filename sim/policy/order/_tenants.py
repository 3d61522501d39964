"""A queue by tenant: the tenant with the least service first, its own requests by arrival.

The service of a tenant grows while its requests wait, so what is kept in order is each tenant's line, and the tenants are compared when
somebody is to be served: O(tenants + log n) each time, tenants being few.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush

from sim.core.request import Request
from sim.policy.order._ranked import Entry, in_order

Lift = Callable[[int, Collection[int], int | None], None]


class Tenants:
    """`service(tenant)` is what a tenant got, `charge(request)` what the admission of a request adds to it; `lift(tenant, waiting, before)`
    is called for a tenant that comes to wait. `newcomers` have arrived since `take_in`, which lets them into the lines.
    """

    __slots__ = ("_before", "_charge", "_lift", "_lines", "_service", "newcomers")

    def __init__(self, service: Callable[[int], float], charge: Callable[[Request], float], lift: Lift):
        self._service, self._charge, self._lift = service, charge, lift
        self._lines: dict[int, list[Entry]] = {}
        self._before: int | None = None
        self.newcomers: list[Request] = []

    def append(self, request: Request) -> None:
        self.newcomers.append(request)

    def appendleft(self, request: Request) -> None:
        """One that was preempted was being served: its tenant has not been idle, and is not lifted."""
        heappush(self._lines.setdefault(request.workload, []), (0.0, request.arrival, request.id, request))

    def take_in(self) -> None:
        """Let the newcomers into the lines of their tenants."""
        for request in self.newcomers:
            if request.workload not in self._lines:
                self._lift(request.workload, self._lines.keys(), self._before)
            heappush(self._lines.setdefault(request.workload, []), (0.0, request.arrival, request.id, request))
        self.newcomers.clear()

    def popleft(self) -> Request:
        request = self[0]
        self.remove(request)
        return request

    def remove(self, request: Request) -> None:
        if request in self.newcomers:
            self.newcomers.remove(request)
            return
        line = self._lines[request.workload]
        if line[0][3] is request:
            heappop(line)
        else:
            line.pop(next(place for place, entry in enumerate(line) if entry[3] is request))
            heapify(line)
        if not line:
            del self._lines[request.workload]
            self._before = request.workload

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) + len(self.newcomers)

    def __iter__(self) -> Iterator[Request]:
        """As they would be served one after the other, each admission charged to its tenant; newcomers last."""
        walks = {tenant: in_order(line) for tenant, line in self._lines.items()}
        heads = [(self._service(tenant), *line[0][1:3], tenant, next(walks[tenant])) for tenant, line in self._lines.items()]
        heapify(heads)
        while heads:
            service, _, _, tenant, request = heappop(heads)
            yield request
            following = next(walks[tenant], None)
            if following is not None:
                heappush(heads, (service + self._charge(request), following.arrival, following.id, tenant, following))
        yield from self.newcomers

    def __getitem__(self, place: int) -> Request:
        return min((self._service(tenant), *line[place]) for tenant, line in self._lines.items())[4]
