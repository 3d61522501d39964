"""The tests of a software repository, run in a second, clean sandbox with the image of the task: it boots, the patch is applied, and the
tests run until they end or are cut.

So a trajectory has two sandboxes around its hand-over, and its image is pulled again where the node has not kept it. Tests are cut at
600 s by default, as in slime (`SWE_EVAL_TIMEOUT_SEC`).
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from sim.core.rng import Luck
from sim.spec.law import Law, Times
from workloads.rewards.base import Case, Chance, Desk, Kind, Limit, Retries, Verdict
from workloads.rewards.code import Cores
from workloads.rewards.sandboxed import Plan, Step, Trial


class Tests(Kind):
    """In a sandbox of `pool`, on `cores` (default: those it has), after `patch` the tests take `time`, or hang with the chance
    `p_timeout_wrong` where the answer is wrong; at `timeout` it is wrong. `failure`: the chance that a try comes to nothing, which shows
    at the time-out; it is made again `retries` times. `image`: one for each prompt, or one for all.
    """

    kind: Literal["tests"] = "tests"
    pool: str
    patch: Times = Law(value=0.0)
    time: Times
    timeout: Limit = 600.0
    p_timeout_wrong: Chance = 0.0
    cores: Cores | None = None
    failure: Chance = 0.0
    retries: Retries = 0
    image: Literal["own", "shared"] = "own"

    def opened(self, desk: Desk) -> Suites:
        return Suites(self, desk)


class Suites:
    """The grader of a run that runs tests of repositories."""

    def __init__(self, spec: Tests, desk: Desk):
        self.spec, self.desk = spec, desk
        self.pool, self.cores, self.retries = spec.pool, spec.cores, spec.retries

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Trial:
        return Trial(self, case, done)

    def image(self, case: Case) -> int:
        return case.prompt if self.spec.image == "own" else 0

    def wrong(self, case: Case) -> bool:
        return False

    def plan(self, case: Case, luck: Luck) -> Plan:
        spec = self.spec
        fails, hangs = luck.next() < spec.failure, luck.next() < spec.p_timeout_wrong and not case.right
        patch, seconds = spec.patch.at(luck.next()), spec.time.at(luck.next())
        if fails:
            return Plan((Step(math.inf, spec.timeout),), fails=True)
        steps = [Step(patch, None)] if patch else []
        return Plan((*steps, Step(math.inf if hangs else seconds, spec.timeout)))

    def passed(self, case: Case, longest: float) -> None:
        """Nothing is learned from it."""
