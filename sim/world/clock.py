"""SimPy's environment with its loop written out, and with alarms: a run makes hundreds of thousands of events a second, and a call, a guard
and an event object for each are a tenth of its time. What an event is, and in which order events come, is SimPy's.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

from simpy import Environment

# SimPy orders equal times by priority, then by age: an engine's timers come after everything else of their instant, so that requests that
# arrive exactly when a step ends are in the next step's batch.
LAST = 2


class Clock(Environment):
    """An environment that is run by `advance`; `run` and `step` work as ever."""

    def alarm(self, seconds: float, call: Callable[[int], None], ticket: int) -> None:
        """Call `call(ticket)` so many seconds from now, after all else of that instant. It is never taken back: whom it comes too late
        for finds its ticket stale, which costs a tenth of an interrupt.
        """
        heappush(self._queue, (self._now + seconds, LAST, next(self._eid), (call, ticket)))  # type: ignore[arg-type]

    def step(self) -> None:
        """Process the next event or alarm."""
        if self._queue and type(self._queue[0][3]) is tuple:
            self._now, _, _, (call, ticket) = heappop(self._queue)
            call(ticket)
        else:
            super().step()

    def stop(self) -> None:
        """Forget all that was to come: the clock stands still from now on."""
        self._queue.clear()

    def advance(self, until: float = math.inf) -> None:
        """Process events and alarms in order until none is left, or none before `until` (s), where the clock then stands."""
        queue = self._queue
        while queue and queue[0][0] < until:
            self._now, _, _, event = heappop(queue)
            if type(event) is tuple:
                call, ticket = event
                call(ticket)
                continue
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
        if until < math.inf:
            self._now = until
