"""Partial rollout (APRIL): more prompts are launched than are wanted, the round ends with the last that is wanted, and the rest goes on in
the next one.

Nothing is thrown away: who was stopped keeps the tokens written and is resumed before new prompts begin, so that long answers are written
by several versions, and their caches are computed again where they were not kept.
"""
from __future__ import annotations

import dataclasses

from sim.core.rounds import Batch, Launch, Left
from sim.policy.tail.base import Fate, Tail
from sim.policy.tail.over_sample import Factor, times


@dataclasses.dataclass
class Partial(Tail):
    """`over_issue` times as many groups run as are wanted, those resumed among them."""

    over_issue: Factor = 2.0

    def launch(self, batch: Batch, left: Left) -> Launch:
        groups = times(self.over_issue, batch.groups)
        resumed = min(left.partial, groups)
        return Launch(resumed, 0, groups - resumed, batch.samples, batch.groups)

    def fate(self) -> Fate:
        return "resume"
