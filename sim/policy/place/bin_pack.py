"""Fill the fullest host that has room: other hosts stay empty for what is large, or can be switched off.

Best fit; the strategy MostAllocated of Kubernetes' NodeResourcesFit plug-in.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sim.policy.place.base import Host, Slot, Wanted
from sim.policy.room import kinds, place


def packed(groups: int, size: int, hosts: Sequence[Host]) -> list[Slot] | None:
    """`groups` groups of `size` GPUs on the fullest hosts, or None; among equals the first host."""
    slots: list[Slot] = []
    # A host that has room for two groups is the fullest with room after the first, so hosts are filled one after the other.
    for host in sorted((host for host in hosts if len(host.free) >= size), key=lambda host: len(host.free)):
        count = min(groups, len(host.free) // size)
        slots += [(host.number, gpu) for gpu in host.free[:count * size]]
        groups -= count
        if not groups:
            return slots
    return None


@dataclasses.dataclass
class BinPack:
    """Kinds of host in their order, the fullest host first."""

    def place(self, wanted: Wanted, hosts: Sequence[Host]) -> tuple[Slot, ...] | None:
        found = (place(wanted, kind, packed) for kind in kinds(wanted, hosts))
        return next((slots for slots in found if slots is not None), None)
