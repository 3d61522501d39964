"""slime's fully asynchronous rollout: no bound, but all that run are aborted when weights are published, and begin again from nothing.

`max_concurrent` groups are kept running, one batch where it is not given; what is done waits in the buffer however long that is, at most
`max_queue` of them. So the lag of what runs is 0 and that of what waits is not bounded, and whoever takes longer than the time between two
publications never ends: with `abort_policy: resume` it goes on where it was, and with `drop` another prompt has its place.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.core.rollout import RUNNING
from sim.policy.stale.base import Fate, Loss, Room, Staleness

Groups = Annotated[int, Field(ge=1, le=10**9)]


@dataclasses.dataclass
class Slime(Staleness):
    """Groups."""

    abort_policy: Fate = "restart"
    max_concurrent: Groups | None = None
    max_queue: Groups | None = None

    @property
    def resumes(self) -> bool:
        return self.abort_policy == "resume"

    def may_start(self, ledger: Ledger) -> Room:
        running = ledger.active + ledger.partial
        seats = (self.max_concurrent or ledger.batch) - running
        if self.max_queue is None:
            return Room(max(seats, 0), False)
        bound = self.max_queue - running - ledger.queued
        return Room(max(min(seats, bound), 0), bound <= 0)

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        return [Loss(group, self.abort_policy) for group in ledger.live(RUNNING)]
