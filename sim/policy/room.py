"""Which hosts have room for a replica, and why none has.

Hosts of one kind are those of one node type, GPU, size and region; a replica stays within a kind. A group no larger than a host lies in one
host. A larger one takes whole hosts: in one NVLink domain where the kind has a domain as large as the group, else under one leaf where that
has room, else anywhere in the region. Such hosts are joined into one that holds groups, so that placers only ever see groups within a host.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sim.policy.place.base import Host, Slot, Wanted

Choose = Callable[[int, int, Sequence[Host]], list[Slot] | None]


def kinds(wanted: Wanted, hosts: Sequence[Host]) -> list[list[Host]]:
    """The hosts that the replica may use at all, by kind, in order of the first host of each."""
    found: dict[tuple[str, str, int], list[Host]] = {}
    region = node = ""
    gpus = 0
    kind: list[Host] = []
    for host in hosts:
        _, gpu, its_node, its_region, _, _, its_gpus, _ = host
        if gpu != wanted.gpu or (wanted.node and its_node != wanted.node) or (wanted.region and its_region != wanted.region):
            continue
        # Hosts of a kind mostly follow one another.
        if its_node != node or its_region != region or its_gpus != gpus or not kind:
            region, node, gpus = its_region, its_node, its_gpus
            kind = found.setdefault((region, node, gpus), [])
        kind.append(host)
    return list(found.values())


def place(wanted: Wanted, kind: Sequence[Host], choose: Choose) -> tuple[Slot, ...] | None:
    """The slots for a replica on hosts of one kind, or None. `choose` finds `groups` groups of `size` on hosts, each within one."""
    if wanted.size <= kind[0].gpus:
        slots = choose(wanted.groups, wanted.size, kind)
        return tuple(slots) if slots is not None else None
    whole = -(-wanted.size // kind[0].gpus) * kind[0].gpus
    for joined in _joined(wanted, kind):
        slots = choose(wanted.groups, whole, [one.host for one in joined])
        if slots is not None:
            groups = (slots[begin:begin + wanted.size] for begin in range(0, len(slots), whole))
            return tuple(joined[number].slot(gpu) for group in groups for number, gpu in group)
    return None


def rooms(wanted: Wanted, kind: Sequence[Host]) -> int:
    """How many groups of the replica find room on hosts of one kind at once."""
    if wanted.size <= kind[0].gpus:
        return sum(len(host.free) // wanted.size for host in kind)
    whole = -(-wanted.size // kind[0].gpus) * kind[0].gpus
    return max(sum(len(one.host.free) // whole for one in joined) for joined in _joined(wanted, kind))


def usable(wanted: Wanted, kind: Sequence[Host]) -> list[int]:
    """The numbers of the hosts of one kind where a group of the replica could be; none when there is no room for the whole replica."""
    if rooms(wanted, kind) < wanted.groups:
        return []
    if wanted.size <= kind[0].gpus:
        return [host.number for host in kind if len(host.free) >= wanted.size]
    *_, widest = _joined(wanted, kind)
    return [host.number for joined in widest if len(joined.host.free) >= wanted.size for host in joined.parts]


def why(wanted: Wanted, hosts: Sequence[Host]) -> str:
    """Why a replica fits nowhere, a clause for every kind of host, or an empty text when it fits."""
    if any(rooms(wanted, kind) >= wanted.groups for kind in kinds(wanted, hosts)):
        return ""
    found: dict[tuple[str, str, str, int], list[Host]] = {}
    for host in hosts:
        found.setdefault((host.region, host.node, host.gpu, host.gpus), []).append(host)
    regions = {host.region for host in hosts}
    clauses = [_clause(wanted, kind, f" in {kind[0].region}" if len(regions) > 1 else "") for kind in found.values()]
    return "; ".join(clauses) or "there are no hosts"


class _Joined(NamedTuple):
    """Several wholly free hosts, the `parts`, as one whose GPUs are theirs in turn."""

    host: Host
    parts: list[Host]

    def slot(self, gpu: int) -> Slot:
        """The real place of a GPU of the joined host."""
        part = self.parts[gpu // self.parts[0].gpus]
        return part.number, part.free[gpu % part.gpus]


def _joined(wanted: Wanted, kind: Sequence[Host]) -> Iterator[list[_Joined]]:
    """The ways in which hosts may be joined for the groups of a replica, the best first; at least one."""
    sizes: dict[int, int] = {}
    for host in kind:
        sizes[host.domain] = sizes.get(host.domain, 0) + host.gpus
    if max(sizes.values()) >= wanted.size:
        yield _join(kind, lambda host: host.domain)
    else:
        yield _join(kind, lambda host: host.leaf)
        yield _join(kind, lambda host: 0)


def _join(kind: Sequence[Host], key: Callable[[Host], int]) -> list[_Joined]:
    parts: dict[int, list[Host]] = {}
    for host in kind:
        if len(host.free) == host.gpus:
            parts.setdefault(key(host), []).append(host)
    joined = []
    for number, part in enumerate(parts.values()):
        gpus = len(part) * part[0].gpus
        joined.append(_Joined(part[0]._replace(number=number, gpus=gpus, free=tuple(range(gpus))), part))
    return joined


def _clause(wanted: Wanted, kind: Sequence[Host], place: str) -> str:
    first = kind[0]
    one = len(kind) == 1
    name = f"{len(kind)} host{'' if one else 's'} {first.node}{place}"
    if first.gpu != wanted.gpu:
        return f"{name} {'has' if one else 'have'} {first.gpu}, not {wanted.gpu}"
    if wanted.node and first.node != wanted.node:
        return f"{name} {'is' if one else 'are'} not {wanted.node}"
    if wanted.region and first.region != wanted.region:
        return f"{name} {'is' if one else 'are'} not in {wanted.region}"
    free, room = [len(host.free) for host in kind], rooms(wanted, kind)
    each = f"{name} {'has' if one else 'have'} {first.gpus} GPU{'' if first.gpus == 1 else 's'}{'' if one else ' each'}"
    if wanted.size > first.gpus:
        need = -(-wanted.size // first.gpus)
        *nearer, widest = _joined(wanted, kind)
        within = "" if nearer else f", at most {max((len(joined.parts) for joined in widest), default=0)} in one NVLink domain"
        return (
            f"{each}, {free.count(first.gpus)} of them wholly free{within}: room for {room} of "
            f"{wanted.groups} group{'' if wanted.groups == 1 else 's'} of {wanted.size} GPUs, {need} whole hosts each"
        )
    if max(free) < wanted.size:
        return f"{each}, at most {max(free)} free together; {wanted.size} wanted"
    return f"{each}, {sum(free)} free in all: room for {room} of {wanted.groups} groups of {wanted.size}"
