"""A movement of bytes that a workload asks of the world: weights to replicas, a checkpoint to a store, any copy."""
from __future__ import annotations

import math
from typing import NamedTuple


class Transfer(NamedTuple):
    """`source` and `target` are names of pools or of stores of the network. Of a pool, the first of its ready replicas sends, and all of
    them receive, `size` bytes each; None: the weights of the pool's model.

    `algorithm`: direct, tree, binomial or pipeline, by pieces of `chunk` bytes (None: in one piece) and, for a tree, to `fanout` receivers
    at a time (`world/broadcast.py`). `weight`, `priority` and `limit` (bytes/s) are those of each flow.
    """

    what: str
    source: str
    target: str
    size: float | None
    algorithm: str = "direct"
    chunk: float | None = None
    fanout: int = 2
    weight: float = 1.0
    priority: int = 0
    limit: float = math.inf
