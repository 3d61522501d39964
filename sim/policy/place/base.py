"""Where a replica lands: which GPUs of which hosts. A placer sees the hosts with their free GPUs and picks, or returns None.

A replica wants a number of GPUs in groups: those of a group (a tensor-parallel stage) share one NVLink domain where the placer heeds it.
Groups never split a host's GPUs and another host's unless they are larger than a host.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Slot = tuple[int, int]  # (number of a host, number of a GPU in it)


class Host(NamedTuple):
    """A host as a placer sees it. `domain` numbers the NVLink domain its GPUs are in (a rack may be one), `leaf` the switch above it.

    `free` are the numbers of its free GPUs, ascending, of `gpus` it has.
    """

    number: int
    gpu: str
    node: str
    region: str
    domain: int
    leaf: int
    gpus: int
    free: tuple[int, ...]


class Wanted(NamedTuple):
    """GPUs a replica needs: `groups` groups of `size`. An empty `node` or `region` takes any."""

    groups: int
    size: int
    gpu: str
    node: str = ""
    region: str = ""

    @property
    def gpus(self) -> int:
        return self.groups * self.size


class Placer(Protocol):
    def place(self, wanted: Wanted, hosts: Sequence[Host]) -> tuple[Slot, ...] | None:
        """The slots for a replica, all free and group after group, or None when it fits nowhere. `hosts` are in order of their number."""
