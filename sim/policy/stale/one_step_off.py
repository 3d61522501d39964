"""One step off: while the trainer works on one batch, the next is generated, by the policy that went out just before (verl).

Batch k is taken, the weights of version k are published, batch k + 1 begins, and only then is batch k trained on. So the lag is exactly 1,
0 for the first, and a batch takes max(generation, training) where one after the other took their sum: whichever is slow stalls both.
"""
from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from sim.core.ledger import Ledger
from sim.policy.stale.base import Room, Staleness


@dataclasses.dataclass
class OneStepOff(Staleness):
    """There is nothing to choose."""

    publishes: ClassVar[Literal["after_update", "on_take"]] = "on_take"

    def may_start(self, ledger: Ledger) -> Room:
        generated = ledger.taken + ledger.queued + ledger.active + ledger.partial
        free = (ledger.taken // ledger.batch + 1) * ledger.batch - generated
        return Room(max(free, 0), free <= 0)
