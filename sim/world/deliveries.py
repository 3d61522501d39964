"""What workloads have moved between pools and stores: weight syncs, checkpoints, copies. Each is a broadcast over the network.

Engines go on meanwhile; what they feel of it is that links are shared.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from simpy import Environment, Event

from sim.core.record import Table
from sim.core.transfer import Transfer
from sim.physics.topology import Gpus, Place, Store
from sim.world.broadcast import Broadcast
from sim.world.lifecycle import Lifecycle
from sim.world.site import Site
from sim.world.trainer import Trainer


class Deliveries:
    """Among the pools of `lifecycles`."""

    def __init__(self, env: Environment, site: Site, lifecycles: Sequence[Lifecycle], record: Table):
        self._env, self._site, self._record = env, site, record
        self.trainers: dict[str, Trainer] = {}
        self._pools = {lifecycle.pool.name: lifecycle for lifecycle in lifecycles}
        self._open: dict[int, tuple[str, float, Transfer, int]] = {}
        self._count = 0

    def begin(self, workload: str, order: Transfer) -> Event:
        """Do what a workload asks for; the event returned succeeds with the bytes that every receiver has then got. Replicas that are not
        ready now take no part, those that go meanwhile stay in it to the end, and where there is nobody to send or to receive nothing is
        moved.
        """
        if order.size is None:
            order = order._replace(size=self._weights(order))
        senders = self._places(order.source)[:1]
        receivers = [place for place in self._places(order.target) if place not in senders] if senders else []
        number, done = self._count, self._env.event()
        self._count += 1
        self._open[number] = workload, self._env.now, order, len(receivers)

        def complete() -> None:
            self._write(number, self._env.now)
            done.succeed(order.size if receivers else 0.0)

        if receivers:
            Broadcast((self._site.network, self._site.topology), [*senders, *receivers], order, complete).start()
        else:
            complete()
        return done

    def close(self) -> None:
        """The clock has stopped: record what is under way as cut off."""
        for number in list(self._open):
            self._write(number, math.nan)

    def _write(self, number: int, end: float) -> None:
        (workload, start, order, receivers), table = self._open.pop(number), self._record
        what, algorithm = table.label("what", order.what), table.label("algorithm", order.algorithm)
        table.append((table.label("workload", workload), what, start, end, order.size, receivers, algorithm))

    def _places(self, name: str) -> list[Place]:
        """A store, or the ready replicas of a pool."""
        if name in self.trainers:
            place = self.trainers[name].place
            return [] if place is None else [place]
        if name not in self._pools:
            return [Store(name)]
        return [Gpus(self._site.places[life.index]) for life in self._pools[name].ready]

    def _weights(self, order: Transfer) -> float:
        """Bytes of the model of the pool that receives, or of the one that sends."""
        name = order.target if order.target in self._pools else order.source
        if name in self.trainers:
            return self.trainers[name].model.weight_bytes()
        opened = self._pools[name].opened
        return opened.memory.weights * opened.pool.parallel.gpus
