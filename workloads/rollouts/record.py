"""What a run of reinforcement learning writes down: a row when a step is over, a group gone, weights published."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sim.core.rollout import STATES, Group, Trajectory

if TYPE_CHECKING:
    from workloads.base import Client

NAN = math.nan
PARTS = ("wait", "reward", "data", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation")


class Record:
    """The tables of one run; `begun` counts groups that ever began."""

    def __init__(self, world: Client):
        self._world, self._env = world, world.env
        self._workload = world.label("rl_steps", "workload", world.name)
        for table in ("rl_groups", "rl_samples", "rl_waste", "rl_syncs", "rl_grades"):
            world.label(table, "workload", world.name)
        self._times: dict[int, list[float]] = {}
        self.begun = 0

    def now(self) -> float:
        return float(self._env.now)

    def code(self, table: str) -> int:
        """The run's own number in a table."""
        return self._world.label(table, "workload", self._world.name)

    # -- groups ------------------------------------------------------------
    def began(self, group: Group) -> None:
        self._times[group.number] = [self.now(), NAN, NAN]
        self.begun += 1

    def done(self, group: Group) -> None:
        self._times[group.number][1] = self.now()

    def scored(self, group: Group) -> None:
        self._times[group.number][2] = self.now()

    def gone(self, group: Group) -> None:
        """It was rejected or dropped."""
        self._group(group, self.now(), -1)

    def left(self, group: Group) -> None:
        """It is under way when the run ends."""
        self._group(group, NAN, -1)

    def trained(self, groups: Iterable[Group], version: int) -> None:
        """A version trains on them."""
        for group in groups:
            self._group(group, self.now(), version)

    def wasted(self, group: Group, reason: str, tokens: int) -> None:
        """Tokens came of a group that nobody wants any more."""
        world = self._world
        world.note("rl_waste", (self.code("rl_waste"), group.number, world.label("rl_waste", "reason", reason), tokens))

    def _group(self, group: Group, ended: float, version: int) -> None:
        world, prompt = self._world, group.prompt
        begun, done, scored = self._times.pop(group.number)
        for reason, tokens in group.waste.items():
            self.wasted(group, reason, tokens)
        world.note("rl_groups", (
            self.code("rl_groups"), group.number, prompt.id, prompt.epoch, world.label("rl_groups", "state", STATES[group.state]),
            world.label("rl_groups", "reason", group.reason), group.launches, len(group.trajectories), len(group.kept), begun, done, scored,
            ended, group.v_submit, group.put, version, group.tokens, sum(group.waste.values()), group.mean_reward,
        ))  # fmt: skip
        kept = {one.number for one in group.kept}
        for one in group.trajectories:
            self._sample(one, one.number in kept, version)

    def _sample(self, one: Trajectory, kept: bool, version: int) -> None:
        segments, lags = one.segments, (NAN, NAN, NAN)
        if kept and version >= 0 and not one.masked:
            lags = tuple(map(float, one.lags(version)))  # type: ignore[assignment]
        self._world.note("rl_samples", (
            self.code("rl_samples"), one.group.number, one.number, one.begun, one.done, one.scored, one.tokens, one.length, one.turns,
            len(segments), segments[0][0] if segments else -1, segments[-1][0] if segments else -1, int(kept), int(one.cut),
            int(one.masked), int(one.right), one.reward, *lags,
        ))  # fmt: skip

    # -- steps and publications ------------------------------------------------------------
    def step(self, step: Step, queued: int) -> None:
        """A version is out."""
        self._world.note("rl_steps", (
            self._workload, step.version, step.start, self.now(), *(step.seconds[part] for part in PARTS), step.generate, step.groups,
            step.samples, step.tokens, step.length, step.useful, self.begun - step.begun, queued,
        ))  # fmt: skip

    def sync(self, row: tuple[float, ...]) -> None:
        """Weights were published."""
        self._world.note("rl_syncs", (self.code("rl_syncs"), *row))


class Step:
    """What is known of a step so far: seconds by part, and what it trained on."""

    __slots__ = ("begun", "generate", "groups", "length", "samples", "seconds", "start", "tokens", "useful", "version")

    def __init__(self, version: int, start: float, begun: int):
        self.version, self.start, self.begun = version, start, begun
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.generate = NAN
        self.groups = self.samples = self.tokens = self.length = self.useful = 0

    def add(self, group: Group) -> None:
        """A group is trained on."""
        kept = [one for one in group.kept if not one.masked]
        tokens = sum(one.tokens for one in kept)
        self.groups += 1
        self.samples += len(kept)
        self.tokens += tokens
        self.length += sum(one.length for one in kept)
        if len({one.reward for one in kept}) > 1:
            self.useful += tokens
