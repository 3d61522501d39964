"""All pools of sandboxes of a run: who asks for one names a pool.

Where images come from a store of the cluster's network, each CPU node has a port at the core of the store's region, as wide as
`images.bandwidth`: so pulls share the store with all else that moves, and a node's pulls its port.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simpy import Environment

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.record import Table
from sim.physics.topology import Link, Path, Topology
from sim.spec.sandboxes import SandboxPool
from sim.world.network import Network
from sim.world.sandboxes.lease import Ask
from sim.world.sandboxes.pool import Place, Pool
from sim.world.sandboxes.scaler import NodeScaler


def ports(pools: Sequence[SandboxPool]) -> list[Link]:
    """The links of CPU nodes that pull their images over the network."""
    found = []
    for pool in pools:
        if pool.images is not None and pool.images.store is not None:
            most = pool.nodes if pool.nodes is not None else pool.autoscale.max if pool.autoscale is not None else 0
            found += [Link(f"{pool.name} node {number}", "nic", pool.images.bandwidth, 0.0) for number in range(most)]
    return found


class Sandboxes:
    """The pools of `specs`, by name. `site` is (network, topology), where there is one; `over`: nothing more will be asked for."""

    def __init__(self, env: Environment, specs: Sequence[SandboxPool], seed: int, tables: dict[str, Table], over: Callable[[], bool]):
        self._env, self._specs, self._seed, self._tables, self._over = env, specs, seed, tables, over
        self.pools: dict[str, Pool] = {}

    def open(self, site: tuple[Network, Topology] | None, workloads: Sequence[str]) -> None:
        """Make the pools and their first nodes. Raises BadInput for quotas of workloads there are not."""
        problems = [
            Problem(f"no workload is named '{name}'; {did_you_mean(name, workloads)}", f"cluster.sandboxes.{number}.quota.{name}")
            for number, spec in enumerate(self._specs) for name in spec.quota if name not in workloads
        ]  # fmt: skip
        if problems:
            raise BadInput(problems)
        first = len(site[1].links) if site is not None else 0
        for spec in self._specs:
            place = Place(self._env, self._seed, self._tables["sandboxes"], self._over)
            links = len(ports([spec]))
            if site is not None and links:
                place = place._replace(network=site[0], ways=_ways(site[1], spec, range(first, first + links)))
                first += links
            pool = self.pools[spec.name] = Pool(spec, place)
            pool.begin()

    def start(self) -> None:
        """Set the autoscalers going, once the workloads are."""
        for pool in self.pools.values():
            pool.feed()
            if pool.spec.autoscale is not None:
                self._env.process(NodeScaler(pool, pool.spec.autoscale, self._over).live())

    def ask(self, pool: str, image: int, who: tuple[int, str]) -> Ask:
        """A sandbox for workload (number, name) `who`. Raises BadInput when there is no such pool."""
        found = self.pools.get(pool)
        if found is None:
            near = did_you_mean(pool, self.pools) if self.pools else "cluster.sandboxes has none"
            raise BadInput([Problem(f"no pool of sandboxes is named '{pool}'; {near}", f"workloads.{who[0]}")])
        return found.ask(who[1], image)

    @property
    def last(self) -> float:
        """When a sandbox last ended, or something happened to one that a workload has, s."""
        return max((pool.last for pool in self.pools.values()), default=0.0)

    def close(self, end: float) -> None:
        """The clock has stopped: record what is open."""
        for pool in self.pools.values():
            pool.close(end)
            pool.nodes.close(end, self._tables["sandbox_nodes"])

    def facts(self) -> list[dict[str, Any]]:
        """Of each pool, what is to be checked against its tables."""
        return [{"name": pool.spec.name, "asked": pool.asked, "slots": pool.spec.slots} for pool in self.pools.values()]


def _ways(topology: Topology, spec: SandboxPool, links: range) -> list[Path]:
    assert spec.images is not None
    out = topology.cabling.stores[spec.images.store or ""]
    latency = topology.links[out].latency + topology.network.fabric.switch_latency
    return [Path((out, link), (1.0, 1.0), latency) for link in links]
