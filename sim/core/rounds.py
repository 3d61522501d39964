"""What a round of rollouts is told in: how many groups are wanted, launched and left over, and what a replica holds meanwhile."""
from __future__ import annotations

from typing import NamedTuple


class Batch(NamedTuple):
    """What the trainer wants of a round: so many groups of so many samples."""

    groups: int
    samples: int


class Left(NamedTuple):
    """Groups of earlier rounds: stopped half-way with what they have, and given up, to begin again."""

    partial: int
    losers: int


class Launch(NamedTuple):
    """Groups to run: so many of the partial, first, of the losers, and of new prompts; the latter two in `samples` trajectories each. The
    round is over when `needed` are complete, each with the samples of the batch.
    """

    resumed: int
    again: int
    fresh: int
    samples: int
    needed: int

    @property
    def groups(self) -> int:
        return self.resumed + self.again + self.fresh


class Replica(NamedTuple):
    """A rollout replica as seen when trajectories may move: so many run, so many wait, and `used` of the `tokens` of its cache are held."""

    number: int
    running: int
    waiting: int
    used: int
    tokens: int
