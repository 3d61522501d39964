"""The world of one run: replicas behind a front door, and the clock they share. Workloads see it through a `Client` each."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from simpy import Process

from sim.core.content import Content
from sim.core.errors import BadInput, Problem
from sim.core.registry import ADMISSIONS, ROUTERS, WORKLOADS
from sim.core.request import Request
from sim.core.rng import Draws, Keyed, stream
from sim.physics.memory import Memory
from sim.physics.step import EngineStep
from sim.spec.scenario import Scenario
from sim.world.adapters import Wanted
from sim.world.cascade import Chain
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.fleet import Fleet
from sim.world.front_door import FrontDoor, Service
from sim.world.recorder import Recorder
from sim.world.replicas import Replicas, open_pool
from sim.world.ways import Ways


class World:
    """Everything with a clock. `engines` are all replicas in the order of the pools; `models` and `memories` have one entry per pool."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.env = Clock()
        self.recorder = Recorder(self.env)
        self.engines: list[Engine | ExactEngine] = []
        self.models: list[EngineStep] = []
        self.memories: list[Memory] = []
        self.end = 0.0
        self._keys = 1
        self._fleets: dict[tuple[str, ...], Fleet] = {}
        self._opened = [self._open(number) for number in range(len(scenario.cluster.pools))]
        self.workloads = [WORKLOADS.make(options) for options in scenario.workloads]
        admission = scenario.cluster.admission["kind"], self._seeded("admission", ADMISSIONS.make(scenario.cluster.admission))
        names = self._names()
        ways = Ways(scenario, [opened.pool for opened in self._opened], [workload.model for workload in self.workloads], names)
        self._unasked = ways.unasked()
        services = [self._service(wanted) for wanted in ways.services]
        self.door = FrontDoor(self.env, services, admission, self.recorder.rejected)
        self.chains = {number: Chain(self, names[number], steps) for number, steps in ways.chains.items()}
        for engine in self.engines:
            if engine.moves is not None:
                engine.moves.successor = self.door.successor
        self._adapters: dict[str, int] = {}
        self._clients = [Client(self, (number, name), ways.services[number]) for number, name in enumerate(names)]
        self._drivers: list[Process] = []

    def rng(self, name: str) -> np.random.Generator:
        return stream(self.scenario.seed, name)

    def keys(self, count: int) -> int:
        """The first of so many integers that name tokens nobody else has named."""
        first, self._keys = self._keys, self._keys + count
        return first

    def start(self) -> list[str]:
        """Prepare the workloads and set them going; returns their remarks. Raises BadInput with all that is wrong with any of them."""
        remarks = [f"pool {name}: no workload asks for it" for name in self._unasked]
        problems: list[Problem] = []
        for number, (client, workload) in enumerate(zip(self._clients, self.workloads, strict=True)):
            try:
                remarks += [f"{client.name}: {text}" for text in workload.prepare()]
            except BadInput as error:
                problems += [problem._replace(path=f"workloads.{number}.{problem.path}".rstrip(".")) for problem in error.problems]
        if problems:
            raise BadInput(problems)
        drives = [workload.drive(client) for client, workload in zip(self._clients, self.workloads, strict=True)]
        self._drivers = [self.env.process(drive) for drive in drives]
        return remarks

    def expected(self) -> int | None:
        """Requests that will be sent, when every workload knows and none is sent on. Only after `start`."""
        if self.chains:
            return None
        counts = [workload.expected() for workload in self.workloads]
        return None if None in counts else sum(counts)

    def close(self) -> None:
        """The clock has stopped: settle the engines, record what is unfinished and what each replica did.

        The run ends with its last request, or where it was stopped when there is more to come.
        """
        recorder = self.recorder
        over = recorder.ended == self.door.arrived and not any(driver.is_alive for driver in self._drivers)
        over = over and not any(chain.pending for chain in self.chains.values())
        self.end = recorder.last if over else min(self.env.now, self.scenario.duration or self.env.now)
        for engine in self.engines:
            for request in engine.settle():
                recorder.unfinished(request)
        for chain in self.chains.values():
            chain.close()
        engines = iter(self.engines)
        for pool, memory in zip(self.scenario.cluster.pools, self.memories, strict=True):
            for _ in range(pool.replicas):
                recorder.replica(pool, memory, next(engines), self.end)

    def _open(self, number: int) -> Replicas:
        pool = self.scenario.cluster.pools[number]
        opened = open_pool(self, pool, f"cluster.pools.{number}")
        self.engines += opened.engines
        self.models.append(opened.model)
        self.memories.append(opened.memory)
        # The last entry, that of requests no replica took, stays last.
        self.recorder.overheads[-1:] = [*[(opened.model.frontend, pool.engine.frontend_per_token)] * pool.replicas, (0.0, 0.0)]
        return opened

    def _service(self, wanted: tuple[str, ...]) -> Service:
        """The service of the pools of these names."""
        serving = [opened for opened in self._opened if opened.pool.name in wanted]
        decode = [opened for opened in serving if opened.pool.role == "decode"]
        way = self.scenario.cluster.disaggregation
        entry = self._fleet([opened for opened in serving if opened.pool.role != "decode"])
        return Service(entry, self._fleet(decode) if decode else None, way.short_prompt if way else 0)

    def _fleet(self, members: list[Replicas]) -> Fleet:
        """The fleet of some pools; one and the same whoever asks, as its router has a memory."""
        key = tuple(opened.pool.name for opened in members)
        if key not in self._fleets:
            engines = [engine for opened in members for engine in opened.engines]
            limits = [limit for opened in members for limit in opened.limits]
            name = "router" if not self._fleets else f"router.{len(self._fleets)}"
            self._fleets[key] = Fleet(engines, limits, self._seeded(name, ROUTERS.make(self.scenario.cluster.router)))
        return self._fleets[key]

    def _names(self) -> list[str]:
        """Each workload's name: the one it asks for, or its kind and how many of that kind came before it."""
        kinds = [options["kind"] for options in self.scenario.workloads]
        names = [workload.name or f"{kinds[i]}{kinds[:i].count(kinds[i]) or ''}" for i, workload in enumerate(self.workloads)]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise BadInput([Problem(f"another workload is named '{name}' already; names must differ", f"workloads.{number}")])
            self.recorder.tables["requests"].label("workload", name)
        return names

    def adapters(self, number: int, name: str, pools: Sequence[str]) -> Wanted | None:
        """Which adapters the requests of a workload ask for; None: none. Raises BadInput when one of their pools serves no adapters."""
        options = self.workloads[number].adapters
        if options is None:
            return None
        for pool in self.scenario.cluster.pools:
            if pool.name in pools and pool.engine.lora is None:
                message = f"pool {pool.name} serves no adapters; give it some with engine: {{lora: {{max_loras: 4, rank: 16}}}}"
                raise BadInput([Problem(message, f"workloads.{number}.adapters")])
        called = options.called(name)
        for adapter in called:
            if adapter not in self._adapters:
                self._adapters[adapter] = len(self._adapters)
                self.recorder.tables["adapters"].labels["adapter"].append(adapter)
        numbers = [self._adapters[adapter] for adapter in called]
        return Wanted(options.chances(len(called)).tolist(), numbers, Keyed(self.scenario.seed, f"{name}.adapters"))

    def _seeded(self, name: str, policy: Any) -> Any:
        if hasattr(policy, "seed"):
            policy.seed(Draws(self.rng(name)))
        return policy


