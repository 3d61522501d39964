"""Keep a replica close together, in the tightest hole that holds it: one host, else one NVLink domain, else one leaf, else a region.

The tightest hole leaves the large ones whole, as the buddy cells of HiveD do (Zhao et al., OSDI 2020); that nearness is worth looking for
is Gandiva's finding (Xiao et al., OSDI 2018).
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sim.policy.place.base import Host, Slot, Wanted
from sim.policy.place.bin_pack import packed
from sim.policy.room import kinds, place


def close(groups: int, size: int, hosts: Sequence[Host]) -> list[Slot] | None:
    """`groups` groups of `size` GPUs in the smallest part of the network that holds them, or None; among equals the first host."""
    total = groups * size
    least = min((len(host.free) for host in hosts if len(host.free) >= total), default=0)
    if least:
        host = next(host for host in hosts if len(host.free) == least)
        return [(host.number, gpu) for gpu in host.free[:total]]
    if groups == 1:
        return None
    for key in (_domain, _leaf):
        slots = packed(groups, size, _tightest(groups, size, hosts, key))
        if slots is not None:
            return slots
    return _few_leaves(groups, size, hosts)


def _domain(host: Host) -> int:
    return host.domain


def _leaf(host: Host) -> int:
    return host.leaf


def _parts(size: int, hosts: Sequence[Host], key: Callable[[Host], int]) -> list[tuple[int, int, list[Host]]]:
    """(room for groups, free GPUs, hosts) of each part that has room."""
    parts: dict[int, list[Host]] = {}
    for host in hosts:
        if len(host.free) >= size:
            parts.setdefault(key(host), []).append(host)
    return [(sum(len(h.free) // size for h in part), sum(len(h.free) for h in part), part) for part in parts.values()]


def _tightest(groups: int, size: int, hosts: Sequence[Host], key: Callable[[Host], int]) -> list[Host]:
    """The part with the fewest free GPUs among those with room for all groups; nothing when none has."""
    enough = [part for part in _parts(size, hosts, key) if part[0] >= groups]
    return min(enough, key=lambda part: part[1])[2] if enough else []


def _few_leaves(groups: int, size: int, hosts: Sequence[Host]) -> list[Slot] | None:
    slots: list[Slot] = []
    for room, _, part in sorted(_parts(size, hosts, _leaf), key=lambda part: -part[0]):
        count = min(groups, room)
        slots += packed(count, size, part) or []
        groups -= count
        if not groups:
            return slots
    return None


@dataclasses.dataclass
class Topology:
    """Kinds of host in their order, the tightest hole first."""

    def place(self, wanted: Wanted, hosts: Sequence[Host]) -> tuple[Slot, ...] | None:
        found = (place(wanted, kind, close) for kind in kinds(wanted, hosts))
        return next((slots for slots in found if slots is not None), None)
