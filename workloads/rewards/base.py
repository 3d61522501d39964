"""What grading is: a case comes, waits for whoever grades it, and gets a verdict; each has its row in the table `rl_grades`.

A grade is data that is moved on by callbacks, not a process: a run grades hundreds of thousands of them. Whatever a grader draws comes
from the luck of the case, so that a case takes as long and is judged alike whoever is graded beside it and in which order. A right answer
is worth 1 and a wrong one 0; where the grader itself has failed there is no verdict, and the sample is masked: a 0 would teach the model
that its answer was wrong. `queued` is time without a server: in line, for a sandbox to come up, or for an instance to start.

Of each kind there is a `Spec`, what YAML says, whose `opened` is the grader of a run. Seconds, tokens.
"""
from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

from pydantic import Field

from sim.core.content import Content
from sim.core.rng import Luck, mix
from sim.core.units import Seconds
from sim.spec.frozen import Spec

if TYPE_CHECKING:
    from workloads.base import Client

OK, TIMEOUT, FAILED, CANCELLED, UNFINISHED = range(5)
Most = Annotated[int, Field(ge=1, le=10**6)]
Chance = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[Seconds, Field(gt=0)]
Retries = Annotated[int, Field(ge=0, le=100)]


class Case(NamedTuple):
    """An answer to be graded: sample `number` of `group`, of `tokens`, to `prompt`, which `asked` so many tokens. All samples of a prompt
    have the same grader, image and tests.

    `luck` is the case's own; `right` is what a grader without fault says, and `cut` an answer that ran into its limit. `content` and
    `reply` name its tokens as those of a request do, for a judge's cache; None: they are not in any.
    """

    group: int
    number: int
    prompt: int
    luck: Luck
    right: bool
    cut: bool
    tokens: int
    asked: int
    content: Content | None = None
    reply: int = 0


class Verdict(NamedTuple):
    """What came of it; `masked`: there is none, its reward is NaN, and the sample is not to be trained on."""

    reward: float
    masked: bool


class Grading(Protocol):
    """A case that is being graded."""

    def cancel(self) -> None:
        """It is not wanted any more: what it holds is given back, and nobody is told. Nothing happens when it is over."""


class Grader(Protocol):
    """One kind of grader in a run."""

    def grade(self, case: Case, done: Callable[[Verdict], None]) -> Grading:
        """Grade a case from now on; `done` is called when it is over, and not before this has returned."""


class Kind(Spec, abc.ABC):
    """What every kind of grader may say: its `name`, by default its kind, and its `share` of the prompts; shares need not sum to 1."""

    name: str = ""
    share: Annotated[float, Field(gt=0, le=1e9)] = 1.0

    @abc.abstractmethod
    def opened(self, desk: Desk) -> Grader:
        """The grader of a run."""


class Desk:
    """What one grader of a run has in common: the world it is in, its rows, and the grades that are under way. `key` is the run's luck."""

    def __init__(self, client: Client, name: str, key: int):
        self.client, self.env = client, client.env
        self._key, self._note = key, client.note
        self._codes = client.label("rl_grades", "workload", client.name), client.label("rl_grades", "grader", name)
        self._open: dict[Grade, None] = {}
        client.closing(self._close)

    def prompt(self, number: int, part: int) -> float:
        """A number in [0, 1) that belongs to a prompt."""
        return Luck(mix(self._key, number)).part(part).next()

    def began(self, grade: Grade) -> None:
        """A case has come."""
        self._open[grade] = None

    def ended(self, grade: Grade, outcome: int, reward: float) -> None:
        """A case is over."""
        del self._open[grade]
        self._write(grade, outcome, self.env.now, reward)

    def _write(self, grade: Grade, outcome: int, end: float, reward: float) -> None:
        case = grade.case
        self._note("rl_grades", (*self._codes, case.group, case.number, grade.start, grade.queued, end, outcome, reward))

    def _close(self) -> None:
        for grade in list(self._open):
            grade.stand()
            self._write(grade, UNFINISHED, math.nan, math.nan)


class Grade(abc.ABC):
    """A case at a desk. `since` is when it began to wait, None while it does not, and `queued` how long it has; `over` once there is a
    verdict, or none is wanted.
    """

    __slots__ = ("_desk", "_done", "case", "over", "queued", "since", "start")

    def __init__(self, desk: Desk, case: Case, done: Callable[[Verdict], None]):
        self._desk, self.case, self._done = desk, case, done
        self.start: float = desk.env.now
        self.since: float | None = self.start
        self.queued = 0.0
        self.over = False
        desk.began(self)

    @abc.abstractmethod
    def leave(self) -> None:
        """Give back what it holds, or leave the line."""

    def wait(self) -> None:
        """It waits for a server from now on."""
        self.since = self._desk.env.now

    def stand(self) -> None:
        """It does not wait any more."""
        if self.since is not None:
            self.queued += self._desk.env.now - self.since
            self.since = None

    def end(self, outcome: int, right: bool = False) -> None:
        """It is over: `FAILED` without a verdict, else right or wrong."""
        reward = math.nan if outcome == FAILED else float(right)
        self._over(outcome, reward)
        self._done(Verdict(reward, outcome == FAILED))

    def cancel(self) -> None:
        """It is not wanted any more."""
        if not self.over:
            self._over(CANCELLED, math.nan)

    def _over(self, outcome: int, reward: float) -> None:
        self.stand()
        self.over = True
        self.leave()
        self._desk.ended(self, outcome, reward)
