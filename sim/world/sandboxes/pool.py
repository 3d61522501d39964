"""One pool of sandboxes: who waits for a place, where the next one goes, what is kept warm, and how each ends.

Sandboxes are placed in the order in which they were asked for. One that is kept warm and has the image is handed over at once; those that
nobody has taken yet give way when room is short. A workload beyond its quota, and who comes when too many wait, is refused.
"""
from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from simpy import Environment

from sim.core.record import Table
from sim.core.rng import Luck, mix
from sim.physics.topology import Path
from sim.spec.sandboxes import SandboxPool
from sim.world.network import Network
from sim.world.sandboxes.boots import Boots
from sim.world.sandboxes.commands import Commands
from sim.world.sandboxes.lease import (
    BOOTING,
    GONE,
    HERE,
    IDLE,
    PAUSED,
    PAUSING,
    WAITING,
    Ask,
    Lease,
    Refusal,
)
from sim.world.sandboxes.node import Node
from sim.world.sandboxes.nodes import Nodes
from sim.world.sandboxes.pauses import Pauses
from sim.world.sandboxes.rooms import Rooms
from sim.world.sandboxes.sharing import ring
from sim.world.timer import GRID

REFUSED = ("boot_failed", "timeout")
LOST = ("crashed", "idle")


class Place(NamedTuple):
    """What a pool stands on: the run's clock, seed and table of sandboxes; `over`: whether nothing more will be asked for; the network and
    the way of an image to each port, where images come over it.
    """

    env: Environment
    seed: int
    record: Table
    over: Callable[[], bool]
    network: Network | None = None
    ways: Sequence[Path] = ()


