"""Nothing is kept: a session's blocks wait for eviction with all others, the least recently used first (vLLM, SGLang)."""
from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.core.request import Request
from sim.policy.retain.base import LET_GO, Fate, State


@dataclasses.dataclass
class Lru:
    """The default."""

    offloads: ClassVar[bool] = False

    def decide(self, request: Request, state: State) -> Fate:
        return LET_GO
