"""A CPU node: what of it is reserved and what is used, its images, its daemon and its slots for commands.

What is reserved counts sandboxes, which are all alike; what is used counts bytes. Memory is reserved for a sandbox that is not paused, and
used by its base and the bursts of its commands; disk is used by what it may write, and by its snapshot while it is paused.
"""
from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from simpy import Environment

from sim.spec.sandboxes import SandboxPool
from sim.world.sandboxes.lease import Command, Lease
from sim.world.sandboxes.sharing import Sharing

STARTING, READY, DRAINING, GONE = range(4)
FULL = 1.0 + 1e-9


class Node:
    """Node `number` of a pool. `active` and `kept` are its sandboxes that run and that are paused (`leases`: all of them, by number),
    `used` bytes of memory, `disk` bytes of storage; `start`, `ready` and `end` are times as in the table `sandbox_nodes`. `place` is its
    port of the network, `seen` what of its cores' work a scrape has seen, core-seconds. `feeding`: its slots are being given out right now.
    """

    __slots__ = (
        "active", "booting", "boots", "cpu", "disk", "end", "feeding", "images", "kept", "leases", "most", "number", "peak_disk",
        "peak_used", "place", "ready", "resumes", "seen", "slots", "spec", "start", "state", "used", "waiting",
    )  # fmt: skip

    def __init__(self, env: Environment, spec: SandboxPool, number: int, ended: Callable[[Any], None]):
        self.spec, self.number, self.place = spec, number, -1
        self.start = self.ready = self.end = math.nan
        self.state = STARTING
        over = spec.oversubscription
        most = spec.node.memory * over.memory / spec.reserved
        self.most = math.floor((min(most, spec.node.cores * over.cpu / spec.cores) if spec.cores else most) * FULL)
        self.active = self.kept = self.booting = self.slots = 0
        self.used = self.disk = self.peak_used = self.peak_disk = self.seen = 0.0
        self.feeding = False
        self.leases: dict[int, Lease] = {}
        self.boots: deque[Lease] = deque()
        self.waiting: deque[Command] = deque()
        self.resumes: deque[Lease] = deque()
        self.cpu = Sharing(env, spec.node.cores, 1.0, ended)
        self.images = Images(spec.node.disk * spec.images.cache if spec.images else math.inf)

    @property
    def room(self) -> int:
        """Sandboxes that there is room for, memory in use apart."""
        free = self.most - self.active
        if free > 0 and self.spec.disk:
            free = min(free, int((self.spec.storage * FULL - self.disk) / self.spec.disk))
        return free if free > 0 else 0

    def fits(self, size: float) -> bool:
        """Whether so many bytes of memory are free."""
        return self.used + size <= self.spec.node.memory * FULL

    def take(self, lease: Lease) -> None:
        """A sandbox is placed here."""
        self.leases[lease.number] = lease
        self.active += 1
        self.write(self.spec.disk)
        self.hold(lease, self.spec.memory.base)

    def give(self, lease: Lease, kept: bool, snapshot: bool) -> None:
        """A sandbox ends, which was paused (`kept`) or not, and has a snapshot or not."""
        del self.leases[lease.number]
        self.write(-self.spec.disk - (self.spec.memory.base if snapshot else 0.0))
        if kept:
            self.kept -= 1
        else:
            self.active -= 1
        self.hold(lease, 0.0)

    def hold(self, lease: Lease, size: float) -> None:
        """A sandbox takes so many bytes of memory from now on."""
        self.used += size - lease.held
        if not self.active:
            self.used = 0.0
        lease.hold(size)
        if self.used > self.peak_used:
            self.peak_used = self.used

    def write(self, size: float) -> None:
        """So many bytes more of storage are used."""
        self.disk += size
        if not self.leases:
            self.disk = 0.0
        if self.disk > self.peak_disk:
            self.peak_disk = self.disk


class Images:
    """The images of one node, `room` bytes of them. Those of sandboxes that are here stay; of the others the one unused longest goes first.

    `pulls` are sandboxes that wait for an image on its way.
    """

    __slots__ = ("_idle", "_pins", "bytes", "peak", "pinned", "pulled", "pulls", "room", "sizes")

    def __init__(self, room: float):
        self.room = room
        self.sizes: dict[int, float] = {}
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.pulls: dict[int, list[Lease]] = {}
        self.bytes = self.peak = self.pinned = self.pulled = 0.0

    def fits(self, image: int, size: float) -> bool:
        """Whether a sandbox of the image could be here: it is here, or there would be room if all were let go of that can be."""
        return image in self._pins or image in self._idle or self.pinned + size <= self.room * FULL

    def pin(self, image: int, size: float) -> tuple[bool, list[int]]:
        """A sandbox of the image is here from now on: whether the image was here (or on its way), and those let go of for it."""
        gone: list[int] = []
        if image in self._pins:
            self._pins[image] += 1
            return True, gone
        there = image in self._idle
        if there:
            del self._idle[image]
        else:
            while self.bytes + size > self.room * FULL:
                old, _ = self._idle.popitem(last=False)
                self.bytes -= self.sizes.pop(old)
                gone.append(old)
            self.sizes[image] = size
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self._pins[image] = 1
        self.pinned += size
        return there, gone

    def unpin(self, image: int) -> None:
        """A sandbox of the image has ended; an image on its way comes all the same."""
        self._pins[image] -= 1
        if not self._pins[image] and image not in self.pulls:
            self._rest(image)

    def came(self, image: int) -> list[Lease]:
        """An image is here; returns the sandboxes that waited for it."""
        waited = self.pulls.pop(image)
        self.pulled += self.sizes[image]
        if not self._pins[image]:
            self._rest(image)
        return waited

    def _rest(self, image: int) -> None:
        del self._pins[image]
        self._idle[image] = None
        self.pinned = self.pinned - self.sizes[image] if self._pins else 0.0
