"""ROLL Flash and RollArt: what the trainer takes for version n was begun by version n - alpha or later, and whoever is too old is aborted.

No more than (1 + alpha) B groups are generated or wait in the buffer. RollArt looks at every turn of a trajectory, so that a long one is
given up between two calls and not only at its end; what waits is swept when a version is published.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.core.rollout import ACCEPTED, DONE, PARTIAL, SCORED, Group
from sim.policy.stale.base import Loss, Room, Staleness


@dataclasses.dataclass
class Rollart(Staleness):
    """`alpha` versions, of which a part is a part of a batch (`async_generation_ratio`)."""

    alpha: Annotated[float, Field(ge=0, le=1e4)] = 1.0

    def may_start(self, ledger: Ledger) -> Room:
        free = int((1.0 + self.alpha) * ledger.batch) - ledger.active - ledger.partial - ledger.queued
        return Room(max(free, 0), free <= 0)

    def on_publish(self, ledger: Ledger) -> list[Loss]:
        return [Loss(group, "drop") for group in ledger.live(PARTIAL, DONE, SCORED, ACCEPTED) if not self.turn(ledger, group)]

    def turn(self, ledger: Ledger, group: Group) -> bool:
        return ledger.version - group.v_submit <= self.alpha
