"""Every GPU of an engine reads its own shards out of the trainer's memory, through RDMA and into place (SGLang).

    fixed   start + metadata of all tensors + a read posted for each, by every GPU at once
    move    the slower of: a GPU's shard through its card; all replicas through the cards of the trainer

Nothing is loaded afterwards, as bytes land where they belong, which is why engines cannot serve meanwhile. Kimi-K2 takes 7.2 s (published,
1.03 TB at 140 GB/s); its layout is not known, and what a read costs has been chosen so that replicas of 16 GPUs take that. Qwen3-0.6B takes
0.07 s on the wire (a pull request of torchtitan): here 0.04 s, the start aside.
"""
from __future__ import annotations

import dataclasses
from typing import Literal

from sim.physics import weight_sync as physics
from sim.policy.sync import _wire as wire
from sim.policy.sync.base import Ends, Order, Plan, Sync


@dataclasses.dataclass
class RdmaP2p(Sync):
    """With `blocking: pull` a copy beside the trainer is read."""

    blocking: Literal["blocking", "pull"] = "blocking"

    def plan(self, ends: Ends) -> Plan:
        one = wire.near(ends) if ends.colocated else wire.line(ends)
        move = max(ends.served / ends.gpus, ends.replicas * ends.served / ends.senders) / one
        gather = wire.handed(ends, ends.gather, self.blocking)
        fixed = physics.START + ends.tensors * (physics.LISTED + physics.POST)
        return Plan(gather, move, None if ends.colocated else Order("direct", None, ends.served), 0.0, fixed)
