"""The ways of a replica's keys and values over the shared network: to other replicas, to its hosts' memory, to a store.

A request's keys and values are on the GPUs of one attention group of its replica; which one is not simulated, so requests take turns by
their numbers. Each way looks like a link of its own (`world/link.py`), but is one flow among all others.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from sim.core.request import Request
from sim.physics.topology import Gpus, Memory, Place, Store, label
from sim.spec.layout import Parallel
from sim.spec.scenario import Disaggregation
from sim.spec.tiers import KvTier
from sim.world.network import Cargo
from sim.world.site import Site


class Terms(NamedTuple):
    """How transfers go besides their path: at most `limit` bytes/s each, `latency` seconds before they begin, with what right of way."""

    limit: float = math.inf
    latency: float = 0.0
    weight: float = 1.0
    priority: int = 0


class Road:
    """One way, for one request."""

    def __init__(self, site: Site, ends: tuple[Place, Place], terms: Terms):
        self._network, self._ends, self._terms = site.network, ends, terms
        path = site.topology.path(*ends)
        self._path = path._replace(latency=path.latency + terms.latency) if terms.latency else path

    @property
    def bandwidth(self) -> float:
        """Bytes/s that a transfer would get at the least if it began now."""
        return min(self._network.fair(self._path, self._terms.priority), self._terms.limit)

    def send(self, size: float, done: Callable[[], None]) -> None:
        """Move `size` bytes, then call `done`."""
        self._network.send(self._cargo("kv", size), self._path, done)

    def catch_up(self, size: float) -> None:
        """Load the network with bytes that are there already, and that it has not carried yet."""
        self._network.send(self._cargo("kv_early", size), self._path, _nobody)

    def _cargo(self, kind: str, size: float) -> Cargo:
        (source, target), terms = self._ends, self._terms
        return Cargo(kind, label(source), label(target), size, terms.weight, terms.priority, terms.limit)


class Roads:
    """The ways of replica `index`. Those between replicas have the `terms` of the one that fetches."""

    def __init__(self, site: Site, index: int, parallel: Parallel, terms: Terms):
        self._site, self._index, self._terms = site, index, terms
        self._groups, self._size = parallel.dp, parallel.tp * parallel.pp

    def gpus(self, request: Request) -> Gpus:
        """The GPUs of the attention group that has a request."""
        first = request.id % self._groups * self._size
        return Gpus(self._site.places[self._index][first : first + self._size])

    def between(self, there: Roads, request: Request) -> Road:
        """From the replica that has it."""
        return Road(self._site, (there.gpus(request), self.gpus(request)), self._terms)

    def memory(self, request: Request, out: bool = False) -> Road:
        """From its hosts' memory, or out into it."""
        gpus = self.gpus(request)
        return self._road(gpus, Memory(tuple(dict.fromkeys(host for host, _ in gpus.slots))), out, Terms())

    def store(self, tier: KvTier, request: Request, out: bool) -> Road:
        """From the store of a tier, or out into it."""
        assert tier.store is not None
        return self._road(self.gpus(request), Store(tier.store), out, Terms(tier.bandwidth or math.inf, tier.latency))

    def _road(self, gpus: Gpus, other: Place, out: bool, terms: Terms) -> Road:
        return Road(self._site, (gpus, other) if out else (other, gpus), terms)


def handoff(way: Disaggregation, gpus: int) -> Terms:
    """The terms of keys and values that are handed on to a replica of so many GPUs that hold a part of them."""
    return Terms(way.bandwidth * gpus if way.bandwidth else math.inf, way.latency, way.weight, way.priority)


def _nobody() -> None:
    """Nobody waits for this transfer."""
