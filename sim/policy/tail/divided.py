"""Divided rollout (Seer, OSDI'26): answers run in chunks, and between two of them may move to the replica with the most room.

Their caches are in a pool that all replicas read, so that a move costs a transfer and no computing. The first trajectory of each group is a
probe: it goes before all others, the shortest so far first, and the longest that has ended in a group tells how long its siblings will be.
Then the longest goes first, and a group of which none has ended counts as longest of all. The length of a chunk is our figure.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from sim.core.rollout import Trajectory
from sim.core.rounds import Replica
from sim.policy.tail._within import Within


@dataclasses.dataclass
class Divided(Within):
    """`chunk` tokens at a time. Without `probe` all go in the order they came, without `migrate` they stay where they began."""

    chunk: Annotated[int, Field(ge=1, le=10**9)] = 2048
    probe: bool = True
    migrate: bool = True

    @property
    def sends_home(self) -> bool:
        return True

    def piece(self, left: int) -> int:
        return min(self.chunk, left)

    def rank(self, trajectory: Trajectory) -> tuple[float, ...]:
        if not self.probe:
            return ()
        ended = [one.tokens for one in trajectory.group.trajectories if one.ended]
        if not ended and trajectory.number == 0:
            return 0.0, float(trajectory.tokens)
        return 1.0, -float(max(ended)) if ended else -math.inf

    def home(self, trajectory: Trajectory, own: int, replicas: Sequence[Replica]) -> int:
        """Where nobody waits, if there is such a replica, and of these the least of the cache is used; where it is, if that is no worse."""
        if own >= 0 and not self.migrate:
            return own
        return min(replicas, key=lambda one: (one.waiting > 0, one.used / one.tokens, one.number != own, one.number)).number
