"""One NCCL broadcast for each tensor, one after another, from the trainer's first rank to all GPUs of all engines.

Each begins with a call that tells the engines its name and shape, and they load it when it is there. With tens of thousands of tensors,
as models with many experts have, those calls take far longer than the bytes:

    fixed = start + tensors x (call + latency)        move = bytes / rate of one card        load = tensors x what a tensor takes
"""
from __future__ import annotations

import dataclasses

from sim.physics import weight_sync as physics
from sim.policy.sync import _wire as wire
from sim.policy.sync.base import Blocking, Ends, Plan, Sync


@dataclasses.dataclass
class PerTensor(Sync):
    """`blocking` as told in the contract of syncs."""

    blocking: Blocking = "blocking"

    def plan(self, ends: Ends) -> Plan:
        wire.apart(ends, "per_tensor")
        calls = ends.tensors * physics.CALL + physics.hops(ends.receiver_nodes, ends.tensors)
        gather = wire.handed(ends, ends.gather, self.blocking)
        return Plan(gather, ends.served / wire.line(ends), wire.chain(ends), ends.tensors * physics.LOAD, physics.START + calls)
