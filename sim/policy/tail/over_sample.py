"""More prompts and more samples are launched than are wanted, and the first to end are kept: redundancy against stragglers.

The time is that of the P0-th group of eta P0, each the n-th sample of eta n, and so is the price: what was generated of the rest is lost,
and what is trained on is shorter than what would have been generated.
"""
from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from pydantic import Field

from sim.core.rounds import Batch, Launch, Left
from sim.policy.tail.base import Fate, Tail

Factor = Annotated[float, Field(ge=1, le=100)]


@dataclasses.dataclass
class OverSample(Tail):
    """`eta_prompt` and `eta_response` times what is wanted, rounded up. `rest` says what becomes of the groups that are not complete."""

    eta_prompt: Factor = 1.25
    eta_response: Factor = 1.25
    rest: Fate = "drop"

    def launch(self, batch: Batch, left: Left) -> Launch:
        groups = times(self.eta_prompt, batch.groups)
        resumed = min(left.partial, groups)
        again = min(left.losers, groups - resumed)
        return Launch(resumed, again, groups - resumed - again, times(self.eta_response, batch.samples), batch.groups)

    def fate(self) -> Fate:
        return self.rest


def times(factor: float, count: int) -> int:
    """Rounded up, but for what is only the error of the product: 1.1 times 10 are 11."""
    return math.ceil(factor * count - 1e-9)
