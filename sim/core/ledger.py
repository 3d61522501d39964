"""The groups of a training run by state, counted as they move: what gates of staleness decide on.

Everything counts groups. A group that was started is `active` until it is accepted, rejected or dropped (running, or its rewards under
way), `partial` while it is stopped half-way, and `queued` once accepted until the trainer takes it. `accepted` counts all that ever were.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sim.core.rollout import ACCEPTED, DONE, FINAL, PARTIAL, PENDING, RUNNING, SCORED, TRAINED, Group


class Course(NamedTuple):
    """The trainer takes `take` groups of `samples` at a time and publishes after `trigger` such takes; `accepts` is the share of groups
    that pass the filter, `cap` how many the buffer holds before the oldest is lost (0: any number), `servers` the rollout replicas.
    """

    take: int
    samples: int
    trigger: int = 1
    accepts: float = 1.0
    cap: int = 0
    servers: int = 1


class Ledger:
    """`version` is that of the policy published last, of which the trainer makes the next out of `batch` groups of `samples`; `servers` is
    the number of rollout replicas. `kv` is the share of its cache that the fullest of them uses, `preemptions` how many there were: both
    are for whoever runs the engines to keep.
    """

    __slots__ = (
        "_counts", "_live", "accepted", "batch", "finished", "kv", "preemptions", "samples", "servers", "started", "taken", "version",
    )  # fmt: skip

    def __init__(self, batch: int, samples: int, servers: int = 1):
        self.batch, self.samples, self.servers = batch, samples, servers
        self.version = self.started = self.finished = self.accepted = self.taken = self.preemptions = 0
        self.kv = 0.0
        self._live: dict[int, Group] = {}
        self._counts = dict.fromkeys((RUNNING, PARTIAL, DONE, SCORED, ACCEPTED), 0)

    @property
    def active(self) -> int:
        """Started, and neither accepted nor gone."""
        return self._counts[RUNNING] + self._counts[DONE] + self._counts[SCORED]

    @property
    def running(self) -> int:
        """Still generated."""
        return self._counts[RUNNING]

    @property
    def done(self) -> int:
        """Complete, their rewards under way."""
        return self._counts[DONE]

    @property
    def partial(self) -> int:
        return self._counts[PARTIAL]

    @property
    def queued(self) -> int:
        return self._counts[ACCEPTED]

    def live(self, *states: int) -> Iterator[Group]:
        """The groups that were started and are not gone, in that order; of these states, where any are named."""
        return (group for group in list(self._live.values()) if not states or group.state in states)

    def start(self, group: Group) -> None:
        """It begins, or goes on, under the version of now."""
        before = group.state
        group.start(self.version)
        self._moved(group, before)
        if before == PENDING:
            self.started += 1

    def move(self, group: Group, state: int, reason: str = "") -> None:
        """Any other move. Raises ValueError where there is none, nothing having changed."""
        before = group.state
        group.move(state, reason)
        self._moved(group, before)
        if state in (DONE, PENDING) or (state in FINAL and before in (RUNNING, PARTIAL)):
            self.finished += 1
        if state == ACCEPTED:
            group.put = self.version
            self.accepted += 1
        elif state == TRAINED:
            self.taken += 1

    def take(self, groups: Iterable[Group]) -> None:
        """The trainer has them."""
        for group in groups:
            self.move(group, TRAINED)

    def recover(self, version: int) -> None:
        """The run goes on from a checkpoint of this version, as if the versions before had each trained on a batch: else a gate that counts
        what was accepted would start all of it at once (AReaL).
        """
        self.version = version
        self.accepted = self.taken = version * self.batch

    def _moved(self, group: Group, before: int) -> None:
        if before in self._counts:
            self._counts[before] -= 1
        if group.state in self._counts:
            self._counts[group.state] += 1
            self._live[group.number] = group
        else:
            self._live.pop(group.number, None)
