"""How a round of rollouts deals with its longest answers: how much is launched, when it is enough, and what becomes of the rest.

A round ends with its slowest trajectory unless something is given up: prompts launched too many, answers cut, or a batch trained on by
more than one version. A tail policy decides that without a clock. In each round the loop asks `launch`; whenever a trajectory ended, it
asks `over` with the groups complete so far; and once it is over, it does to every group that is not complete what `fate` says, and drops
what a complete one has beyond its size. Groups that are resumed go before all others.

Where pieces of answers run is another matter: `piece`, `rank`, `home` and `moves` are for policies that spread tails (divided) or gather
them (consolidate), which hold another one for the rounds. `limit` and `masks` are for the one that cuts.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from sim.core.rollout import Trajectory
from sim.core.rounds import Batch, Launch, Left, Replica

Fate = Literal["resume", "restart", "drop"]


class Tail(Protocol):
    """What is not said below is as in a round without any policy: all that is launched is waited for, where it was launched."""

    def launch(self, batch: Batch, left: Left) -> Launch:
        """What a round begins with. Nothing changes."""
        return Launch(min(left.partial, batch.groups), 0, max(batch.groups - left.partial, 0), batch.samples, batch.groups)

    def over(self, launch: Launch, complete: int) -> bool:
        """Whether the round is over when so many groups are complete."""
        return complete >= launch.needed

    def fate(self) -> Fate:
        """Of the groups that are not complete when the round is over: kept and resumed first in the next, begun again from nothing later,
        or dropped.
        """
        return "drop"

    def limit(self, tokens: int) -> int:
        """The longest answer, where the run allows so many tokens."""
        return tokens

    def masks(self, trajectory: Trajectory) -> bool:
        """Whether one that has ended is not to be trained on."""
        return False

    def piece(self, left: int) -> int:
        """How many tokens, of those left to generate, 1 or more, come before it may move to another replica."""
        return left

    def rank(self, trajectory: Trajectory) -> tuple[float, ...]:
        """Of those that wait, the least goes first, equals in the order they came."""
        return ()

    @property
    def sends_home(self) -> bool:
        """Whether `home` chooses replicas; else the router does, and what is launched is sent at once."""
        return False

    def home(self, trajectory: Trajectory, own: int, replicas: Sequence[Replica]) -> int:
        """The replica, one of those given, where its next piece runs; it was at `own`, -1: nowhere yet, which leaves it to the router."""
        return own

    @property
    def every(self) -> float:
        """Seconds from one call of `moves` to the next; 0: never."""
        return 0.0

    def moves(self, replicas: Sequence[Replica]) -> list[tuple[int, int]]:
        """All that runs at the first replica goes to the second, which gets something once or more and gives nothing."""
        return []
