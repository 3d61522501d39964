"""The network as a graph: hosts, switches and stores, the links between them, and the way of a flow from one place to another.

Everything that moves takes a `Path`: the links it crosses and which share of its bytes crosses each. A share below 1 is how a flow spreads
over rails or spines that are alike (a replica on eight GPUs sends an eighth of its bytes over each network card); above 1 it crosses a link
more than once. Links are one way: a cable is two of them. Bytes, bytes/s, seconds.
"""
from __future__ import annotations

from typing import NamedTuple


class Link(NamedTuple):
    """One way of a cable, a bus or a switch port. `kind`: nvlink, pcie, memory, nic, leaf, spine, wan, store."""

    name: str
    kind: str
    capacity: float
    latency: float


class Path(NamedTuple):
    """`links` (numbers, each once) and for each the share of the flow's bytes that crosses it; `latency` before the first byte is in."""

    links: tuple[int, ...]
    shares: tuple[float, ...]
    latency: float


class Gpus(NamedTuple):
    """The memory of some GPUs: (number of a host, number of a GPU in it), as a placer gave them."""

    slots: tuple[tuple[int, int], ...]


class Memory(NamedTuple):
    """The main memory of some hosts, by number."""

    hosts: tuple[int, ...]


class Store(NamedTuple):
    """A store of the network (weights, images, checkpoints), by name."""

    name: str


Place = Gpus | Memory | Store
