"""What a replica has seen of its sessions: how long they paused, how long they queued when their cache was gone, how long they went on.

The pauses are the last `KEPT`, in order of length. `eta` is minus the correlation of the calls a session has made with those it still has
to make, over all calls of sessions that are over (Continuum, arXiv 2511.02230): 1 when all sessions are equally long.
"""
from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

KEPT = 512


class History:
    """Seconds and counts; `pauses` is sorted."""

    __slots__ = ("_recent", "_returns", "_sums", "_waited", "pauses")

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._recent: deque[float] = deque()
        self._waited, self._returns = 0.0, 0
        self._sums = [0.0] * 6

    def paused(self, seconds: float) -> None:
        """A session asked again after so long."""
        if len(self._recent) == KEPT:
            del self.pauses[bisect_left(self.pauses, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self.pauses, seconds)

    def missed(self, queued: float) -> None:
        """Some of its cache was gone, and it queued for so long."""
        self._waited += queued
        self._returns += 1

    def finished(self, calls: int) -> None:
        """A session is over after so many calls: for call k, k are made and calls - k left."""
        n = float(calls)
        made, left = n * (n + 1) / 2, n * (n - 1) / 2
        made_squares, left_squares = made * (2 * n + 1) / 3, left * (2 * n - 1) / 3
        for place, value in enumerate((n, made, left, made_squares, left_squares, n * made - made_squares)):
            self._sums[place] += value

    @property
    def queueing(self) -> float:
        """Mean wait of those that came back to a cache that was gone; 0 before there was one."""
        return self._waited / self._returns if self._returns else 0.0

    @property
    def eta(self) -> float:
        """1 as long as no session of two calls is over."""
        n, made, left, made_squares, left_squares, products = self._sums
        spread = math.sqrt(max(n * made_squares - made * made, 0.0) * max(n * left_squares - left * left, 0.0))
        return -(n * products - made * left) / spread if spread > 0 else 1.0
