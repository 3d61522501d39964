"""The replica with the fewest requests in flight, of a fleet too large to ask everyone for every request.

A heap of (requests, index) in which nothing is ever looked for: who gets or loses a request is put in once more, and an entry that is no
longer true is dropped when it comes to the top. So a choice costs the logarithm of the fleet, and it is the one that asking all would give.
"""
from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

from sim.world.engine import Engine

# An entry is one number, requests above index, which compares faster than a pair.
PLACES = 32
INDICES = 2**PLACES - 1
# A heap is made anew when it has so many entries for each replica.
STALE = 8


class Ranked(Engine):
    """A fast engine that tells rankings how many requests it has."""

    __slots__ = ("_count", "rankings")

    def __init__(self, *given: Any):
        self.rankings: list[Ranking] = []
        self._count = 0
        super().__init__(*given)

    @property
    def in_flight(self) -> int:
        return self._count

    @in_flight.setter
    def in_flight(self, count: int) -> None:
        self._count = count
        for ranking in self.rankings:
            ranking.note(self.index, count)


class Ranking:
    """Those replicas of a fleet that take requests now."""

    def __init__(self) -> None:
        self._engines: dict[int, Ranked] = {}
        self._heap: list[int] = []

    def add(self, engine: Ranked) -> None:
        self._engines[engine.index] = engine
        engine.rankings.append(self)
        self.note(engine.index, engine.in_flight)

    def remove(self, engine: Ranked) -> None:
        del self._engines[engine.index]
        engine.rankings.remove(self)

    def note(self, index: int, count: int) -> None:
        """A replica has so many requests in flight now."""
        heappush(self._heap, count << PLACES | index)
        if len(self._heap) > STALE * len(self._engines):
            self._heap = [engine.in_flight << PLACES | index for index, engine in self._engines.items()]
            heapify(self._heap)

    def first(self) -> int:
        """The index of the replica with the fewest requests in flight, the lowest of equals; there has to be one."""
        heap, engines = self._heap, self._engines
        while True:
            index = heap[0] & INDICES
            if index in engines and engines[index].in_flight == heap[0] >> PLACES:
                return index
            heappop(heap)
