"""Kimi's checkpoint-engine: weights lie in the memory of the engines' hosts, and every GPU broadcasts its part of them to all others.

    gather   out of the trainer's GPUs into host memory, all at once, and over the network where that is elsewhere
    fixed    start + metadata of all tensors
    move     host to device for the first bucket, then broadcasts, one at a time, over all cards of a node
    load     each tensor into the engine's layout

Copies from the host run beside broadcasts on engines of their own, and are faster, all GPUs together; loading is done by another process
on the GPU that broadcasts, and the two take turns, so that their times add. The number of receivers counts only as latency.

The README's six broadcasts, registered weights to updated engines (`tests/reality/test_weight_sync.py`): mean error 6 %, worst 12 %, with
the rates of the catalogue and one figure for all, what a tensor takes to load, fitted to them; a row left out of the fit is off by 12 % at
most. They are times of updates; should the metadata not be in them, the worst error is 14.5 %. That 256 GPUs take 12 % longer than 16 is
not explained.
"""
from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from pydantic import Field

from sim.core.units import Bytes
from sim.physics import weight_sync as physics
from sim.policy.sync import _wire as wire
from sim.policy.sync.base import Blocking, Ends, Plan, Sync


@dataclasses.dataclass
class CheckpointEngine(Sync):
    """`bucket`: bytes that are broadcast at a time."""

    bucket: Annotated[Bytes, Field(ge=1e6, le=1e12)] = 4e9
    blocking: Blocking = "blocking"

    def plan(self, ends: Ends) -> Plan:
        host, cards = physics.HOST_REACHED * ends.pcie, math.ceil(ends.receivers / ends.receiver_nodes)
        # Colocated, a node is as a node of its own: nothing but its own links carries the broadcast.
        alone = ends._replace(same_node=ends.receiver_nodes == 1)
        buckets = math.ceil(ends.served / self.bucket)
        gather = ends.gather + ends.weights / ends.senders / host
        if not ends.colocated and not ends.same_node:
            gather += ends.served / min(ends.senders, ends.receivers) / wire.line(ends)
        fixed = physics.START + ends.tensors * physics.LISTED + physics.hops(ends.receiver_nodes, buckets)
        copied = ends.served / ends.receivers / host
        move = physics.pipelined([copied, ends.served / wire.line(alone, cards)], max(1, buckets // ends.receivers))
        order = None if ends.colocated else wire.chain(ends)
        return Plan(wire.handed(ends, gather, self.blocking), move, order, ends.tensors * physics.LOAD, fixed)
