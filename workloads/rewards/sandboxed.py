"""A case that is graded in a sandbox of its own: the sandbox is asked for, commands run in it one after the other, and it is given back.

What comes of it is time-out-dominated: a program that hangs has its core until it is cut, and so costs more than all that end. Time-outs
count on the clock of the wall, as in life, so that where the cores of a node are asked for by more than they can serve, right programs
run into them too. A command that is killed while its sandbox lives (by the limit of memory) is a verdict: wrong. No sandbox, one that is
lost, and an environment that fails by itself are none: the case is tried again in another sandbox, and in the end has no verdict. An
environment that fails shows it by its time-out, so that is what it costs.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sim.core.rng import Luck
from workloads.programs.home import isrefusal
from workloads.rewards.base import FAILED, OK, TIMEOUT, Case, Desk, Grade, Verdict

# Work that no core gets done before the time-out of its command.
ENDLESS = 1.01
# Commands end on whole nanoseconds.
ROUNDING = 2e-9


class Step(NamedTuple):
    """A command: seconds of work (infinite: it hangs), and its time-out."""

    work: float
    timeout: float | None


class Plan(NamedTuple):
    """The commands of a try. Each part of the first of them has a limit, `part_timeout`, and the `longest` takes so much work. `fails`: the
    environment does, so that the commands come to nothing.
    """

    steps: tuple[Step, ...]
    longest: float = 0.0
    part_timeout: float = math.inf
    fails: bool = False


class Trials(Protocol):
    """Who grades in sandboxes of `pool`, on `cores` each (None: those a sandbox has), and tries again `retries` times."""

    pool: str
    cores: float | None
    retries: int
    desk: Desk

    def wrong(self, case: Case) -> bool:
        """Whether there is nothing to run: the case is wrong as it stands."""

    def plan(self, case: Case, luck: Luck) -> Plan:
        """What a try does that begins now, by a luck of its own."""

    def image(self, case: Case) -> int:
        """The number of the image it needs."""

    def passed(self, case: Case, longest: float) -> None:
        """A right answer has passed, the longest part of which took so many seconds."""


class Trial(Grade):
    """A case that is graded in sandboxes."""

    __slots__ = ("_ask", "_lease", "_left", "_plan", "_slow", "_trials", "_tries")

    def __init__(self, trials: Trials, case: Case, done: Callable[[Verdict], None]):
        super().__init__(trials.desk, case, done)
        self._trials = trials
        self._ask: Any = None
        self._lease: Any = None
        self._left: list[Step] = []
        self._tries, self._slow = 0, 1.0
        self._again()

    def leave(self) -> None:
        if self._ask is not None:
            self._ask.withdraw()
            self._ask = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _again(self) -> None:
        """The next try."""
        trials, case = self._trials, self.case
        self._tries += 1
        if trials.wrong(case):
            self._desk.env.timeout(0.0).callbacks.append(self._wrong)
            return
        self._ask = self._desk.client.sandbox(trials.pool, trials.image(case))
        self._ask.callbacks.append(self._came)

    def _wrong(self, _: Any) -> None:
        if not self.over:
            self.end(OK)

    def _came(self, event: Any) -> None:
        if self.over:
            return
        self._ask = None
        if isrefusal(event.value):
            self._failed()
            return
        self._lease = event.value
        self.stand()
        # Not before it begins: by now others may have shown how long its tests take.
        self._plan = self._trials.plan(self.case, self.case.luck.part(self._tries))
        self._left = list(self._plan.steps)
        self._next()

    def _next(self) -> None:
        """Run the next command."""
        work, timeout = self._left.pop(0)
        if work < math.inf or timeout is None:
            command = self._lease.run(work, self._trials.cores, timeout)
        elif self._plan.fails:
            command = self._lease.hang(timeout)
        else:
            command = self._lease.run(ENDLESS * timeout, self._trials.cores, timeout)
        command.callbacks.append(lambda event: self._ran(event.value, work))

    def _ran(self, ran: Any, work: float) -> None:
        if self.over:
            return
        now, plan = self._desk.env.now, self._plan
        self.queued += ran.queued
        if len(self._left) == len(plan.steps) - 1 and work and ran.outcome == "ok":
            # How much slower than alone its parts were: what a node with too few cores does to all alike.
            self._slow = max((now - ran.started - ROUNDING) / work, 1.0)
        if plan.fails or not self._lease.open:
            self._failed()
        elif ran.outcome == "crash":
            self.end(OK)
        elif ran.outcome == "timeout" or plan.longest * self._slow > plan.part_timeout:
            self.end(TIMEOUT)
        elif self._left:
            self._next()
        else:
            if self.case.right:
                self._trials.passed(self.case, plan.longest * self._slow)
            self.end(OK, self.case.right)

    def _failed(self) -> None:
        """A try without a verdict."""
        self.leave()
        if self._tries <= self._trials.retries:
            self.wait()
            self._again()
        else:
            self.end(FAILED)
