"""The network as a graph: hosts, switches and stores, the links between them, and the way of a flow from one place to another.

Everything that moves takes a `Path`: the links it crosses and which share of its bytes crosses each. A share below 1 is how a flow spreads
over rails or spines that are alike (a replica on eight GPUs sends an eighth of its bytes over each network card); above 1 it crosses a link
more than once. Links are one way: a cable is two of them. Bytes, bytes/s, seconds.

A GPU has an NVLink port into the switch of its domain, which blocks nothing, and a PCIe port to its host, which network traffic crosses too
(GPUDirect RDMA). A host has its main memory, one bus for reads and writes together, and its network cards: GPU g of n uses card
g * cards // n. Up-links of a leaf switch are one link each way, as if traffic spread over them evenly: adaptive routing comes close,
hashing by flow does worse. The spine blocks nothing; stores and wans hang at it. GPUs on different rails meet at the spine, where NCCL's
PXN would first go over NVLink. Such are leaf-spine (folded Clos) networks (Al-Fares et al., SIGCOMM 2008) and the rails of NVIDIA's DGX
SuperPOD reference architecture (2023).
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.core.errors import BadInput, did_you_mean
from sim.physics.cabling import Cabling, Host, Link
from sim.physics.wans import Wans
from sim.spec.network import Network

__all__ = ["Gpus", "Host", "Link", "Memory", "Path", "Place", "Store", "Topology", "build", "label"]

MOST = 200_000  # paths remembered; beyond, they are worked out anew


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
End = tuple[int, int]  # host and GPU; GPU -1: the host's memory, host -1: a store


def build(network: Network) -> Topology:
    """The graph of what the user wrote. Raises BadInput for a GPU or a node that is not there."""
    return Topology(network)


class Topology:
    """`links`, the ways over them, and `hosts`, whose numbers are their places in the list.

    Of several GPUs or hosts each holds, or takes, an equal piece, in their order. Only between GPUs and the memory of the very hosts they
    are in, each GPU deals with its own host.
    """

    def __init__(self, network: Network):
        self.network = network
        self.cabling = Cabling(network)
        self.links: tuple[Link, ...] = tuple(self.cabling.links)
        self.hosts: tuple[Host, ...] = tuple(self.cabling.hosts)
        self._wans = Wans(network, self.cabling.wans)
        self._paths: dict[tuple[Place, Place], Path] = {}

    def path(self, source: Place, target: Place) -> Path:
        """The links that bytes take from one place to another. Raises BadInput when there is no route, or no such store."""
        key = source, target
        known = self._paths.get(key)
        if known is None:
            if len(self._paths) >= MOST:
                self._paths.clear()
            known = self._paths[key] = self._path(source, target)
        return known

    def collective(self, gpus: Gpus) -> tuple[int, ...]:
        """The links, ascending, that collectives between these GPUs keep busy: NVLink ports in one domain, PCIe ports in one host, else
        network cards too, and the links between leaf switches where the GPUs are below several. Collectives stay on their rails.
        """
        cabling, slots, found = self.cabling, gpus.slots, set[int]()
        domains = [cabling.domain(*slot) for slot in slots]
        for slot, domain in zip(slots, domains, strict=True):
            if domain >= 0 and domains.count(domain) > 1:
                found |= {cabling.nvlink(*slot, False), cabling.nvlink(*slot, True)}
        if len(slots) > 1 and (domains[0] < 0 or len(set(domains)) > 1):
            found |= {cabling.pcie(*slot, into) for slot in slots for into in (False, True)}
            found.update(self._between(gpus))
        return tuple(sorted(found))

    def wan_latency(self, a: str, b: str) -> float:
        """Seconds one way between two regions, over the quickest wans; 0 within one. Raises BadInput when nothing connects them."""
        return self._wans.latency(a, b)

    # -- parts --------------------------------------------------------------
    def _between(self, gpus: Gpus) -> Iterator[int]:
        """Network cards and links above leaf switches that these GPUs use among themselves."""
        cabling = self.cabling
        if len({host for host, _ in gpus.slots}) == 1:
            return
        several = len({self.hosts[host].leaf for host, _ in gpus.slots}) > 1
        for host, gpu in gpus.slots:
            card = cabling.card(host, gpu)
            trunk = cabling.leafs[cabling.leaf(host, card)].trunk
            yield from (cabling.nic(host, card, False), cabling.nic(host, card, True))
            if several and trunk >= 0:
                yield from (trunk, trunk + 1)

    def _path(self, source: Place, target: Place) -> Path:
        shares: dict[int, float] = {}
        latency = 0.0
        links = self.links
        for share, a, b in self._pairs(source, target) if source != target else ():
            for part, way in self._ways(a, b, source, target):
                for link in way:
                    shares[link] = shares.get(link, 0.0) + share * part
                latency = max(latency, sum([links[link].latency for link in way]) + self._switch(way))
        return Path(tuple(shares), tuple(shares.values()), latency)

    def _pairs(self, source: Place, target: Place) -> Iterator[tuple[float, End, End]]:
        """Which piece of the bytes goes from which GPU or host to which."""
        if isinstance(source, Gpus) and isinstance(target, Memory) and {host for host, _ in source.slots} == set(target.hosts):
            yield from ((1.0 / len(source.slots), slot, (slot[0], -1)) for slot in source.slots)
        elif isinstance(source, Memory) and isinstance(target, Gpus) and {host for host, _ in target.slots} == set(source.hosts):
            yield from ((1.0 / len(target.slots), (slot[0], -1), slot) for slot in target.slots)
        else:
            a, b = _ends(source), _ends(target)
            yield from ((share, a[i], b[j]) for share, i, j in _laid(len(a), len(b)))

    def _ways(self, a: End, b: End, source: Place, target: Place) -> Iterator[tuple[float, list[int]]]:
        """The ways between two ends that share no cards, and the piece of the bytes that takes each."""
        cabling = self.cabling
        if a == b and a[0] >= 0:
            return
        if a[1] >= 0 and b[1] >= 0 and cabling.domain(*a) == cabling.domain(*b) >= 0:
            yield 1.0, [cabling.nvlink(*a, False), cabling.nvlink(*b, True)]
        elif a[0] == b[0] >= 0:
            yield 1.0, [*self._port(a, source, False), *self._port(b, target, True)]
        else:
            out, into = self._port(a, source, False), self._port(b, target, True)
            middle = self._middle(a, b, source, target)
            for part, first, last in self._cards(a, b):
                up, down = self._leaf(a[0], first), self._leaf(b[0], last)
                way = [*out, *([cabling.nic(a[0], first, False)] if first >= 0 else [])]
                if up != down or up < 0:
                    way += [*self._trunk(up, 0), *middle, *self._trunk(down, 1)]
                yield part, [*way, *([cabling.nic(b[0], last, True)] if last >= 0 else []), *into]

    def _port(self, end: End, place: Place, into: bool) -> list[int]:
        """The links between an end and its network card, or its host; of a store, to the core."""
        if isinstance(place, Store):
            if place.name not in self.cabling.stores:
                raise BadInput(f"no store '{place.name}' in the network; {did_you_mean(place.name, self.cabling.stores)}")
            return [self.cabling.stores[place.name] + into]
        link = self.cabling.pcie(*end, into) if end[1] >= 0 else self.cabling.memory(end[0])
        return [link] if link >= 0 else []

    def _cards(self, a: End, b: End) -> list[tuple[float, int, int]]:
        """Pieces with the card they leave by and the card they arrive at; -1 at a store. Memory uses all cards of its host, but towards a
        GPU the one on that GPU's rail.
        """
        mine, theirs = self._choice(a), self._choice(b)
        if not mine or not theirs:
            cards = mine or theirs or [-1]
            return [(1.0 / len(cards), card if mine else -1, card if theirs else -1) for card in cards]
        if len(mine) == 1 or len(theirs) == 1:
            first = mine[0] if len(mine) == 1 else theirs[0] * len(mine) // self.cabling.boxes[b[0]].cards
            last = theirs[0] if len(theirs) == 1 else mine[0] * len(theirs) // self.cabling.boxes[a[0]].cards
            return [(1.0, first, last)]
        return [(part, mine[i], theirs[j]) for part, i, j in _laid(len(mine), len(theirs))]

    def _choice(self, end: End) -> list[int]:
        host, gpu = end
        if host < 0:
            return []
        box = self.cabling.boxes[host]
        if not box.cards:
            raise BadInput(f"no route from or to host {host}: node {box.node.name} has no network cards")
        return [self.cabling.card(host, gpu)] if gpu >= 0 else list(range(box.cards))

    def _leaf(self, host: int, card: int) -> int:
        return self.cabling.leaf(host, card) if host >= 0 else -1

    def _trunk(self, leaf: int, down: int) -> list[int]:
        trunk = self.cabling.leafs[leaf].trunk if leaf >= 0 else -1
        return [trunk + down] if trunk >= 0 else []

    def _middle(self, a: End, b: End, source: Place, target: Place) -> list[int]:
        """The wans between the regions of two ends."""
        return self._wans.route(self._home(a, source), self._home(b, target))

    def _home(self, end: End, place: Place) -> str:
        return self.cabling.homes[place.name] if isinstance(place, Store) else self.hosts[end[0]].region

    def _switch(self, way: list[int]) -> float:
        """Seconds in the switch of the source's leaf, or a store's core; links above a leaf count the one they lead to."""
        return self.network.fabric.switch_latency if any(self.links[link].kind in ("nic", "store") for link in way) else 0.0


def label(place: Place) -> str:
    """A place as the table of flows calls it.

    >>> label(Gpus(((3, 0), (3, 1)))), label(Memory((3, 4))), label(Store("weights"))
    ('host 3', 'hosts 3-4', 'weights')
    """
    if isinstance(place, Store):
        return place.name
    hosts = place.hosts if isinstance(place, Memory) else tuple(dict.fromkeys(host for host, _ in place.slots))
    return f"host {hosts[0]}" if len(hosts) == 1 else f"hosts {hosts[0]}-{hosts[-1]}"


def _ends(place: Place) -> list[End]:
    if isinstance(place, Gpus):
        return list(place.slots)
    return [(host, -1) for host in place.hosts] if isinstance(place, Memory) else [(-1, -1)]


def _laid(n: int, m: int) -> list[tuple[float, int, int]]:
    """How `n` equal pieces of a row fall on `m` equal pieces of it: the share of the row that a piece of each has in common.

    >>> _laid(1, 2), _laid(2, 2)
    ([(0.5, 0, 0), (0.5, 0, 1)], [(0.5, 0, 0), (0.5, 1, 1)])
    """
    if n == m:
        return [(1.0 / n, i, i) for i in range(n)]
    found, i, j = [], 0, 0
    while i < n and j < m:
        low, high = max(i * m, j * n), min((i + 1) * m, (j + 1) * n)
        found.append(((high - low) / (n * m), i, j))
        i, j = i + (high == (i + 1) * m), j + (high == (j + 1) * n)
    return found
