"""NeMo-RL: each group is generated for one step of the trainer, at most `max_trajectory_age_steps` after the version that began it.

At version v there are places in the batches of steps v to v + age, B in each, and a group that starts takes one in the first that is not
full; whoever is rejected gives it back. The trainer takes for a step only what was meant for it, and waits for the last of those even when
later ones are ready. So no group is ever older than the bound: what has missed its step is discarded.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Course, Ledger
from sim.core.rollout import Group
from sim.policy.stale.base import Loss, Room, Staleness


@dataclasses.dataclass
class NemoRl(Staleness):
    """Versions."""

    max_trajectory_age_steps: Annotated[int, Field(ge=0, le=10**4)] = 1
    _targets: dict[int, int] = dataclasses.field(default_factory=dict, init=False)

    def may_start(self, ledger: Ledger) -> Room:
        places = (self.max_trajectory_age_steps + 1) * ledger.batch - _taken(ledger)
        free = max(places - ledger.active - ledger.partial - ledger.queued, 0)
        return Room(free, free == 0)

    def started(self, ledger: Ledger, group: Group) -> None:
        steps = range(ledger.version, ledger.version + self.max_trajectory_age_steps + 1)
        free = dict.fromkeys(steps, ledger.batch)
        free[ledger.version] -= _taken(ledger)
        for other in ledger.live():
            if other is not group:
                free[self._targets[other.number]] -= 1
        self._targets[group.number] = next(step for step, places in free.items() if places > 0)

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        self._targets = {group.number: self._targets[group.number] for group in ledger.live()}
        return [Loss(group, "drop") for group in ledger.live() if self._targets[group.number] < ledger.version]

    def takes(self, ledger: Ledger, group: Group) -> bool:
        return self._targets[group.number] == ledger.version

    def stuck(self, course: Course) -> str:
        most = (self.max_trajectory_age_steps + 1) * course.take * course.trigger
        if 0 < course.cap < most:
            what = f"the buffer holds {course.cap} groups, fewer than the {most} that may be there, each for a step of its own"
            return f"{what}: it would lose those that the trainer waits for"
        return super().stuck(course)


def _taken(ledger: Ledger) -> int:
    """Groups taken for the step under way, which keep their places until it is over."""
    return max(ledger.taken - ledger.version * ledger.batch, 0)
