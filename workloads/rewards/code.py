"""Programs that are run on tests, such as those of programming contests, in sandboxes.

One command runs all tests of a case, as the runners of LiveCodeBench and its kind do: a command for each would be charged `exec.overhead`
and a slot's wait every time, and cost the simulator a dozen events in place of one. A right program passes them all. A wrong one fails at
one of them, any with the same chance, and does so by hanging with the chance `p_timeout_wrong`: that runs as a command of its own until
it is cut. Runners stop there, or with `every` go on: then each test from there on fails the same way.

The time-out may adapt (RollPacker): a multiple of the longest test of a right answer to that prompt so far, within `min` and `timeout`. A
right answer that is slower is then called wrong. LiveCodeBench's runner cuts a test at 6 s, the default; the factor is a judgement.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.core.rng import Luck
from sim.spec.frozen import Spec
from sim.spec.law import Amounts, Law, Times
from workloads.rewards.base import Case, Chance, Desk, Kind, Limit, Retries, Verdict
from workloads.rewards.sandboxed import Plan, Step, Trial

# Which part of a prompt's luck says how many tests it has.
TESTS = 1
Cores = Annotated[float, Field(gt=0, le=1024)]


class Adaptive(Spec):
    """`factor` times the longest test of a right answer, and not below `min`."""

    factor: Annotated[float, Field(ge=1, le=1000)] = 1.5
    min: Limit = 0.1


class Code(Kind):
    """`tests` of each prompt, which take `time` each unless they hang until `timeout`, in a sandbox of `pool` on `cores`, by default those
    it has. `failure`: the chance that a try comes to nothing, which shows when all tests could have timed out; it is made again `retries`
    times.
    """

    kind: Literal["code"] = "code"
    pool: str
    tests: Amounts = Law(value=15)
    time: Times
    timeout: Limit = 6.0
    p_timeout_wrong: Chance
    every: bool = False
    adaptive: Adaptive | None = None
    cores: Cores | None = None
    failure: Chance = 0.0
    retries: Retries = 0

    @model_validator(mode="after")
    def _adapts(self) -> Code:
        if self.adaptive is not None and self.adaptive.min > self.timeout:
            raise ValueError(f"adaptive.min ({self.adaptive.min:g} s) is above timeout ({self.timeout:g} s), so that nothing adapts")
        return self

    def opened(self, desk: Desk) -> Programs:
        return Programs(self, desk)


class Programs:
    """The code grader of a run: `anchors` are the longest tests of right answers by prompt, s, where time-outs adapt."""

    def __init__(self, spec: Code, desk: Desk):
        self.spec, self.desk = spec, desk
        self.pool, self.cores, self.retries = spec.pool, spec.cores, spec.retries
        self.anchors: dict[int, float] = {}

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Trial:
        return Trial(self, case, done)

    def image(self, case: Case) -> int:
        # Programs of all prompts run in the same image.
        return 0

    def wrong(self, case: Case) -> bool:
        return case.cut  # There is no program in it.

    def plan(self, case: Case, luck: Luck) -> Plan:
        spec, limit = self.spec, self.limit(case.prompt)
        tests = max(spec.tests.whole(self.desk.prompt(case.prompt, TESTS)), 1)
        fails, wrong, hangs = luck.next() < spec.failure, luck.next(), luck.next() < spec.p_timeout_wrong
        if fails:
            return Plan((Step(math.inf, tests * limit),), fails=True)
        first = tests if case.right else int(wrong * tests)
        work = longest = hung = 0.0
        for number in range(tests):
            seconds = math.inf if hangs and number >= first else spec.time.at(luck.next())
            if seconds < limit:
                work += seconds
                longest = max(longest, seconds)
            else:
                hung += limit
            if not spec.every and (seconds >= limit or number == first):
                break
        steps = [Step(work, tests * limit)] if work else []
        steps += [Step(math.inf, hung)] if hung else []
        return Plan(tuple(steps or [Step(0.0, None)]), longest, limit)

    def limit(self, prompt: int) -> float:
        """The time-out of a test of this prompt by now."""
        spec = self.spec
        if spec.adaptive is None or prompt not in self.anchors:
            return spec.timeout
        return min(max(spec.adaptive.factor * self.anchors[prompt], spec.adaptive.min), spec.timeout)

    def passed(self, case: Case, longest: float) -> None:
        if self.spec.adaptive is not None:
            self.anchors[case.prompt] = max(self.anchors.get(case.prompt, 0.0), longest)
