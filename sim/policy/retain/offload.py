"""A session's blocks go to the host tier as soon as its request has ended, and come back with its next one: InferCept's `swap`."""
from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.core.request import Request
from sim.core.units import Seconds
from sim.policy.retain.base import Fate, State


@dataclasses.dataclass
class Offload:
    """With `after`, they are kept in the GPU for so many seconds first."""

    offloads: ClassVar[bool] = True

    after: Seconds = 0.0

    def decide(self, request: Request, state: State) -> Fate:
        return Fate(self.after, offload=True)
