"""Only what changed is sent: at the learning rates of RL few of a model's 16-bit weights do from one version to the next.

Each rank of the trainer compares its part with the version before, which it has to keep, so that nothing is gathered; differences are
compressed, go to a store or disk that all nodes see, and engines apply them.

    gather   bytes of a rank / encode         move   share x bytes / rate, up and down         load   bytes of a GPU / encode + tensors

Differences of Qwen3-1.7B are 20 to 35 MB (Hugging Face blog): 0.6 to 1.0 % of its 3.4 GB, compressed. How fast differences are taken and
applied is a judgement, and so are the rates of the store, unless it is one of the network; its default is what plain copies reach
(`object_store`).
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from sim.core.units import Speed
from sim.physics import weight_sync as physics
from sim.policy.sync import _wire as wire
from sim.policy.sync.base import Blocking, Ends, Order, Plan, Sync


@dataclasses.dataclass
class Delta(Sync):
    """`share`: compressed bytes sent over those of the model. `encode`: bytes/s of weights that one GPU compares, or changes. `up`: bytes/s
    of the trainer, `down`: of one replica (default: 0.85 GB/s).
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.008
    encode: Speed = 20e9
    store: str = ""
    up: Speed | None = None
    down: Speed | None = None
    blocking: Blocking = "pull"

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from wire.stated(values, ("up", "down"))

    def plan(self, ends: Ends) -> Plan:
        size = self.share * ends.served
        move = size / (self.up or wire.COPY) + size / (self.down or wire.COPY)
        load = ends.served / ends.gpus / self.encode + ends.tensors * physics.LOAD
        fixed = physics.START + ends.tensors * physics.LISTED
        order = Order("direct", None, size) if self.store else None
        return Plan(ends.weights / ends.senders / self.encode, move, order, load, fixed)
