"""SkyRL: the rule of AReaL, with `staleness` versions for eta and a fixed number of workers, each of which generates one group at a time.

capacity = (staleness + step) B - (accepted + running), where steps count from 1, so that step = v + 1. As its documentation says, a lag
above the bound is not strictly ruled out.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from sim.core.ledger import Ledger
from sim.policy.stale.areal import expected
from sim.policy.stale.base import Room, Staleness


@dataclasses.dataclass
class Skyrl(Staleness):
    """Versions, and groups at a time."""

    staleness: Annotated[int, Field(ge=0, le=10**6)] = 4
    workers: Annotated[int, Field(ge=1, le=10**9)] = 768

    def may_start(self, ledger: Ledger) -> Room:
        return expected(ledger, self.staleness, self.workers)
