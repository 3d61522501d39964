"""Every link of a network, and the number of each: ports of GPUs, memory of hosts, network cards, switches, stores and wans.

Hosts stand in the order they are written and fill leaf switches, and racks that are one NVLink domain, one after the other; hosts of
another node begin a new leaf. The links of a host have consecutive numbers, so that the number of a port is arithmetic and not a search.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.spec import hardware
from sim.spec.network import Hosts, Network


class Link(NamedTuple):
    """One way of a cable, a bus or a switch port. `kind`: nvlink, pcie, memory, nic, leaf, spine, wan, store."""

    name: str
    kind: str
    capacity: float
    latency: float


class Host(NamedTuple):
    """Where a host stands. `domain` numbers the (first) NVLink domain of its GPUs, `leaf` the leaf switch, or the pod of rails, above it.

    `gpu` and `node` are as written, the node its GPU's usual one by default; `gpus`: how many it has; `group`: what its hosts are called.
    """

    number: int
    gpu: str
    node: str
    region: str
    domain: int
    leaf: int
    gpus: int
    group: str


class Box(NamedTuple):
    """What hosts of a group have in common. `domain`: GPUs in one NVLink domain, 0 without NVLink; `card`: bytes/s of one network card."""

    gpu: hardware.Gpu
    node: hardware.Node
    domain: int
    card: float

    @property
    def stride(self) -> int:
        """Links of one GPU."""
        return 4 if self.domain else 2

    @property
    def cards(self) -> int:
        return self.node.nics if self.card else 0


def box(hosts: Hosts) -> Box:
    """Raises BadInput for a GPU or a node that is not there."""
    gpu = hardware.gpu(hosts.gpu)
    node = hardware.node(hosts.node or gpu.node)
    card = node.nic_bandwidth * node.gpus / node.nics if node.nics else 0.0
    return Box(gpu, node, node.domain if gpu.nvlink and node.domain > 1 else 0, card)


class Leaf(NamedTuple):
    """A leaf switch: its region, the number of its up-link (the down-link is the next; -1: a flat network has none), bytes/s below it."""

    region: str
    trunk: int
    below: float


class Cabling:
    """`links` and `hosts` by number, `leafs`, and the numbers of links. `into` is the way towards the GPU, the host or the leaf's hosts."""

    def __init__(self, network: Network):
        self.network = network
        self.links: list[Link] = []
        self.hosts: list[Host] = []
        self.leafs: list[Leaf] = []
        self.boxes: list[Box] = []  # of each host
        self._first: list[int] = []  # link of each host
        self._leaf: list[int] = []  # first leaf of each host
        self._domains = 0
        self._regions: dict[str, list[int]] = {}  # numbers of the hosts in each
        self._places: dict[str, int] = {}  # below leafs, taken or left empty in each region
        for group in network.hosts:
            self._stand(group)
        self._connect()
        self.stores = {store.name: self._both(f"store.{store.name}", "store", store.bandwidth, store.latency) for store in network.stores}
        self.homes = {store.name: store.region for store in network.stores}
        self.wans = [
            self._both(f"wan.{'-'.join(wan.between)}", "wan", wan.bandwidth, wan.latency) if wan.bandwidth else -1 for wan in network.wan
        ]

    # -- numbers ------------------------------------------------------------
    def nvlink(self, host: int, gpu: int, into: bool) -> int:
        """The port of a GPU that has NVLink."""
        return self._first[host] + gpu * 4 + into

    def pcie(self, host: int, gpu: int, into: bool) -> int:
        stride = self.boxes[host].stride
        return self._first[host] + (gpu + 1) * stride - 2 + into

    def nic(self, host: int, card: int, into: bool) -> int:
        box = self.boxes[host]
        return self._first[host] + box.node.gpus * box.stride + 2 * card + into

    def memory(self, host: int) -> int:
        """The bus of a host's main memory; -1 where its speed is not known, so that it limits nothing."""
        box = self.boxes[host]
        return self._first[host] + box.node.gpus * box.stride + 2 * box.cards if box.node.memory_bandwidth else -1

    def domain(self, host: int, gpu: int) -> int:
        """The NVLink domain of a GPU, -1 without one."""
        size = self.boxes[host].domain
        return self.hosts[host].domain + gpu // size if size else -1

    def card(self, host: int, gpu: int) -> int:
        """The network card that a GPU uses."""
        box = self.boxes[host]
        return gpu * box.cards // box.node.gpus

    def leaf(self, host: int, card: int) -> int:
        """The leaf switch that a card is plugged into, a place in `leafs`."""
        return self._leaf[host] + (card if self.network.fabric.kind == "rails" else 0)

    # -- parts --------------------------------------------------------------
    def _stand(self, group: Hosts) -> None:
        common = box(group)
        rack = common.domain // common.node.gpus  # hosts in one NVLink domain, 0 or 1 where it does not exceed a host
        each = common.node.gpus // common.domain if common.domain and not rack else 1  # domains in a host
        width = self.network.fabric.hosts_per_leaf
        name, node = group.name or group.gpu, group.node or common.gpu.node
        row = self._regions.setdefault(group.region, [])
        place = self._places.get(group.region, 0)
        if width and row and self.boxes[row[-1]].node != common.node:
            place = -(-place // width) * width
        self._places[group.region] = place + group.count
        for index in range(group.count):
            number, leaf = len(self.hosts), (place + index) // width if width else 0
            if rack <= 1 or index % rack == 0:
                self._domains += each
            row.append(number)
            domain = self._domains - each
            self.hosts.append(Host(number, group.gpu, node, group.region, domain, leaf, common.node.gpus, name))
            self.boxes.append(common)
            self._first.append(len(self.links))
            self._ports(number, common)

    def _ports(self, number: int, box: Box) -> None:
        add, latency = self.links.append, self.network.fabric.nic_latency
        for gpu in range(box.node.gpus):
            name = f"host{number}.gpu{gpu}"
            if box.domain:
                add(Link(f"{name}.nvlink.out", "nvlink", box.gpu.nvlink, 0.0))
                add(Link(f"{name}.nvlink.in", "nvlink", box.gpu.nvlink, 0.0))
            add(Link(f"{name}.pcie.out", "pcie", box.gpu.pcie, 0.0))
            add(Link(f"{name}.pcie.in", "pcie", box.gpu.pcie, 0.0))
        for card in range(box.cards):
            add(Link(f"host{number}.nic{card}.out", "nic", box.card, latency))
            add(Link(f"host{number}.nic{card}.in", "nic", box.card, latency))
        if box.node.memory_bandwidth:
            add(Link(f"host{number}.memory", "memory", box.node.memory_bandwidth, 0.0))

    def _connect(self) -> None:
        """The leaf switches, region after region; the leaf of each host becomes a number of the whole network."""
        self._leaf = [0] * len(self.hosts)
        pods = 0
        for region, row in self._regions.items():
            below: dict[int, list[int]] = {}
            for number in row:
                below.setdefault(self.hosts[number].leaf, []).append(number)
            for numbers in below.values():
                for number in numbers:
                    self._leaf[number] = len(self.leafs)
                    self.hosts[number] = self.hosts[number]._replace(leaf=pods)
                self._switches(region, pods, [self.boxes[number] for number in numbers])
                pods += 1

    def _switches(self, region: str, pod: int, boxes: list[Box]) -> None:
        """The leaf of some hosts, or the leafs of their rails."""
        fabric = self.network.fabric
        if fabric.kind == "rails":
            rails = range(max(max(box.cards for box in boxes), 1))
            below = {f"pod{pod}.rail{rail}": sum(box.card for box in boxes if rail < box.cards) for rail in rails}
        else:
            below = {f"leaf{pod}": sum(box.card * box.cards for box in boxes)}
        for name, speed in below.items():
            there = fabric.kind != "flat" and speed > 0
            trunk = self._both(name, "leaf", speed / fabric.oversubscription, fabric.switch_latency) if there else -1
            self.leafs.append(Leaf(region, trunk, speed))

    def _both(self, name: str, kind: str, capacity: float, latency: float) -> int:
        """The number of the first of two links, out (up) and in (down)."""
        ways = ("up", "down") if kind == "leaf" else ("there", "back") if kind == "wan" else ("out", "in")
        self.links += [Link(f"{name}.{way}", kind, capacity, latency) for way in ways]
        return len(self.links) - 2
