"""Processor sharing in virtual time: jobs that share a capacity, each in proportion to its weight, and none faster than alone.

With weights w on a capacity C a job's work gets done at the rate f = min(most, C / sum of w), the same for all, so that one virtual clock
V, which runs at f, carries them: a job that begins at V with work s ends when the clock shows V + s, whatever comes and goes meanwhile.
Jobs lie in a heap by that, and one alarm waits for the first: O(log n) for each that comes or goes, however many there are. It is
egalitarian processor sharing where weights are alike (Kleinrock, Queueing Systems 2, 1976, section 4.4). Ends fall on whole nanoseconds, so
that what follows from them never meets the steps of engines (`world/timer.py`).
"""
from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from simpy import Environment

from sim.world.clock import LAST
from sim.world.timer import GRID

FULL = 1.0 + 1e-12


def nanosecond(at: float, now: float) -> int:
    """The first whole nanosecond from `at` (s) on, rounding apart, that is not before `now`."""
    whole = math.ceil(at / GRID - 0.25)
    return whole if whole * GRID >= now else whole + 1


def ring(env: Environment, at: float, call: Callable[[Any], None], what: Any) -> int:
    """Call `call(what)` on the first whole nanosecond from `at` (s) on, after all else of it; returns that nanosecond."""
    whole = nanosecond(at, env._now)
    # An absolute time: now + (time - now) would bring rounding back.
    heappush(env._queue, (whole * GRID, LAST, next(env._eid), (call, what)))  # type: ignore[arg-type]
    return whole


class Sharing:
    """`capacity` in weight, `most` the rate of a job that has enough. `done(job)` is called when a job's work is done."""

    __slots__ = (
        "_armed", "_count", "_ends", "_jobs", "_rate", "_since", "_spent", "_virtual", "_weight", "capacity", "done", "env", "most",
    )  # fmt: skip

    def __init__(self, env: Environment, capacity: float, most: float, done: Callable[[Any], None]):
        self.env, self.capacity, self.most, self.done = env, capacity, most, done
        self._ends: list[tuple[float, int, Any]] = []
        self._jobs: dict[int, tuple[float, float]] = {}
        self._virtual = self._since = self._weight = self._spent = 0.0
        self._rate = most
        self._count = 0
        self._armed: int | None = None

    @property
    def spent(self) -> float:
        """What was used of the capacity until now: weight times work done."""
        self._turn()
        return self._spent

    def add(self, job: Any, work: float, weight: float) -> int:
        """Begin a job; returns its ticket."""
        self._turn()
        self._count += 1
        ticket = self._count
        self._jobs[ticket] = self._virtual, weight
        heappush(self._ends, (self._virtual + work, ticket, job))
        self._weight += weight
        self._price()
        return ticket

    def remove(self, ticket: int) -> float:
        """Take out a job that has not ended; returns how much of its work was done."""
        self._turn()
        begun, weight = self._jobs.pop(ticket)
        done = self._virtual - begun
        self._leave(weight)
        self._price()
        return done

    def _leave(self, weight: float) -> None:
        self._weight -= weight
        if not self._jobs:
            # Nothing is under way: rounding and stale ends are forgotten.
            self._weight = self._virtual = 0.0
            self._ends.clear()

    def _turn(self) -> None:
        now = self.env._now
        if self._jobs:
            done = (now - self._since) * self._rate
            self._virtual += done
            self._spent += done * self._weight
        self._since = now

    def _price(self) -> None:
        """The rate from now on, and an alarm at the next end unless an earlier one is set."""
        weight, ends, jobs = self._weight, self._ends, self._jobs
        self._rate = self.most if weight * self.most <= self.capacity * FULL or not weight else self.capacity / weight
        while ends and ends[0][1] not in jobs:
            heappop(ends)
        if not ends:
            self._armed = None
            return
        end = self._since + (ends[0][0] - self._virtual) / self._rate
        if self._armed is None or nanosecond(end, self.env._now) < self._armed:
            self._armed = ring(self.env, end, self._ring, self)

    def _ring(self, _: Any) -> None:
        now = self.env._now
        here = round(now / GRID)
        if self._armed is None or here < self._armed:
            return
        self._armed = None
        self._turn()
        ends, jobs, ended = self._ends, self._jobs, []
        while ends:
            end, ticket, job = ends[0]
            if ticket in jobs:
                if self._since + (end - self._virtual) / self._rate > now + 0.5 * GRID:
                    break
                weight = jobs.pop(ticket)[1]
                ended.append(job)
                heappop(ends)
                self._leave(weight)
            else:
                heappop(ends)
        self._price()
        for job in ended:
            self.done(job)
