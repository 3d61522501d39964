"""Tensors packed into buckets, each of which is one NCCL broadcast from the trainer's first rank (verl: 4,096 MB).

Two buckets take turns: while one is sent the next is gathered, so that the slower of both sets the pace; of gathering, what is longer than
the broadcast shows, and the first bucket. Engines load tensor by tensor on GPUs that receive the next bucket, which take turns, so that
those times add.

    fixed = start + buckets x (call + latency) + metadata of all tensors        move = bytes / rate of one card
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
class Bucketed(Sync):
    """`bucket`: bytes of one."""

    bucket: Annotated[Bytes, Field(ge=1e6, le=1e12)] = 4096e6
    blocking: Blocking = "blocking"

    def plan(self, ends: Ends) -> Plan:
        wire.apart(ends, "bucketed")
        buckets = math.ceil(ends.served / self.bucket)
        move = ends.served / wire.line(ends)
        # A relay gets all of it before anything is sent.
        shown = ends.gather if self.blocking == "pull" else physics.pipelined([ends.gather, move], buckets) - move
        calls = buckets * physics.CALL + physics.hops(ends.receiver_nodes, buckets) + ends.tensors * physics.LISTED
        gather = wire.handed(ends, shown, self.blocking)
        return Plan(gather, move, wire.chain(ends), ends.tensors * physics.LOAD, physics.START + calls)
