"""SimPy's environment with its loop written out: a run makes a hundred thousand events a second, and a call and a guard for each are a
tenth of its time. What an event is, and in which order events come, is SimPy's.
"""
from __future__ import annotations

import math
from heapq import heappop

from simpy import Environment


class Clock(Environment):
    """An environment that is run by `advance`; `run` and `step` work as ever."""

    def advance(self, until: float = math.inf) -> None:
        """Process events in order until none is left, or none before `until` (s), where the clock then stands."""
        queue = self._queue
        while queue and queue[0][0] < until:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
        if until < math.inf:
            self._now = until