class Client:
    """The world as one workload sees it; its random streams are its own."""

    __slots__ = ("_adapters", "_number", "_prefix", "_priority", "_world", "call", "env", "keys", "name", "submit")

    def __init__(self, world: World, who: tuple[int, str], pools: Sequence[str]):
        self._world = world
        self._number, self.name = number, name = who
        door = world.chains.get(number, world.door)
        self.env, self.submit, self.call, self.keys = world.env, door.submit, door.call, world.keys
        self._adapters = world.adapters(number, name, pools)
        workload = world.workloads[number]
        self._priority, length = workload.priority, workload.shared_prefix
        self._prefix = Content((self.keys(1),), (length,), length) if length else None

    def rng(self, name: str) -> np.random.Generator:
        return self._world.rng(f"{self.name}.{name}")

    def request(
        self, prompt: int, output: int, session: int = -1, content: Content | None = None, reply: int = 0
    ) -> Request:
        request = Request(-1, self.env._now, prompt, output, self._number, session)
        if content is not None:
            request.content, request.reply = content, reply
        elif self._prefix is not None:
            whole = self._prefix
            request.content = whole if whole.common <= prompt else Content(whole.keys, (prompt,), prompt)
        if self._priority:
            request.priority = self._priority
        if self._adapters is not None:
            self._adapters.put_on(request)
        return request
