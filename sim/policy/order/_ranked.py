"""A queue by rank: the least rank first, equals by arrival. A rank is read when a request is put in and holds until it is taken out.

A binary heap: putting in and taking the first cost O(log n), looking at the first k in order O(k log k), without taking them out.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from sim.core.request import Request

Rank = float | tuple[float, ...]
Entry = tuple[Any, float, int, Request]


class Ranked:
    """`rank(request)` is a number, or several of which the first decides; the `Waiting` of the orders whose keys stand still."""

    __slots__ = ("_heap", "_rank")

    def __init__(self, rank: Callable[[Request], Rank]):
        self._rank = rank
        self._heap: list[Entry] = []

    def append(self, request: Request) -> None:
        heappush(self._heap, (self._rank(request), request.arrival, request.id, request))

    def appendleft(self, request: Request) -> None:
        """One that was preempted has no better claim than its rank."""
        self.append(request)

    def popleft(self) -> Request:
        return heappop(self._heap)[3]

    def remove(self, request: Request) -> None:
        if self._heap[0][3] is request:
            heappop(self._heap)
        else:
            self._heap.pop(next(place for place, entry in enumerate(self._heap) if entry[3] is request))
            heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Request]:
        return in_order(self._heap)

    def __getitem__(self, place: int) -> Request:
        return self._heap[place][3]


def in_order(heap: list[Entry]) -> Iterator[Request]:
    """The requests of a heap from the least on, the heap left as it is: a parent comes before its children."""
    edge = [(heap[0], 0)] if heap else []
    while edge:
        entry, place = heappop(edge)
        yield entry[3]
        for child in (2 * place + 1, 2 * place + 2):
            if child < len(heap):
                heappush(edge, (heap[child], child))


def last(rank: Callable[[Request], Rank], running: dict[int, Request]) -> Request:
    """Whom a rank would serve last: the highest, of equals the one that came last."""
    return max(running.values(), key=lambda request: (rank(request), request.arrival, request.id))
