"""What stands where: hosts with their GPUs, the network that connects them, and which GPUs are whose.

A replica that finds no room waits, and is placed when GPUs come free: those that wait are tried in order of their indices, so that a small
one may go before a large one that fits nowhere yet. GPUs are a replica's from its start to its end, never two replicas' at a time.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simpy import Environment

from sim.core.record import Table
from sim.core.registry import PLACERS
from sim.physics import topology
from sim.policy.place.base import Host, Placer, Slot, Wanted
from sim.policy.room import why
from sim.policy.stranded import stranded
from sim.spec import network as spec
from sim.spec.hardware import gpu
from sim.spec.scenario import Pool
from sim.world.network import Network


class Site:
    """`ports` are links beside those of the topology, numbered after them. `places` has the GPUs of each replica that has or had any, by
    index. `cached` holds (what, host) for what hosts keep for the next start.
    """

    def __init__(self, env: Environment, wanted: spec.Network, tables: dict[str, Table], ports: Sequence[topology.Link] = ()):
        self.topology = topology.build(wanted)
        self.network = Network(env, [*self.topology.links, *ports], tables)
        self.places: dict[int, tuple[Slot, ...]] = {}
        self.cached: set[tuple[str, int]] = set()
        self._placer: Placer = PLACERS.make(wanted.placement)
        self._hosts = [
            Host(host.number, host.gpu, host.node, host.region, host.domain, host.leaf, host.gpus, tuple(range(host.gpus)))
            for host in self.topology.hosts
        ]
        self._living: dict[int, tuple[Slot, ...]] = {}
        self._waiting: dict[int, tuple[Wanted, Callable[[], Any]]] = {}

    @staticmethod
    def wanted(pool: Pool) -> Wanted:
        """What a replica of a pool needs: its tensor-parallel groups, on the pool's GPUs."""
        parallel = pool.parallel
        return Wanted(parallel.pp * parallel.dp, parallel.tp, gpu(pool.gpu).name, pool.node or "", pool.region)

    def take(self, index: int, wanted: Wanted) -> bool:
        """Place a replica; False, and nothing changed, when it fits nowhere."""
        slots = self._placer.place(wanted, self._hosts)
        if slots is None:
            return False
        self.places[index] = self._living[index] = slots
        for number, taken in _by_host(slots).items():
            host = self._hosts[number]
            free = tuple(one for one in host.free if one not in taken)
            assert len(free) == len(host.free) - len(taken), "a placer takes free GPUs only"
            self._hosts[number] = host._replace(free=free)
        return True

    def ask(self, index: int, wanted: Wanted, placed: Callable[[], Any]) -> None:
        """Call `placed` once the replica has its GPUs, which may be at once."""
        if self.take(index, wanted):
            placed()
        else:
            self._waiting[index] = wanted, placed

    def withdraw(self, index: int) -> None:
        """A replica that waits for GPUs is not wanted any more."""
        self._waiting.pop(index, None)

    def give(self, index: int) -> None:
        """A replica is gone: the GPUs it has, if any, are free again; who waits is tried."""
        for number, freed in _by_host(self._living.pop(index, ())).items():
            host = self._hosts[number]
            self._hosts[number] = host._replace(free=tuple(sorted((*host.free, *freed))))
        full: list[Wanted] = []
        for waiting in sorted(self._waiting):
            wanted, placed = self._waiting[waiting]
            if wanted in full:
                continue
            if self.take(waiting, wanted):
                del self._waiting[waiting]
                placed()
            else:
                full.append(wanted)

    def hand(self, index: int, other: int) -> None:
        """The GPUs of a replica are another one's from now on."""
        self.places[other] = self._living[other] = self._living.pop(index)

    def why(self, wanted: Wanted) -> str:
        """Why a replica fits nowhere, per kind of host."""
        return why(wanted, self._hosts)

    def never(self, wanted: Wanted) -> str:
        """Why a replica would fit nowhere even if no other stood here, per kind of host; empty when it would fit."""
        return why(wanted, [host._replace(free=tuple(range(host.gpus))) for host in self._hosts])

    def stranded(self) -> int:
        """Free GPUs that no replica that waits can use."""
        return stranded(self._hosts, [wanted for wanted, _ in self._waiting.values()]) if self._waiting else 0

    def hosts_of(self, index: int) -> tuple[int, ...]:
        """The hosts that a replica stands on, ascending."""
        return tuple(sorted({number for number, _ in self.places[index]}))


def _by_host(slots: tuple[Slot, ...]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number, one in slots:
        found.setdefault(number, []).append(one)
    return found
