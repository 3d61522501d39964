"""Keep replicas apart: each group on the emptiest host under the emptiest leaf of the emptiest region, so that one failure hits few.

LeastAllocated of Kubernetes' NodeResourcesFit plug-in, within what topologySpreadConstraints over leaves would choose.
"""
from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from sim.policy.place.base import Host, Slot, Wanted
from sim.policy.room import kinds, place


def apart(groups: int, size: int, hosts: Sequence[Host]) -> list[Slot] | None:
    """`groups` groups of `size` GPUs on the emptiest hosts of the emptiest leaves, or None; among equals the first host."""
    leaves: dict[int, list[tuple[int, int, Host]]] = {}
    free: dict[int, int] = {}
    for at, host in enumerate(hosts):
        count = len(host.free)
        if count >= size:
            leaves.setdefault(host.leaf, []).append((-count, at, host))
            free[host.leaf] = free.get(host.leaf, 0) + count
    order = [(-count, leaf) for leaf, count in free.items()]
    heapq.heapify(order)
    opened: set[int] = set()
    slots: list[Slot] = []
    for _ in range(groups):
        if not order:
            return None
        count, number = heapq.heappop(order)
        if number not in opened:
            heapq.heapify(leaves[number])
            opened.add(number)
        left, at, host = heapq.heappop(leaves[number])
        taken = len(host.free) + left
        slots += [(host.number, gpu) for gpu in host.free[taken:taken + size]]
        if -left - size >= size:
            heapq.heappush(leaves[number], (left + size, at, host))
        if leaves[number]:
            # What is too small for another group no longer counts as free.
            gone = size if -left - size >= size else -left
            heapq.heappush(order, (count + gone, number))
    return slots


@dataclasses.dataclass
class Spread:
    """The kind of host and region with the most free GPUs first."""

    def place(self, wanted: Wanted, hosts: Sequence[Host]) -> tuple[Slot, ...] | None:
        emptiest = sorted(kinds(wanted, hosts), key=lambda kind: -sum(len(host.free) for host in kind))
        found = (place(wanted, kind, apart) for kind in emptiest)
        return next((slots for slots in found if slots is not None), None)
