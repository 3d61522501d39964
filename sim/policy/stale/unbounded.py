"""No bound on staleness: as many groups as there is room for are always generated, and trained on whenever their turn comes.

As where each trajectory keeps the version it began with and nobody waits for another (Laminar). What bounds the lag is only how fast the
trainer is, and the cap of the buffer.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.policy.stale.base import Room, Staleness


@dataclasses.dataclass
class Unbounded(Staleness):
    """`max_concurrent` groups run at a time."""

    max_concurrent: Annotated[int, Field(ge=1, le=10**9)]

    def may_start(self, ledger: Ledger) -> Room:
        return Room(max(self.max_concurrent - ledger.active - ledger.partial, 0), False)
