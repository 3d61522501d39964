"""Views with an age: what a replica was like when it last reported.

Nothing happens when a report is due. Only when something is about to change at a replica for the first time since a report, what that
report said is put away (copy on write), so that the cost follows the changes, and nothing has to be kept of those that nobody can see any
more. A report of an instant is of before all that happens in it.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from simpy import Environment

from sim.core.request import Request
from sim.spec.views import Views

if TYPE_CHECKING:
    from sim.world.seen import Seen, SeenExact


class Report(NamedTuple):
    """What a replica says of itself."""

    in_flight: int
    queued: int
    used: int


EMPTY = Report(0, 0, 0)


class Rhythm:
    """When reports are made, numbered from 0 at time 0, and which of them is the last to have reached the front door."""

    __slots__ = ("_env", "delay", "depth", "period")

    def __init__(self, env: Environment, views: Views):
        self._env, self.period, self.delay = env, views.period, views.delay
        # So many reports before the last one can still be on their way.
        self.depth = math.ceil(views.delay / views.period) + 1

    def made(self) -> int:
        """Number of the last report made by now."""
        return self._by(self._env.now)

    def seen(self) -> int:
        """Number of the last report that has reached the front door; -1: none."""
        at = self._env.now - self.delay
        return self._by(at) if at >= 0.0 else -1

    def at(self, number: int) -> float:
        """When a report is made, s."""
        return number * self.period

    def _by(self, at: float) -> int:
        number = int(at / self.period)
        # Division and multiplication round differently.
        while number * self.period > at:
            number -= 1
        while (number + 1) * self.period <= at:
            number += 1
        return number


class Reports:
    """The reports of one replica. `caught_up` is called for a report that is put away, before it is read, where blocks are reported too."""

    __slots__ = ("_kept", "_last", "caught_up", "rhythm")

    def __init__(self, rhythm: Rhythm):
        self.rhythm = rhythm
        self.caught_up: Callable[[int], None] | None = None
        self._kept: deque[Report] = deque(maxlen=rhythm.depth + 1)
        self._last = -1

    def before(self, engine: Seen | SeenExact) -> None:
        """Something is about to change: what was reported up to now is put away, that of report `_last` at the end."""
        made = self.rhythm.made()
        if made == self._last:
            return
        for number in range(max(self._last + 1, made - self.rhythm.depth), made + 1):
            if self.caught_up is not None:
                self.caught_up(number)
            self._kept.append(self._now(engine, number))
        self._last = made

    def seen(self, engine: Seen | SeenExact) -> Report:
        """The last report that has reached the front door."""
        number = self.rhythm.seen()
        if number < 0:
            return EMPTY
        if number > self._last:
            return self._now(engine, number)
        return self._kept[number - self._last - 1]

    def _now(self, engine: Seen | SeenExact, number: int) -> Report:
        """A report since which nothing has changed."""
        return Report(engine.in_flight, engine.queued, engine.used_by(self.rhythm.at(number)))


class OldView:
    """A replica as its reports show it; a count of its own is never old."""

    __slots__ = ("_engine", "_own", "_reports", "block_size", "index", "room", "weight")

    def __init__(self, engine: Seen | SeenExact, reports: Reports, own_count: bool):
        self._engine, self._reports, self._own = engine, reports, own_count
        self.index, self.room, self.block_size, self.weight = engine.index, engine.room, engine.block_size, engine.weight

    @property
    def in_flight(self) -> int:
        return self._engine.in_flight if self._own else self._reports.seen(self._engine).in_flight

    @property
    def queued(self) -> int:
        return self._reports.seen(self._engine).queued

    @property
    def kv_used(self) -> float:
        return self._reports.seen(self._engine).used / self._engine.kv.blocks

    def distance(self, request: Request) -> float:
        return self._engine.distance(request)

    def cached(self, request: Request) -> int:
        return self._engine.cached(request)
