"""How far the policy that generates may fall behind the one that trains: who may start, and who is dropped when a version is published.

Frameworks mean different things by staleness, and each is a kind by its name. Some bound how much is started (areal, skyrl, verl,
one_step_off), which binds the lag of a group only when groups end in the order they began; some drop what has become too old (prime_rl,
rollart), reserve a place in a batch to come (nemo_rl), or begin again (slime).

A gate decides on a `Ledger` and never on a clock; what it has counted itself is its own state, so it belongs to one run. In a loop:

- resume the groups stopped at the last publication, which need no leave; then start as many as `may_start` says, telling `started` of each;
- ask again whenever a group moved, or, where a gate has `poll` and said that its bound `held`, after so many seconds or at a publication,
  whichever comes first;
- when a version is published, raise `ledger.version`, do what `on_publish` says, and only then let the engines go on;
- ask `turn` at the end of each turn of a trajectory, the last included, and `takes` of each group the trainer may take.
"""
from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Protocol

from sim.core.ledger import Course, Ledger
from sim.core.rollout import Group
from sim.policy.stale._rehearsal import rehearse

Fate = Literal["drop", "restart", "resume"]


class Room(NamedTuple):
    """So many groups may start now, 0 or more; `held`: there would be more but for the bound on staleness."""

    groups: int
    held: bool


class Loss(NamedTuple):
    """What becomes of a group: dropped as stale, begun again from nothing, or stopped and resumed. Who only waits can but be dropped."""

    group: Group
    fate: Fate


class Staleness(Protocol):
    """`publishes`: a new version goes out when the trainer has made it, or only when it takes its next batch, before it trains on that.
    `looks`: it is asked to `look`, with `kv` and `preemptions` of the ledger kept up to date.
    """

    publishes: ClassVar[Literal["after_update", "on_take"]] = "after_update"
    looks: ClassVar[bool] = False

    @property
    def poll(self) -> float:
        """Seconds from one look to the next while the bound holds; 0: it is looked at whenever something changed."""
        return 0.0

    @property
    def resumes(self) -> bool:
        """Whether groups that it stops may go on where they were."""
        return False

    def may_start(self, ledger: Ledger) -> Room:
        """How many groups may start now. Nothing changes."""
        ...

    def started(self, ledger: Ledger, group: Group) -> None:
        """The group has begun, or begun again; not when it is resumed."""
        return

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        """What does not go on as it is under the version that is now in the ledger, in order of start. The groups have not moved yet."""
        return []

    def look(self, ledger: Ledger) -> list[Loss]:
        """Load has changed: a group ended, a request was preempted, or the cache filled up. What is not to go on, in order of start."""
        return []

    def turn(self, ledger: Ledger, group: Group) -> bool:
        """Whether a group, of which a trajectory has ended a turn, goes on; else it is dropped as stale."""
        return True

    def takes(self, ledger: Ledger, group: Group) -> bool:
        """Whether the trainer may take this group, which was accepted, for the version it makes next."""
        return True

    def stuck(self, course: Course) -> str:
        """Why the trainer would wait for ever, or nothing: the bound is played through with groups that end at once, in order, on a fresh
        copy of the gate.
        """
        return rehearse(self, course)
