"""The graders of a run. One run may have several, each with its own infrastructure: each prompt belongs to one of them, by its luck."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from workloads.rewards.base import Case, Desk, Grading, Verdict
from workloads.rewards.code import Code
from workloads.rewards.judge import Judge
from workloads.rewards.rule import Rule
from workloads.rewards.tests import Tests

if TYPE_CHECKING:
    from workloads.base import Client

Reward = Annotated[Rule | Code | Tests | Judge, Field(discriminator="kind")]
# Which part of a prompt's luck says whose it is.
WHOSE = 0


class Graders:
    """Those of `options`, for a client's run; `key` is the run's luck for them."""

    def __init__(self, client: Client, options: Sequence[Reward], key: int):
        desks = [Desk(client, name(option), key) for option in options]
        self._graders = [option.opened(desk) for option, desk in zip(options, desks, strict=True)]
        self._first = desks[0]
        total = sum(option.share for option in options)
        self._ends = [end / total for end in accumulate(option.share for option in options)][:-1]

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Grading:
        """Grade a case from now on. `done` is called with the verdict when there is one, never before this has returned, and never where
        the case was cancelled; its row is written then.
        """
        return self._graders[self.whose(case.prompt)].grade(case, done)

    def whose(self, prompt: int) -> int:
        """The number of the grader that a prompt belongs to."""
        return bisect_right(self._ends, self._first.prompt(prompt, WHOSE)) if self._ends else 0


def name(option: Reward) -> str:
    """What a grader is called."""
    return option.name or option.kind


def models(options: Sequence[Reward]) -> dict[str, str]:
    """Names of pools or models that judges are, by the key that says so, relative to the workload."""
    return {f"rewards.{number}.model": option.model for number, option in enumerate(options) if isinstance(option, Judge) and option.model}


def sandboxes(options: Sequence[Reward]) -> dict[str, str]:
    """Pools of sandboxes that graders ask, by the key that says so, relative to the workload."""
    return {f"rewards.{number}.pool": option.pool for number, option in enumerate(options) if isinstance(option, Code | Tests)}


def problems(options: Sequence[Reward]) -> Iterator[tuple[str, str]]:
    """What is wrong between them: (key relative to the workload, message)."""
    if not options:
        yield "rewards", "found an empty list; at least one grader is wanted, such as [{kind: rule}]"
    names = [name(option) for option in options]
    for number, one in enumerate(names):
        if one in names[:number]:
            yield f"rewards.{number}.name", f"another grader is called '{one}' already; give this one a name of its own"
