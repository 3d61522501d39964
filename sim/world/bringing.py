"""The stages in which a replica comes up, and how long each takes: drawn, computed from bytes, or as long as a shared network needs.

Luck belongs to (pool, number of the replica in its pool, stage), so that two what-ifs share it. Bytes are read in a stream: from a store
over the network through the host's memory into the GPUs, at the pace of the narrowest part.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sim.core.rng import Keyed
from sim.physics.topology import Gpus, Memory, Path, Place, Store, label
from sim.spec.scaling import NONE, ColdStart, Image, Spread, Weights
from sim.world.network import Cargo
from sim.world.replicas import Replicas, host_bandwidth
from sim.world.site import Site


class Stay(NamedTuple):
    """Where a replica comes up: its index, its number in the pool, and the host (of the network, else the number of its place)."""

    index: int
    number: int
    hosts: tuple[int, ...]


class Stage(NamedTuple):
    """A stage that is about to begin: it takes `seconds`, or as long as the flow that `send` starts; `bytes` come from `source`.

    `send(done)` returns the number of the flow. `keeps`: what the hosts have from then on.
    """

    name: str
    seconds: float
    bytes: float = 0.0
    source: str = ""
    send: Callable[[Callable[[], Any]], int] | None = None
    keeps: str = ""


class Bringing:
    """How replicas of one pool come up; `site` is None without a network."""

    def __init__(self, opened: Replicas, start: ColdStart, seed: int, site: Site | None):
        self._opened, self._start, self._site = opened, start, site
        pool = opened.pool
        self._luck = {stage: Keyed(seed, f"start.{pool.name}.{stage}") for stage in ("provision", "image", "weights", "init", "capture")}
        self._cached: set[tuple[str, int]] = site.cached if site is not None else set()
        self._image = f"image {start.image.store or ''} {start.image.size:g} {pool.engine.framework} {pool.engine.framework_version or ''}"
        self._weights = f"weights {opened.model.llm.name} {pool.precision!r}"

    def settle(self, hosts: tuple[int, ...]) -> None:
        """A replica is there from the beginning: its hosts have what one that came up would have left."""
        self._keep(self._image, hosts)
        if self._start.weights.cache == "host":
            self._keep(self._weights, hosts)

    def stages(self, stay: Stay) -> Iterator[Stage]:
        """The stages in order, each worked out when the one before it is over."""
        start = self._start
        if start.provision != NONE:
            yield Stage("provision", self._draw("provision", start.provision, stay))
        yield from self._kept(self._image_stage(start.image, stay), stay)
        yield from self._kept(self._weights_stage(start.weights, stay), stay)
        yield Stage("init", self._draw("init", start.init, stay))
        if self._opened.pool.engine.cuda_graph:
            yield Stage("capture", self._draw("capture", start.capture, stay))

    def _kept(self, stage: Stage, stay: Stay) -> Iterator[Stage]:
        yield stage
        if stage.keeps:
            self._keep(stage.keeps, stay.hosts)

    def _keep(self, what: str, hosts: tuple[int, ...]) -> None:
        # A node that came from the cloud goes back there, with all that it has.
        if self._start.provision == NONE:
            self._cached.update((what, host) for host in hosts)

    def _has(self, what: str, stay: Stay) -> bool:
        return all((what, host) in self._cached for host in stay.hosts)

    def _draw(self, stage: str, law: Spread, stay: Stay) -> float:
        return law.at(float(self._luck[stage].at(stay.number, 0, 1)[0]))

    def _image_stage(self, image: Image, stay: Stay) -> Stage:
        keeps = self._image if image.cache else ""
        if image.cache and self._has(self._image, stay):
            return Stage("image", 0.0, 0.0, "cache")
        if image.time is not None:
            return Stage("image", self._draw("image", image.time, stay), keeps=keeps)
        size, source = image.size * len(stay.hosts), image.store or ""
        if self._site is not None and image.store is not None:
            send = self._flow("image", Store(image.store), Memory(stay.hosts), (size, image.speed * len(stay.hosts)))
            return Stage("image", math.nan, size, source, send, keeps)
        return Stage("image", image.size / image.speed, size, source, None, keeps)

    def _weights_stage(self, weights: Weights, stay: Stay) -> Stage:
        if weights.cache == "host" and self._has(self._weights, stay):
            return self.over_host("weights", stay)
        size = self._opened.memory.weights * self._opened.pool.parallel.gpus
        gpus = Gpus(self._site.places[stay.index]) if self._site is not None else None
        keeps = self._weights if weights.cache == "host" else ""
        if weights.time is not None:
            return Stage("weights", self._draw("weights", weights.time, stay), size, keeps=keeps)
        if gpus is not None and weights.store is not None:
            send = self._flow("weights", Store(weights.store), gpus, (size, weights.speed))
            return Stage("weights", math.nan, size, weights.store, send, keeps)
        return Stage("weights", size / weights.speed, size, weights.store or "", None, keeps)

    def over_host(self, name: str, stay: Stay) -> Stage:
        """The weights come from the memory of the hosts, or go there in a stage named `offload`, each GPU over its own PCIe link."""
        pool = self._opened.pool
        size = self._opened.memory.weights * pool.parallel.gpus
        if self._site is None:
            return Stage(name, size / (host_bandwidth(pool) * pool.parallel.dp), size, "host" if name != "offload" else "")
        host, gpus = Memory(stay.hosts), Gpus(self._site.places[stay.index])
        if name == "offload":
            return Stage(name, math.nan, size, "", self._flow(name, gpus, host, (size, math.inf)))
        return Stage(name, math.nan, size, "host", self._flow(name, host, gpus, (size, math.inf)))

    def _flow(self, kind: str, source: Place, target: Place, load: tuple[float, float]) -> Callable[[Callable[[], Any]], int]:
        site, (size, limit) = self._site, load
        assert site is not None
        path: Path = site.topology.path(source, target)
        cargo = Cargo(kind, label(source), label(target), size, limit=limit)
        return lambda done: site.network.send(cargo, path, done)
