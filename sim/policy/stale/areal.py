"""AReaL: so many groups may have been started that none would be more than `eta` versions old, if they ended in the order they began.

At version v, of groups of which the trainer takes B per version, capacity = min(max_concurrent - running, (eta + v + 1) B - (accepted +
running)) (AReaL's code; the paper's floor((N - 1) / B) <= v + eta, for the N-th group started, says the same). Those rejected make room.
It holds in expectation: a long trajectory is overtaken, and its lag may exceed eta, which is to be counted, not refused. With eta 0 it is
synchronous.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.policy.stale.base import Room, Staleness


@dataclasses.dataclass
class Areal(Staleness):
    """`eta` versions; `max_concurrent` groups run at a time, any number where it is not given."""

    eta: Annotated[int, Field(ge=0, le=10**6)] = 0
    max_concurrent: Annotated[int, Field(ge=1, le=10**9)] | None = None

    def may_start(self, ledger: Ledger) -> Room:
        return expected(ledger, self.eta, self.max_concurrent)


def expected(ledger: Ledger, eta: int, most: int | None) -> Room:
    """The rule that AReaL and SkyRL share."""
    running = ledger.active + ledger.partial
    bound = (eta + ledger.version + 1) * ledger.batch - (ledger.accepted + running)
    seats = bound if most is None else most - running
    return Room(max(min(bound, seats), 0), bound <= 0)
