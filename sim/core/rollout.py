"""What reinforcement learning trains on: groups of trajectories that answer one prompt, and by which versions of the policy.

A trajectory is a list of segments, (version, tokens): a new one begins when the weights change under it, whether its cache is computed
again or not. Sources measure staleness in three ways, and all are kept, for v the version that trains: since the group was submitted
(`lag_submit`, what gates bound), since its oldest token (`lag_oldest`), and the mean over its tokens (`lag_mean`, what the loss sees).
A segment is never older than the submission, so that lag_submit >= lag_oldest >= lag_mean >= 0.

A group moves through states, and a move that is not in `MOVES` is refused: what is trained, rejected or dropped is so for good. What was
generated in vain is counted in `waste`, tokens by reason.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

PENDING, RUNNING, PARTIAL, DONE, SCORED, ACCEPTED, REJECTED, STALE_DROPPED, TRAINED = range(9)
STATES = ("pending", "running", "partial", "done", "scored", "accepted", "rejected", "stale_dropped", "trained")
FINAL = (REJECTED, STALE_DROPPED, TRAINED)
MOVES = (
    (RUNNING, REJECTED, STALE_DROPPED),  # pending
    (PENDING, PARTIAL, DONE, REJECTED, STALE_DROPPED),  # running
    (PENDING, RUNNING, REJECTED, STALE_DROPPED),  # partial
    (SCORED, REJECTED, STALE_DROPPED),  # done
    (ACCEPTED, REJECTED, STALE_DROPPED),  # scored
    (TRAINED, REJECTED, STALE_DROPPED),  # accepted
    (), (), (),
)  # fmt: skip


class Prompt(NamedTuple):
    """A task of the data set. `epoch` counts from 0 how often it was met before, `p_solve` is the chance that an answer to it is right,
    `tokens` are those of the prompt, `image` numbers the environment it runs in, -1: none.
    """

    id: int
    epoch: int = 0
    p_solve: float = math.nan
    tokens: int = 1
    image: int = -1


class Lags(NamedTuple):
    """Versions between the policy that trains and that which was asked, the oldest that wrote, and the mean over all tokens."""

    submit: int
    oldest: int
    mean: float


class Trajectory:
    """One answer, of one turn or many. `target` is how many tokens it will have, `tokens` how many it has, written in `segments`.

    `length` are all its tokens, those of its prompt and of tools included; `turns` counts calls of the model; `begun`, `done` and `scored`
    are times, NaN until they are. `work` is whatever whoever runs it wants to keep with it.

    `ended`: it has come to its end. `cut`: that is the limit. `masked`: it is not counted nor trained on, such as one whose environment
    failed or that was too long. `reward` is NaN until it is scored.
    """

    __slots__ = (
        "begun", "cut", "done", "ended", "group", "length", "masked", "number", "reward", "right", "scored", "segments", "target", "tokens",
        "turns", "work",
    )  # fmt: skip

    def __init__(self, group: Group, number: int, target: int = 0):
        self.group, self.number, self.target = group, number, target
        self.segments: list[tuple[int, int]] = []
        self.tokens = self.length = self.turns = 0
        self.reward = self.begun = self.done = self.scored = math.nan
        self.work: Any = None
        self.cut = self.ended = self.masked = self.right = False

    def add(self, version: int, tokens: int) -> None:
        """So many tokens more, written by a version that is not older than the last. Raises ValueError when it is, or tokens < 0."""
        if tokens < 0 or version < (self.segments[-1][0] if self.segments else self.group.v_submit):
            raise ValueError(f"{tokens} tokens of version {version} after {self.segments[-1:] or self.group.v_submit}")
        if self.segments and self.segments[-1][0] == version:
            self.segments[-1] = (version, self.segments[-1][1] + tokens)
        elif tokens:
            self.segments.append((version, tokens))
        self.tokens += tokens

    def lags(self, version: int) -> Lags:
        """Its staleness where this version trains on it; without tokens all three are since submission."""
        submit = version - self.group.v_submit
        if not self.segments:
            return Lags(submit, submit, float(submit))
        written = sum(one * tokens for one, tokens in self.segments)
        return Lags(submit, version - self.segments[0][0], version - written / self.tokens)


class Group:
    """The trajectories of one prompt that are compared with each other. It is complete when `size` of those that were launched have ended.

    `v_submit` is the version in use when it was started, anew where it began again; `done_count` of its trajectories have ended, the first
    `size` of which are `kept`. `put` is the version in use when it was accepted, -1 before; `reason` says why it was rejected or dropped.
    """

    __slots__ = (
        "done_count", "kept", "launches", "number", "prompt", "put", "reason", "size", "state", "trajectories", "v_submit", "waste",
    )  # fmt: skip

    def __init__(self, number: int, prompt: Prompt, size: int, launched: int = 0):
        """`launched` >= size trajectories (0: size). Raises ValueError where the numbers make no group."""
        launched = launched or size
        if not 1 <= size <= launched:
            raise ValueError(f"a group of {size} of {launched} trajectories")
        self.number, self.prompt, self.size = number, prompt, size
        self.trajectories = [Trajectory(self, place) for place in range(launched)]
        self.kept: list[Trajectory] = []
        self.state, self.v_submit, self.put = PENDING, -1, -1
        self.done_count = self.launches = 0
        self.reason = ""
        self.waste: dict[str, int] = {}

    @property
    def tokens(self) -> int:
        """Generated and still worth something: of all before it is complete, of those kept afterwards."""
        return sum(one.tokens for one in (self.trajectories if self.state in (PENDING, RUNNING, PARTIAL) else self.kept))

    @property
    def complete(self) -> bool:
        return self.done_count >= self.size

    @property
    def oldest(self) -> int:
        """The oldest version that wrote a token of it, or that it was submitted to."""
        return min((one.segments[0][0] for one in (self.kept or self.trajectories) if one.segments), default=self.v_submit)

    @property
    def mean_reward(self) -> float:
        """Of those kept and not masked; NaN when there is none, or one has no reward yet."""
        rewards = [one.reward for one in self.kept if not one.masked]
        return math.fsum(rewards) / len(rewards) if rewards else math.nan

    def move(self, state: int, reason: str = "") -> None:
        """Go to a state; what a group held that is rejected, dropped or begins again is waste, for a `reason`.

        Raises ValueError where `MOVES` has no such move, or it is not complete and would be done.
        """
        if state not in MOVES[self.state]:
            raise ValueError(f"group {self.number} is {STATES[self.state]} and cannot become {STATES[state]}")
        if state == DONE and not self.complete:
            raise ValueError(f"group {self.number} has {self.done_count} of {self.size} trajectories")
        if state in (REJECTED, STALE_DROPPED):
            self.reason = reason or STATES[state]
            self._wasted(self.reason, self.tokens)
        elif state == PENDING:
            self._again(reason or "restarted")
        self.state = state
        if state == DONE:
            self._wasted("surplus", sum(one.tokens for one in self.trajectories) - self.tokens)

    def start(self, version: int) -> None:
        """Begin, begin again or go on, under a version."""
        anew = self.state == PENDING
        self.move(RUNNING)
        if anew:
            self.v_submit = version
            self.launches += 1

    def end(self, trajectory: Trajectory) -> bool:
        """One of its trajectories has come to its end; whether the group is complete now. Raises ValueError when it had ended, or the group
        does not run.
        """
        if trajectory.ended or self.state != RUNNING:
            raise ValueError(f"trajectory {trajectory.number} of group {self.number}, {STATES[self.state]}, ends")
        trajectory.ended = True
        self.done_count += 1
        if len(self.kept) < self.size:
            self.kept.append(trajectory)
        return self.complete

    def lags(self, version: int) -> list[Lags]:
        """Of each trajectory that is kept and not masked."""
        return [one.lags(version) for one in self.kept if not one.masked]

    def _again(self, reason: str) -> None:
        self._wasted(reason, self.tokens)
        self.trajectories = [Trajectory(self, one.number) for one in self.trajectories]
        self.kept = []
        self.done_count = 0

    def _wasted(self, reason: str, tokens: int) -> None:
        if tokens:
            self.waste[reason] = self.waste.get(reason, 0) + tokens


def wasted(groups: Iterable[Group]) -> dict[str, int]:
    """Tokens generated in vain, by reason, in order of reason."""
    total: dict[str, int] = {}
    for group in groups:
        for reason, tokens in group.waste.items():
            total[reason] = total.get(reason, 0) + tokens
    return dict(sorted(total.items()))
