"""Rules, such as comparing the result of a mathematical answer with the right one: milliseconds of a CPU, and now and then an expression
that hangs a solver such as sympy until it is cut, which is a verdict: wrong.

Defaults are judgements: 20 ms on average (1 to 50 ms are usual), and one of a hundred that hangs for 5 s.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sim.spec.law import Law, Times
from workloads.rewards.base import OK, TIMEOUT, Case, Chance, Desk, Grade, Kind, Limit, Most, Verdict
from workloads.rewards.slots import Slots


class Rule(Kind):
    """`workers`: CPUs that grade, one case each at a time; default: as many as there are cases. A case takes `time`, or hangs with the
    chance `p_timeout`; at `timeout` it is wrong.
    """

    kind: Literal["rule"] = "rule"
    workers: Most | None = None
    time: Times = Law(dist="exponential", mean=0.02)
    p_timeout: Chance = 0.01
    timeout: Limit = 5.0

    def opened(self, desk: Desk) -> Rules:
        return Rules(self, desk)


class Rules:
    """The rule grader of a run."""

    def __init__(self, spec: Rule, desk: Desk):
        self.spec, self.desk = spec, desk
        self.slots = Slots(spec.workers)

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Check:
        check = Check(self, case, done)
        self.slots.enter(check, case.luck)
        return check


class Check(Grade):
    """A case under a rule."""

    __slots__ = ("_outcome", "_rules", "served")

    def __init__(self, rules: Rules, case: Case, done: Callable[[Verdict], None]):
        super().__init__(rules.desk, case, done)
        self._rules, self.served = rules, False

    def begin(self) -> None:
        """A CPU has it."""
        self.stand()
        spec, luck = self._rules.spec, self.case.luck
        seconds = spec.timeout if luck.next() < spec.p_timeout else spec.time.at(luck.next())
        self._outcome = OK if seconds < spec.timeout else TIMEOUT
        self._desk.env.timeout(min(seconds, spec.timeout)).callbacks.append(self._rung)

    def leave(self) -> None:
        self._rules.slots.leave(self)

    def _rung(self, _: Any) -> None:
        if not self.over:
            self.end(self._outcome, self.case.right and self._outcome == OK)
