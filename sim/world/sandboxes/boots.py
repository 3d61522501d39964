"""How a sandbox comes up once it has a place: its image is pulled unless it is there, the node's daemon takes it up, and it boots.

Pulls of a node share its bandwidth, or are flows of the cluster's network; sandboxes that want an image on its way wait for the one pull.
The daemon boots so many at a time, in order. A synchronous start of many is therefore slow three times over: one pull of each image and
node, the bandwidth shared, and a queue at each daemon. Luck belongs to the sandbox's number in its pool.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sim.core.rng import Luck, mix
from sim.physics.topology import Path
from sim.world.network import Cargo
from sim.world.sandboxes.lease import BOOTING, PULLING, QUEUED, Lease
from sim.world.sandboxes.node import Node
from sim.world.sandboxes.sharing import Sharing, ring

if TYPE_CHECKING:
    from sim.world.sandboxes.pool import Pool


class Boots:
    """Those of one pool."""

    def __init__(self, pool: Pool):
        self._pool, self._spec = pool, pool.spec
        self._most = pool.spec.boot_concurrency
        self._pulls: dict[int, Sharing] = {}

    def begin(self, lease: Lease) -> None:
        """A sandbox has its place."""
        pool, node = self._pool, lease.node
        assert node is not None
        if self._spec.boot_timeout is not None:
            ring(pool.env, pool.env._now + self._spec.boot_timeout, self._late, lease)
        waiting = node.images.pulls.get(lease.image)
        if waiting is not None:
            lease.hit = False
            lease.turn(PULLING)
            waiting.append(lease)
        elif not lease.hit:
            lease.turn(PULLING)
            node.images.pulls[lease.image] = [lease]
            self._pull(node, lease.image)
        else:
            self._queue(lease)

    def _pull(self, node: Node, image: int) -> None:
        pool, size = self._pool, node.images.sizes[image]
        if pool.network is not None:
            cargo = Cargo("image", self._spec.images.store or "", f"{self._spec.name} {node.number}", size)  # type: ignore[union-attr]
            pool.network.send(cargo, self._way(node), lambda: self._came((node, image)))
            return
        if node.number not in self._pulls:
            self._pulls[node.number] = Sharing(pool.env, self._spec.images.bandwidth, math.inf, self._came)  # type: ignore[union-attr]
        self._pulls[node.number].add((node, image), size, 1.0)

    def _way(self, node: Node) -> Path:
        return self._pool.ways[node.place]

    def _came(self, pull: tuple[Node, int]) -> None:
        node, image = pull
        for lease in node.images.came(image):
            if lease.state == PULLING:
                self._queue(lease)

    def _queue(self, lease: Lease) -> None:
        node = lease.node
        assert node is not None
        if node.booting < self._most:
            self._boot(lease)
        else:
            lease.turn(QUEUED)
            node.boots.append(lease)

    def _boot(self, lease: Lease) -> None:
        node, spec, env = lease.node, self._spec, self._pool.env
        assert node is not None
        node.booting += 1
        lease.turn(BOOTING)
        luck = Luck(mix(self._pool.key, lease.number))
        seconds = spec.boot.at(luck.next())
        lease.doomed = luck.next() < spec.fail
        if not lease.doomed or spec.boot_timeout is None:
            ring(env, env._now + seconds, self._over, lease)

    def _over(self, lease: Lease) -> None:
        if lease.state != BOOTING or (lease.doomed and self._idle(lease)):
            return
        if lease.doomed:
            self._pool.end(lease, "boot_failed")
            return
        node = lease.node
        assert node is not None
        self._pool.booted(lease)
        self.left(node)

    def _late(self, lease: Lease) -> None:
        if lease.state in (PULLING, QUEUED, BOOTING) and not self._idle(lease):
            self._pool.end(lease, "boot_failed" if lease.doomed else "timeout")

    def _idle(self, lease: Lease) -> bool:
        """Whether it is for nobody any more: the run is over, and what is made for later goes on without an end."""
        return not lease.workload and self._pool.place.over()

    def left(self, node: Node) -> None:
        """The daemon has done with one: it takes up the next."""
        node.booting -= 1
        while node.boots and node.booting < self._most:
            lease = node.boots.popleft()
            if lease.state == QUEUED:
                self._boot(lease)
