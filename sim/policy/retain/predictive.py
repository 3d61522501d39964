"""Keep what will be asked for soon, move down what will be asked for late, let go of what is cheap to compute again.

The expected pause decides, as the steps to the next use do in KVFlow. When the session comes back before eviction would
reach its blocks, keeping them costs others nothing and guards against bursts. Later than that the blocks would be gone: they go to the host
tier at once when reloading is faster than computing, and are left to eviction otherwise.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from pydantic import Field

from sim.core.request import Request
from sim.policy.retain.base import LET_GO, Fate, State


@dataclasses.dataclass
class Predictive:
    """Blocks are kept for at most `patience` times the expected pause."""

    offloads: ClassVar[bool] = False

    patience: Annotated[float, Field(ge=1, le=1000)] = 2.0

    def decide(self, request: Request, state: State) -> Fate:
        if request.pause <= state.lifetime:
            return Fate(self.patience * request.pause)
        if state.reload < state.recompute:
            return Fate(0.0, offload=True)
        return LET_GO
