"""Trainer and engines on the same GPUs: weights are gathered on each, and its engine copies its part out of that memory (CUDA IPC).

    gather   tensor by tensor, every rank gets all of it
    fixed    start + buckets x (a handle passed on and opened) + names and shapes of all tensors
    load     each tensor into the engine's layout; its bytes never leave the GPU

Gathering waits until the engine has let go of the bucket before, so that nothing overlaps. The size of a bucket is a judgement; where each
tensor is passed on alone, a bucket of 1 MB is near enough.
"""
from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from pydantic import Field

from sim.core.errors import BadInput, Problem
from sim.core.units import Bytes
from sim.physics import weight_sync as physics
from sim.policy.sync.base import Ends, Plan, Sync


@dataclasses.dataclass
class Ipc(Sync):
    """`bucket`: bytes passed on at a time."""

    bucket: Annotated[Bytes, Field(ge=1e6, le=1e12)] = 512e6

    def plan(self, ends: Ends) -> Plan:
        if not ends.colocated:
            what = "kind ipc is for a trainer and engines that share their GPUs, and these do not; kind bucketed is for such"
            raise BadInput([Problem(what, "sync.kind")])
        # No bucket is smaller than a tensor.
        buckets = min(math.ceil(ends.served / self.bucket), ends.tensors)
        fixed = physics.START + buckets * physics.CALL + ends.tensors * physics.LISTED
        return Plan(ends.gather, 0.0, None, ends.tensors * physics.LOAD, fixed)
