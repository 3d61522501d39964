"""What kinds of sync share: how fast a broadcast arrives, how it goes over a network, and what the trainer stands still for."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sim.core.errors import BadInput, Problem
from sim.physics import weight_sync as physics
from sim.policy.sync.base import Blocking, Ends, Order

# A chain passes pieces on when they are whole. With 8 pieces a receiver it is an eighth longer than the wire needs, which stands for the
# start of a broadcast; with more than 128 a large fleet would cost more to simulate than it tells.
PIECES, MOST = 8, 128
COPY = 0.85e9  # bytes/s of a plain copy to a store or from it (`object_store`)


def near(ends: Ends) -> float:
    """Bytes/s into one GPU from another of its node."""
    return physics.NVLINK_REACHED * ends.nvlink if ends.nvlink else physics.HOST_REACHED * ends.pcie


def line(ends: Ends, cards: int = 1) -> float:
    """Bytes/s at which a broadcast that enters each node through so many network cards reaches all its GPUs."""
    if ends.same_node:
        return near(ends)
    if not ends.nic:
        what = "trainer and engines are on different nodes, and these have no network cards; kind object_store does without"
        raise BadInput([Problem(what, "sync.kind")])
    return min(near(ends), physics.NETWORK_REACHED * ends.nic * cards)


def apart(ends: Ends, kind: str) -> None:
    """Raises BadInput where trainer and engines are the same GPUs, of which NCCL takes each once."""
    if ends.colocated:
        what = f"kind {kind} is for a trainer and engines on different GPUs, and these share theirs; kind ipc is for such"
        raise BadInput([Problem(what, "sync.kind")])


def chain(ends: Ends) -> Order:
    """A broadcast as flows: along a chain of replicas, piece by piece."""
    return Order("pipeline", ends.served / min(PIECES * ends.replicas, MOST), ends.served)


def handed(ends: Ends, gather: float, blocking: Blocking) -> float:
    """Seconds that the trainer stands still: to gather and, where engines pull, to hand over to the relay."""
    return gather + (ends.weights / physics.HANDOVER if blocking == "pull" else 0.0)


def stated(values: Mapping[str, Any], keys: Iterable[str]) -> Iterable[tuple[str, str]]:
    """What is wrong with stated rates beside a store of the network, whose links have their own."""
    if values["store"]:
        yield from ((key, "not used here: to a store of the network bytes go as fast as its links let them") for key in keys if values[key])
