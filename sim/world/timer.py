"""A timer that rings after everything else of its instant, for those who wait for events (`world/clock.py` has alarms for the others); and
the answer that reaches a caller.
"""
from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

from simpy import Environment, Event

from sim.core.request import Request
from sim.world.clock import LAST

# Replicas whose steps take the same time stay in step and end theirs at one instant, up to rounding. So that rounding never decides whether
# a caller's next request is in another replica's batch, or which of two callers comes first, answers arrive on whole nanoseconds, those of
# one in the order of their replicas, and an idle engine starts a quarter of one after an arrival: requests arrive, and steps end, on two
# combs that never meet.
GRID = 1e-9
WAKE = 0.25e-9


class Timer(Event):
    """Calls `ring(timer)` once, `seconds` from now; `ticket` comes back as `timer._value`."""

    def __init__(self, env: Environment, seconds: float, ticket: int, ring: Callable[[Any], None]):
        self.env = env
        self.callbacks = [ring]
        self._value = ticket
        self._ok = True
        heappush(env._queue, (env._now + seconds, LAST, next(env._eid), self))  # type: ignore[arg-type]


class Deadline(Event):
    """Calls `ring(what)` half a nanosecond after the first whole one at least half of one after `at`: a comb that neither answers, arrivals
    nor the steps of engines meet, so that a request which ends at its deadline has ended.
    """

    def __init__(self, env: Environment, at: float, what: Any, ring: Callable[[Any], None]):
        self.env = env
        self.callbacks = [lambda event: ring(event._value)]
        self._value = what
        self._ok = True
        heappush(env._queue, ((round(at / GRID) + 1.5) * GRID, LAST, next(env._eid), self))  # type: ignore[arg-type]


class Answer(Event):
    """Calls `ring(request)` on the first whole nanosecond at least half of one after `at`; of one instant, in the order of replicas."""

    def __init__(self, env: Environment, at: float, request: Request, ring: Callable[[Request], None]):
        self.env = env
        self.callbacks = [lambda event: ring(event._value)]
        self._value = request
        self._ok = True
        # An absolute time, which SimPy's schedule cannot take: now + (time - now) would bring the rounding back.
        heappush(env._queue, ((round(at / GRID) + 1) * GRID, 1.0 + request.replica / 2**20, next(env._eid), self))  # type: ignore[arg-type]
