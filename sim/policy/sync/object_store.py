"""Weights go up to a store once, and every replica downloads them: across clusters, clouds and the internet, where no collective reaches.

    move = up + down, bytes / rate each, or the slower of both and one piece of the other; then from host memory into the GPUs

With a `store` of the scenario's network its links say how fast. Else rates are stated, and the default is what one plain copy through a
store reaches: RollArt's naive 38.6 s are what Qwen3-8B needs at 0.85 GB/s up and again down, and its 157 s are then Qwen3-32B, both within
2 %; that these are the two models is assumed. INTELLECT-2 sent 62 GB over the internet in 14 minutes: 0.074 GB/s up and down, in pieces.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from sim.core.units import Bytes, Speed
from sim.physics import weight_sync as physics
from sim.policy.sync import _wire as wire
from sim.policy.sync.base import Blocking, Ends, Order, Plan, Sync


@dataclasses.dataclass
class ObjectStore(Sync):
    """`up`: bytes/s of the trainer, `down`: of one replica (default: 0.85 GB/s). `piece`: bytes that are downloaded as soon as they are
    there; left out, all of it must be.
    """

    store: str = ""
    up: Speed | None = None
    down: Speed | None = None
    piece: Annotated[Bytes, Field(ge=1e6, le=1e12)] | None = None
    blocking: Blocking = "pull"

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from wire.stated(values, ("up", "down", "piece"))

    def plan(self, ends: Ends) -> Plan:
        ways = [ends.served / (self.up or wire.COPY), ends.served / (self.down or wire.COPY)]
        pieces = math.ceil(ends.served / self.piece) if self.piece else 1
        into = ends.served / ends.gpus / (physics.HOST_REACHED * ends.pcie)
        gather = wire.handed(ends, ends.gather, self.blocking)
        order = Order("direct", None, ends.served) if self.store else None
        move = physics.pipelined(ways, pieces) + into
        return Plan(gather, move, order, ends.tensors * physics.LOAD, physics.START + ends.tensors * physics.LISTED)
