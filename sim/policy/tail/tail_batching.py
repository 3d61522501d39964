"""Tail batching (RollPacker, NSDI'26): short rounds keep the first to end, and the prompts that lost are answered together in a long one.

A short round launches eta_prompt P0 prompts and eta_response n samples of each, and keeps the first P0 and n. Losers begin again, under
the policy of that time, in a long round without launching more than is wanted, as soon as P0 of them wait: with eta_prompt 1.25 each short
round leaves P0 / 4, so that every fifth round is long. All remain on-policy, and no prompt is lost.
"""
from __future__ import annotations

import dataclasses

from sim.core.rounds import Batch, Launch, Left
from sim.policy.tail.base import Fate, Tail
from sim.policy.tail.over_sample import Factor, times


@dataclasses.dataclass
class TailBatching(Tail):
    """Times what is wanted, rounded up, in a short round."""

    eta_prompt: Factor = 1.25
    eta_response: Factor = 1.25

    def launch(self, batch: Batch, left: Left) -> Launch:
        if left.losers >= batch.groups:
            return Launch(0, batch.groups, 0, batch.samples, batch.groups)
        return Launch(0, 0, times(self.eta_prompt, batch.groups), times(self.eta_response, batch.samples), batch.groups)

    def fate(self) -> Fate:
        return "restart"