class Pool:
    """`waiting` counts those without a place, `asked`, `granted` and `ended` all there ever were, `waits` is the sum of waits for those
    granted, s; `held` counts sandboxes by workload, and `last` is when one last ended, or something happened to one that a workload has.
    """

    def __init__(self, spec: SandboxPool, place: Place):
        self.spec, self.env, self.place = spec, place.env, place
        self.network, self.ways = place.network, place.ways
        self.key = spec.key(place.seed)
        self.sizes = spec.images.sizes(self.key) if spec.images is not None else None
        self.rooms = Rooms(spec.place)
        self.commands, self.boots, self.pauses = Commands(self), Boots(self), Pauses(self)
        self.nodes = Nodes(self)
        self.queue: deque[Lease] = deque()
        self.held: Counter[str] = Counter()
        self.waiting = self.asked = self.granted = self.ended = self._count = 0
        self.waits = self.last = 0.0
        self._open: dict[int, Lease] = {}
        self._spare: dict[int, OrderedDict[int, Lease]] = {}
        self._ready: OrderedDict[int, Lease] = OrderedDict()
        self._lacking: deque[int] = deque()
        self._luck = Luck(mix(self.key, 5))
        self._yielding = False
        self._code = place.record.label("pool", spec.name)

    # -- the beginning ------------------------------------------------------------
    def begin(self) -> None:
        """The nodes of the beginning, and the warm sandboxes, which are ready."""
        self.nodes.begin()
        images, warm = self.spec.images, self.spec.warm
        for number in range(warm):
            image = images.at((number + 0.5) / warm) if images is not None else 0
            lease = self._new(image, "")
            if not self._seat(lease):
                self._forget(lease)
                self._lacking.append(image)
                continue
            lease.hit = True
            self.booted(lease)

    def draw(self) -> float:
        """A number in [0, 1) for what happens in the order in which it happens."""
        return self._luck.next()

    # -- asking ------------------------------------------------------------
    def ask(self, workload: str, wanted: int) -> Ask:
        """A sandbox with the image that this number means."""
        spec, ask = self.spec, Ask(self.env)
        image = spec.images.number(self.key, wanted) if spec.images is not None else 0
        self.asked += 1
        if self.held[workload] >= spec.quota.get(workload, math.inf):
            return self._refuse(ask, self._new(image, workload), "quota")
        spare = self._spare.get(image)
        if spare:
            _, lease = spare.popitem(last=False)
            del self._ready[lease.number]
            self._lacking.append(image)
            lease.workload, lease.asked = workload, self.env._now
            self.held[workload] += 1
            self._grant(lease, ask)
            self._refill()
            return ask
        lease = self._new(image, workload)
        self.held[workload] += 1
        lease.ask, ask.lease = ask, lease
        self.waiting += 1
        if not self.queue and self._start(lease):
            return ask
        if spec.max_queue is not None and self.waiting > spec.max_queue:
            self.waiting -= 1
            self.held[workload] -= 1
            return self._refuse(ask, lease, "full")
        self.queue.append(lease)
        return ask

    def _refuse(self, ask: Ask, lease: Lease, reason: str) -> Ask:
        lease.state, lease.ended = GONE, self.env._now
        self._write(lease, reason)
        ask.succeed(Refusal(reason))
        return ask

    def _new(self, image: int, workload: str) -> Lease:
        lease = Lease(self, self._count, image, workload)
        self._open[self._count] = lease
        self._count += 1
        return lease

    def _forget(self, lease: Lease) -> None:
        del self._open[lease.number]
        self._count -= 1

    # -- places ------------------------------------------------------------
    def _start(self, lease: Lease) -> bool:
        """Place one that waits; warm ones that nobody has taken give way."""
        while not self._seat(lease):
            if not self._ready:
                return False
            _, oldest = next(iter(self._ready.items()))
            self._yielding = True  # what it leaves is not for others
            self.end(oldest, "warm")
        self.waiting -= 1
        self.boots.begin(lease)
        return True

    def _seat(self, lease: Lease) -> bool:
        """Find a place and take it; False, and nothing changed, when there is none."""
        image, base = lease.image, self.spec.memory.base
        if self.sizes is None:
            node = self.rooms.pick(image, lambda node: not node.resumes and node.fits(base))
        else:
            size = self.sizes[image]
            node = self.rooms.pick(image, lambda node: not node.resumes and node.fits(base) and node.images.fits(image, size))
        if node is None:
            return False
        node.take(lease)
        lease.node, lease.placed = node, self.env._now
        if self.sizes is not None:
            lease.hit, gone = node.images.pin(image, self.sizes[image])
            for old in gone:
                self.rooms.lost(node, old)
            self.rooms.got(node, image)
        self.rooms.changed(node)
        return True

    def freed(self, node: Node) -> None:
        """Something of a node is free again."""
        if node.resumes:
            self.pauses.feed(node)
        self.rooms.changed(node)
        self.feed()

    def feed(self) -> None:
        """Place who waits, in order."""
        queue = self.queue
        while queue:
            if queue[0].state == WAITING and not self._start(queue[0]):
                return
            queue.popleft()
        self._refill()

    def _refill(self) -> None:
        lacking = self._lacking
        while lacking and not self.queue and not self.place.over():
            lease = self._new(lacking[0], "")
            if not self._seat(lease):
                self._forget(lease)
                return
            lacking.popleft()
            self.boots.begin(lease)

    # -- a life ------------------------------------------------------------
    def booted(self, lease: Lease) -> None:
        """One is ready."""
        lease.booted = self.env._now
        lease.turn(IDLE)
        if self.spec.crash:
            self._risk(lease)
        if lease.ask is not None:
            self._grant(lease, lease.ask)
            return
        first = next((one for one in self.queue if one.state == WAITING), None) if self.queue else None
        if first is not None and first.image == lease.image and first.ask is not None:
            self._swap(lease, first)
            self._lacking.append(lease.image)
            self._grant(lease, first.ask)
            return
        self._spare.setdefault(lease.image, OrderedDict())[lease.number] = lease
        self._ready[lease.number] = lease

    def _swap(self, lease: Lease, first: Lease) -> None:
        """A warm one takes the part of one that waits, of which nothing is written down."""
        lease.workload, lease.asked = first.workload, first.asked
        first.turn(GONE)
        self.waiting -= 1
        del self._open[first.number]

    def _grant(self, lease: Lease, ask: Ask) -> None:
        now = self.env._now
        # The event holds the lease from now on: nothing is left that only the collector of garbage could take apart.
        lease.ask = ask.lease = None
        lease.granted = lease.since = now
        self.granted += 1
        self.waits += now - lease.asked
        self.watch(lease)
        ask.succeed(lease)

    def _risk(self, lease: Lease) -> None:
        """Crashes of a sandbox are a Poisson process, so that time can be drawn anew at any moment."""
        gap = -math.log1p(-self.draw()) * 3600.0 / self.spec.crash
        ring(self.env, self.env._now + gap, self._crash, lease)

    def _crash(self, lease: Lease) -> None:
        if lease.state in PAUSING:
            self._risk(lease)
        elif lease.state != GONE and not self.place.over():
            self.end(lease, "crashed")

    def watch(self, lease: Lease) -> None:
        """Look after the idle time-out whether it has been used."""
        if self.spec.idle_timeout is not None and not lease.watched:
            lease.watched = True
            ring(self.env, self.env._now + self.spec.idle_timeout, self._look, lease)

    def _look(self, lease: Lease) -> None:
        lease.watched, limit = False, self.spec.idle_timeout
        if lease.state not in HERE or limit is None or self.place.over():
            return
        due = lease.since + limit if lease.state == IDLE else self.env._now + limit
        if due > self.env._now + GRID:
            lease.watched = True
            ring(self.env, due, self._look, lease)
        elif not self.pauses.pause(lease).triggered:
            return
        else:
            self.end(lease, "idle")

    # -- the end ------------------------------------------------------------
    def end(self, lease: Lease, outcome: str) -> None:
        """It ends, in whatever state it is."""
        # Those that wait for a slot first, or they would get those of the others.
        for command in sorted(lease.running, key=lambda command: command.slot == command.slot):
            self.commands.end(command, "crash")
        old, node, now = lease.state, lease.node, self.env._now
        lease.turn(GONE)
        lease.ended = now
        if old == WAITING:
            self.waiting -= 1
        self.pauses.lost(lease)
        if lease.workload:
            self.held[lease.workload] -= 1
            self.ended += 1
        elif lease.number in self._ready:
            del self._ready[lease.number], self._spare[lease.image][lease.number]
            self._lacking.append(lease.image)
        else:
            self._lacking.append(lease.image)
        if node is not None:
            node.give(lease, old == PAUSED, old in PAUSING)
            if self.sizes is not None:
                node.images.unpin(lease.image)
            if old == BOOTING:
                self.boots.left(node)
        self._write(lease, outcome)
        self._tell(lease, outcome)
        if node is None:
            self.feed()
            return
        self.nodes.emptied(node)
        if self._yielding:
            self._yielding = False
            self.rooms.changed(node)
        else:
            self.freed(node)

    def drop(self, node: Node) -> None:
        """A node is to go: sandboxes on it that nobody has taken end."""
        for lease in [lease for lease in node.leases.values() if lease.number in self._ready]:
            self.end(lease, "warm")

    def _tell(self, lease: Lease, outcome: str) -> None:
        ask = lease.ask
        if outcome in REFUSED and ask is not None and not ask.triggered:
            lease.ask = ask.lease = None
            ask.succeed(Refusal(outcome))
        if outcome in LOST and lease.granted == lease.granted:
            lease.lost.succeed(outcome)

    def close(self, end: float) -> None:
        """The clock has stopped: record those that are open. What came after `end` was only of those that nobody had, and never was."""
        for lease in list(self._open.values()):
            if not lease.workload:
                self._clip(lease, end)
                continue
            at = max(end, lease.since, lease.stored)
            for command in lease.running:
                if command.ticket and lease.node is not None:
                    lease.cpu += lease.node.cpu.remove(command.ticket) * command.cores
            lease.turn(GONE, at)
            lease.ended = at
            if lease.node is not None:
                lease.hold(0.0, at)
            self._write(lease, "unfinished")

    def _clip(self, lease: Lease, end: float) -> None:
        if lease.placed <= end:
            lease.booted = lease.booted if lease.booted <= end else math.nan
            lease.ended = end
            lease.hold(0.0, max(end, lease.stored))
            self._write(lease, "warm")

    def _write(self, lease: Lease, outcome: str) -> None:
        del self._open[lease.number]
        self.last = max(self.last, lease.ended)
        table = self.place.record
        table.append((
            lease.number, self._code, lease.node.number if lease.node is not None else -1, table.label("workload", lease.workload),
            lease.image, lease.asked, lease.placed, lease.booted, lease.granted, lease.ended, table.label("outcome", outcome),
            lease.hit, lease.warm, lease.execs, lease.killed, lease.busy, lease.idle, lease.paused, lease.slot, lease.cpu, lease.memory,
        ))  # fmt: skip
