"""Groups on their way: begun, generated, graded, accepted or not. Who decides when something begins or stops are rounds and gates.

Nothing here waits: requests and graders call back, and what has come of a group is told to `heard`, which is asked to look again. So a
trajectory costs what its events cost, and there is no process per trajectory.

Segments are kept up by `mark`, called when the weights change: what was generated up to then belongs to the version before.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sim.core.ledger import Ledger
from sim.core.rng import Luck, mix
from sim.core.rollout import (
    ACCEPTED,
    DONE,
    PARTIAL,
    PENDING,
    REJECTED,
    RUNNING,
    SCORED,
    STALE_DROPPED,
    Group,
    Prompt,
    Trajectory,
)  # fmt: skip
from workloads.rewards.base import Case, Verdict
from workloads.rollouts.prompts import Prompts
from workloads.rollouts.record import Record

if TYPE_CHECKING:
    from workloads.rl import Rl
    from workloads.rollouts.runner import Runner

GRADE = 1 << 20


class Generation:
    """Of one run. `ledger` counts the groups; `complete` are groups that are done since a round began, `scored` those whose rewards are
    there, in that order; `pending` are groups that begin again when there is room. `limit` is the longest answer, `masks` says which of
    those that ended are not trained on.

    `turn` is asked after each call of the model whether the group goes on; `heard` is called when a group is done, scored or gone.
    """

    def __init__(self, env: Any, run: Rl, ledger: Ledger, prompts: Prompts, record: Record):
        self._env = env
        self.run, self.ledger, self.prompts, self.record = run, ledger, prompts, record
        self.now: Callable[[], float] = record.now
        self.runner: Runner
        self.graders: Any = None
        self.heard: Callable[[], None] = _nobody
        self._changed: Any = None
        self.turn: Callable[[Group], bool] = _on
        self.masks: Callable[[Trajectory], bool] = _never
        self.limit = math.inf
        self.holds_grades = run.reward_at == "batch"
        self.complete: list[Group] = []
        self.scored: deque[Group] = deque()
        self.pending: deque[Group] = deque()
        self._missing: dict[int, int] = {}
        self._grading: dict[int, list[Any]] = {}
        self._visits: dict[int, int] = {}
        self.over = False
        self._count = 0

    # -- beginning and stopping ------------------------------------------------------------
    def begin(self, samples: int, prompt: Prompt | None = None) -> Group:
        """A new group of so many samples, of the prompt given or the next one."""
        group = Group(self._count, self.prompts.next() if prompt is None else prompt, self.run.samples, samples)
        self._count += 1
        self.record.began(group)
        self.start(group)
        return group

    def start(self, group: Group) -> None:
        """A group that waits begins, and one that was stopped goes on."""
        anew = group.state == PENDING
        self.ledger.start(group)
        if anew:
            self._drawn(group)
        for one in group.trajectories:
            # One that goes on may be at its end at once, and complete the group.
            if one.ended or group.state != RUNNING:
                continue
            if anew:
                self._begin(one, group.prompt)
            else:
                self.runner.resume(one)

    def _drawn(self, group: Group) -> None:
        """Say how long the answers will be."""
        self._visits[group.number], answers = self.prompts.answers(group.prompt, len(group.trajectories), self.ledger.version)
        for one, answer in zip(group.trajectories, answers, strict=True):
            one.target, one.right, one.cut = answer.tokens, answer.right, answer.cut
            if one.target > self.limit:
                one.target, one.right, one.cut = int(self.limit), False, True

    def _begin(self, one: Trajectory, prompt: Prompt) -> None:
        one.begun = self.now()
        self.runner.begin(one, prompt)

    def lose(self, group: Group, fate: str, reason: str = "") -> None:
        """A group does not go on as it is: it is dropped, begins again from nothing, or is stopped and may go on later."""
        if group.state in (RUNNING, PARTIAL):
            self._halt(group, self.runner.park if fate == "resume" else self.runner.stop)
        if fate != "resume":
            self._ungrade(group)
        if fate == "resume" and group.state == RUNNING:
            self.ledger.move(group, PARTIAL)
        elif fate == "restart" and group.state in (RUNNING, PARTIAL):
            self.ledger.move(group, PENDING, "restarted")
            self.pending.append(group)
        else:
            self.ledger.move(group, STALE_DROPPED if reason == "stale" else REJECTED, reason)
            self.record.gone(group)
            self.settle(group)

    def _halt(self, group: Group, how: Callable[[Trajectory], None]) -> None:
        version = self.ledger.version
        for one in group.trajectories:
            if not one.ended:
                one.add(version, self.runner.progress(one) - one.tokens)
                how(one)

    def _ungrade(self, group: Group) -> None:
        for grading in self._grading.pop(group.number, ()):
            grading.cancel()
        self._missing.pop(group.number, None)

    def mark(self) -> tuple[int, int]:
        """The weights are about to change: what has been generated by now is of the version of now. Returns how many samples run, and the
        tokens of their prompts and answers.
        """
        version, count, held = self.ledger.version, 0, 0
        for group in self.ledger.live(RUNNING):
            for one in group.trajectories:
                if not one.ended:
                    one.add(version, self.runner.progress(one) - one.tokens)
                    count += 1
                    held += group.prompt.tokens + one.tokens
        return count, held

    # -- what has come ------------------------------------------------------------
    def ended(self, one: Trajectory) -> None:
        """A trajectory has come to its end."""
        group = one.group
        one.done = self.now()
        one.add(self.ledger.version, self.runner.progress(one) - one.tokens)
        one.masked = one.masked or self.masks(one)
        complete = group.end(one)
        if not self.turn(group):
            self.lose(group, "drop", "stale")
            self._tell()
            return
        if not self.holds_grades:
            self._grade(one)
        if complete:
            self._completed(group)

    def turned(self, one: Trajectory) -> bool:
        """A trajectory has ended a turn; whether it goes on. Where not, its group is dropped."""
        if self.turn(one.group):
            return True
        self.lose(one.group, "drop", "stale")
        self._tell()
        return False

    def late(self, one: Trajectory, tokens: int) -> None:
        """Tokens came out of a step in flight when a trajectory had been stopped."""
        if not self.over and one.group.state in (PARTIAL, RUNNING) and one in one.group.trajectories:
            one.add(self.ledger.version, tokens)
        else:
            self.record.wasted(one.group, "in_flight", tokens)

    def _completed(self, group: Group) -> None:
        for one in group.trajectories:
            if not one.ended:
                one.add(self.ledger.version, self.runner.progress(one) - one.tokens)
                self.runner.stop(one)
        self.ledger.move(group, DONE)
        self.record.done(group)
        self.complete.append(group)
        if not self.holds_grades and not self._missing.get(group.number):
            self._rewarded(group)
        self._tell()

    # -- rewards ------------------------------------------------------------
    def grade(self, groups: Iterable[Group]) -> None:
        """Have all samples of groups that are done graded, where that was put off."""
        for group in groups:
            for one in group.kept:
                self._grade(one)
            if not self._missing.get(group.number):
                self._rewarded(group)

    def _grade(self, one: Trajectory) -> None:
        group = one.group
        if one.masked:
            return
        number = group.number
        self._missing[number] = self._missing.get(number, 0) + 1
        luck = Luck(mix(self.prompts.key, group.prompt.id)).part(GRADE + self._visits[number] * 4096 + one.number)
        asked = group.prompt.tokens
        case = Case(number, one.number, group.prompt.id, luck, one.right, one.cut, one.tokens, asked, self.prompts.content(group.prompt), 0)
        grading = self.graders.grade(case, lambda verdict: self._graded(one, verdict))
        if grading is not None and number in self._missing:
            self._grading.setdefault(number, []).append(grading)

    def _graded(self, one: Trajectory, verdict: Verdict) -> None:
        one.reward, one.masked, one.scored = verdict.reward, verdict.masked, self.now()
        number = one.group.number
        self._missing[number] -= 1
        if not self._missing[number]:
            del self._missing[number]
            if one.group.state == DONE:
                self._rewarded(one.group)

    def _rewarded(self, group: Group) -> None:
        self._grading.pop(group.number, None)
        self.ledger.move(group, SCORED)
        self.record.scored(group)
        self.scored.append(group)
        self._tell()

    # -- what is done with it ------------------------------------------------------------
    def accept(self, group: Group) -> None:
        """It may be trained on."""
        self.ledger.move(group, ACCEPTED)

    def settle(self, group: Group) -> None:
        """Nothing more comes of it, and nothing of it is kept: groups and trajectories point at each other, and would stay for long."""
        self._visits.pop(group.number, None)
        for one in group.trajectories:
            if one.ended:
                one.work = None
        group.trajectories, group.kept = [], []

    def change(self) -> Any:
        """An event that succeeds when next a group is done, scored or gone."""
        if self._changed is None:
            self._changed = self._env.event()
        return self._changed

    def _tell(self) -> None:
        self.heard()
        self.wake()

    def wake(self) -> None:
        """Have who waits for a change look again."""
        if self._changed is not None:
            changed, self._changed = self._changed, None
            changed.succeed()

    def end(self) -> None:
        """The run is over: what still goes is called off, and all that is left has its row."""
        self.over = True
        for group in self._unfinished():
            if group.state in (RUNNING, PARTIAL):
                self._halt(group, self.runner.stop)
            self._ungrade(group)
            self.record.left(group)

    def close(self) -> None:
        """The clock has stopped. What had not ended has its row, with what had been generated by then."""
        self.runner.close()
        if self.over:
            return
        self.mark()
        for group in self._unfinished():
            self.record.left(group)

    def _unfinished(self) -> list[Group]:
        """Groups that began and are not gone, also those that are to begin again."""
        return [*self.ledger.live(), *(group for group in self.pending if group.state == PENDING)]


def _nobody() -> None:
    return


def _on(_: Group) -> bool:
    return True


def _never(_: Trajectory) -> bool:
    return False
