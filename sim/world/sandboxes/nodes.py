"""The nodes of a pool of sandboxes, which may come and go: provisioned when more are wanted, gone when they have drained.

More are wanted: those that drain are taken back first. Fewer: those on their way are called off, the latest first; then the ready ones with
the fewest sandboxes drain, the latest of equals. A node is paid from when it is wanted; a new one has no images.
"""
from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from sim.core.record import Table
from sim.core.rng import Luck, mix
from sim.world.sandboxes.node import DRAINING, GONE, READY, STARTING, Node
from sim.world.sandboxes.sharing import ring

if TYPE_CHECKING:
    from sim.world.sandboxes.pool import Pool


class Nodes:
    """`all` there ever were; `ready`, `starting` and `draining` those in each state, by number."""

    def __init__(self, pool: Pool):
        self._pool = pool
        self.all: list[Node] = []
        self.ready: dict[int, Node] = {}
        self.starting: dict[int, Node] = {}
        self.draining: dict[int, Node] = {}
        self._ports: list[int] = []
        self._count = 0

    def begin(self) -> None:
        """The nodes of the beginning, which are ready."""
        spec = self._pool.spec
        for _ in range(spec.nodes if spec.nodes is not None else spec.autoscale.min if spec.autoscale is not None else 0):
            node = self._new()
            del self.starting[node.number]
            self._serve(node)

    def scale(self, wanted: int) -> None:
        """Have so many, those on their way included."""
        pool = self._pool
        assert pool.spec.autoscale is not None
        more = wanted - len(self.ready) - len(self.starting)
        for node in list(self.draining.values())[:max(more, 0)]:
            del self.draining[node.number]
            self._serve(node)
            more -= 1
        for _ in range(more):
            node = self._new()
            luck = Luck(mix(mix(pool.key, 7), node.number))
            ring(pool.env, pool.env._now + pool.spec.autoscale.provision.at(luck.next()), self._came, node)
        for node in list(reversed(self.starting.values())):
            if more < 0:
                del self.starting[node.number]
                self._end(node)
                more += 1
        if more < 0:
            for node in sorted(self.ready.values(), key=lambda node: (len(node.leases), -node.number))[:-more]:
                del self.ready[node.number]
                node.state = DRAINING
                self.draining[node.number] = node
                pool.drop(node)
                self.emptied(node)
        pool.feed()

    def emptied(self, node: Node) -> None:
        """A sandbox has left a node: it goes if it only waited for that."""
        if node.state == DRAINING and not node.leases:
            del self.draining[node.number]
            self._pool.rooms.gone(node)
            self._end(node)

    def _new(self) -> Node:
        pool = self._pool
        node = Node(pool.env, pool.spec, len(self.all), pool.commands.done)
        node.start = pool.env._now
        if not self._ports:
            self._ports.append(self._count)
            self._count += 1
        node.place = heappop(self._ports)
        self.all.append(node)
        self.starting[node.number] = node
        return node

    def _came(self, node: Node) -> None:
        if node.state == STARTING:
            del self.starting[node.number]
            self._serve(node)
            self._pool.feed()

    def _serve(self, node: Node) -> None:
        node.state = READY
        if node.ready != node.ready:
            node.ready = self._pool.env._now
        self.ready[node.number] = node
        self._pool.rooms.changed(node)

    def _end(self, node: Node) -> None:
        node.state, node.end = GONE, self._pool.env._now
        heappush(self._ports, node.place)

    def close(self, end: float, table: Table) -> None:
        """Rows of the table `sandbox_nodes` of a run that ended at `end`; what came after never was."""
        spec, pool = self._pool.spec, table.label("pool", self._pool.spec.name)
        for node in self.all:
            last = node.end if node.end <= end else end
            if node.start <= end:
                ready = node.ready if node.ready <= last else float("nan")
                table.append((pool, node.number, node.start, ready, last, spec.node.cores, spec.node.memory, spec.storage, node.peak_used,
                              node.peak_disk, node.images.peak, node.images.pulled, node.cpu.spent))  # fmt: skip
