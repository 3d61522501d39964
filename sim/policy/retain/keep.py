"""A session's blocks stay until it asks again: InferCept's `preserve` (Abhyankar et al., ICML 2024)."""
from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from sim.core.request import Request
from sim.policy.retain.base import Fate, State


@dataclasses.dataclass
class Keep:
    """However long the pause."""

    offloads: ClassVar[bool] = False

    def decide(self, request: Request, state: State) -> Fate:
        return Fate(math.inf)
