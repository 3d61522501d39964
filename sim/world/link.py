"""A link that its transfers share evenly: a replica's way out to the network, or the bus to its host's memory.

Processor sharing in virtual time: each of n transfers under way moves 1/n of the bandwidth, so with a clock that runs at bandwidth / n
each ends when that clock has advanced by its size. One heap, O(log n) per transfer. Until there is a network with shared links, this is
what contention is; both ends of a transfer are not, only the sender's.
"""
from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from simpy import Environment

from sim.world.timer import GRID, Timer


class Link:
    """`bandwidth` bytes/s, shared; each transfer begins `latency` seconds after it was asked for. Ends fall on whole nanoseconds."""

    def __init__(self, env: Environment, bandwidth: float, latency: float = 0.0):
        self._env, self.bandwidth, self.latency = env, bandwidth, latency
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._moved = self._since = 0.0
        self._count = self._ticket = 0

    def send(self, size: float, done: Callable[[], None]) -> None:
        """Move `size` bytes, then call `done`."""
        if self.latency:
            Timer(self._env, self.latency, 0, lambda _: self._begin(size, done))
        else:
            self._begin(size, done)

    def _begin(self, size: float, done: Callable[[], None]) -> None:
        self._clock()
        self._count += 1
        heappush(self._ends, (self._moved + size, self._count, done))
        self._set()

    def _clock(self) -> None:
        """Bring the virtual clock, in bytes per transfer, up to now."""
        now = self._env.now
        if self._ends:
            self._moved += (now - self._since) * self.bandwidth / len(self._ends)
        self._since = now

    def _set(self) -> None:
        self._ticket += 1
        left = max(0.0, self._ends[0][0] - self._moved) * len(self._ends) / self.bandwidth
        # On whole nanoseconds, so that rounding never decides whether an engine's step sees the end of a transfer.
        at = (round((self._env.now + left) / GRID) + 1) * GRID
        Timer(self._env, at - self._env.now, self._ticket, self._ring)

    def _ring(self, timer: Any) -> None:
        if timer._value != self._ticket:
            return
        self._clock()
        done = [heappop(self._ends)[2]]
        # Those that end within the same nanosecond end together.
        while self._ends and self._ends[0][0] - self._moved <= self.bandwidth * GRID / len(self._ends):
            done.append(heappop(self._ends)[2])
        if self._ends:
            self._set()
        for call in done:
            call()
