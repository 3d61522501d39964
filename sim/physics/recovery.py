"""How long it takes to have the keys and values of a prompt again, on an idle replica: brought from a lower tier, or computed.

Loading is latency + bytes / bandwidth. Computing is the sum of the steps of a prompt in chunks of the token budget, by the step model; as
attention to what came before makes them longer by the same amount each, the first and the last of the full chunks give the sum.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from sim.physics.base import StepModel, Work

REMEMBERED = 4096


class Recovery:
    """`tiers` are (bytes/s, latency in s) of each, `per_block` the bytes of a block, `budget` the most tokens of a prompt in a step."""

    def __init__(self, model: StepModel, tiers: Sequence[tuple[float, float]], per_block: float, budget: int):
        self._model, self._tiers, self._per_block, self._budget = model, tiers, per_block, budget
        self._known: dict[tuple[int, int], float] = {}

    def load(self, tier: int, blocks: int) -> float:
        """Seconds to bring so many blocks; infinite where there is no such tier."""
        if tier >= len(self._tiers):
            return math.inf
        bandwidth, latency = self._tiers[tier]
        return latency + blocks * self._per_block / bandwidth

    def compute(self, before: int, tokens: int) -> float:
        """Seconds to compute so many tokens of a prompt behind `before` others."""
        seconds = self._known.get((before, tokens))
        if seconds is None:
            full, rest = divmod(tokens, self._budget)
            seconds = self._step(before + full * self._budget, rest) if rest else 0.0
            if full:
                seconds += full * (self._step(before, self._budget) + self._step(before + (full - 1) * self._budget, self._budget)) / 2
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[before, tokens] = seconds
        return seconds

    def _step(self, before: int, tokens: int) -> float:
        return self._model.step(Work(((tokens, before),), 0, 0)).seconds
