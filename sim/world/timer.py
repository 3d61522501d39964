"""A timer that rings after everything else of its instant: requests that arrive exactly when a step ends are in the next step's batch.

SimPy orders equal times by priority, then by age; an engine's timers take a priority below the ordinary one. A timer is never taken back:
an overtaken one finds its ticket stale (`world/engine.py`), which costs a tenth of an interrupt.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simpy import Environment, Event

LAST = 2

# Replicas whose steps take the same time stay in step and end theirs at one instant, up to rounding. So that rounding never decides whether
# a caller's next request is in another replica's batch, an answer takes a nanosecond to its caller and an idle engine half of one to start:
# requests then arrive, and steps end, on two combs that never meet.
ANSWER = 1e-9
WAKE = 0.5e-9


class Timer(Event):
    """Calls `ring(timer)` once, `seconds` from now; `ticket` comes back as `timer._value`."""

    def __init__(self, env: Environment, seconds: float, ticket: int, ring: Callable[[Any], None]):
        # Event.__init__ would set a pending state only to be overwritten; engines make a timer per stretch.
        self.env = env
        self.callbacks = [ring]
        self._value = ticket
        self._ok = True
        env.schedule(self, LAST, seconds)  # type: ignore[arg-type]
