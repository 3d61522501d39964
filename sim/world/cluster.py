"""The world of one run: replicas behind a front door, and the clock they share. Workloads see it through a `Client` each."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from simpy import Process

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.registry import ADMISSIONS, GATES, ROUTERS, WORKLOADS
from sim.core.request import Request
from sim.core.rng import Draws, Keyed, stream
from sim.physics.memory import Memory
from sim.physics.step import EngineStep
from sim.spec.scenario import Scenario
from sim.spec.tenants import unasked
from sim.world.adapters import Wanted
from sim.world.attempts import Attempts
from sim.world.autoscaler import Scalers
from sim.world.cascade import Chain, Step
from sim.world.client import Client
from sim.world.clock import Clock
from sim.world.control import Control
from sim.world.deliveries import Deliveries
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.fleet import Fleet
from sim.world.front_door import FrontDoor, Service
from sim.world.gate import Gated
from sim.world.lifecycle import Life, Lifecycle, write
from sim.world.outlook import Outlook
from sim.world.recorder import Recorder
from sim.world.replicas import Replicas
from sim.world.sandboxes.all import Sandboxes, ports
from sim.world.sharing import sharings
from sim.world.site import Site
from sim.world.trainer import trainers
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
        self.outlook = Outlook(self.env, scenario)
        network = scenario.cluster.network
        self.site = None if network is None else Site(self.env, network, self.recorder.tables, ports(scenario.cluster.sandboxes))
        self.lives: list[Life] = []
        self.pool_of: list[Lifecycle] = []
        self.lifecycles: list[Lifecycle] = []
        _each(self._open, range(len(scenario.cluster.pools)))
        _each(Lifecycle.begin, self.lifecycles)
        self.sharings = sharings(self)
        self.trainers = trainers(self, self.site)
        self.workloads = [WORKLOADS.make(options) for options in scenario.workloads]
        admission = scenario.cluster.admission["kind"], self._seeded("admission", ADMISSIONS.make(scenario.cluster.admission))
        names = self._names()
        wanted = [workload.model if workload.sends else None for workload in self.workloads]
        models = [workload.models if workload.sends else {} for workload in self.workloads]
        ways = Ways(scenario, [opened.pool for opened in self.lifecycles], wanted, names, models)
        self._unasked = ways.unasked()
        self._regions(ways)
        services = [self._service(wanted) for wanted in ways.services]
        record = self.recorder.rejected, self.recorder.failed, self.recorder.tables["held"]
        self.door = FrontDoor(self.env, services, admission, self.engines, record)
        self.chains = {number: self._chain(number, names[number], steps) for number, steps in ways.chains.items()}
        self.attempts = {number: self._attempts(number, name) for number, name in enumerate(names) if self.workloads[number].client}
        self.deliveries: Deliveries | None = None
        if self.site is not None:
            self.deliveries = Deliveries(self.env, self.site, self.lifecycles, self.recorder.tables["deliveries"])
            self.deliveries.trainers = self.trainers
        self._adapters: dict[str, int] = {}
        self._others = ways.others
        self._clients = [Client(self, (number, name), ways.services[number]) for number, name in enumerate(names)]
        self.controls: dict[str, tuple[int, Control]] = {}
        self.closing: list[Callable[[], None]] = []
        self._drivers: list[Process] = []
        self._scalers = Scalers(self)
        self._stopped: float | None = None
        self.remarks: list[str] = []
        self.sandboxes = Sandboxes(self.env, scenario.cluster.sandboxes, scenario.seed, self.recorder.tables, self.over)
        self.sandboxes.open(None if self.site is None else (self.site.network, self.site.topology), names)

    def rng(self, name: str) -> np.random.Generator:
        return stream(self.scenario.seed, name)

    def keys(self, count: int) -> int:
        """The first of so many integers that name tokens nobody else has named."""
        first, self._keys = self._keys, self._keys + count
        return first

    def start(self) -> list[str]:
        """Prepare the workloads and set them going; returns their remarks. Raises BadInput with all that is wrong with any of them."""
        remarks = [f"pool {name}: no workload asks for it" for name in self._unasked]
        remarks += [f"sandboxes {name}: no workload asks for one" for name in unasked(self.scenario)]
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
        self._scalers.start()
        for sharing in self.sharings:
            sharing.start()
        self.sandboxes.start()
        if self.site is not None:
            for driver in self._drivers:
                assert driver.callbacks is not None
                driver.callbacks.append(self.stop)
        return remarks

    def expected(self) -> int | None:
        """Requests that will be sent, when every workload knows and none is sent on. Only after `start`."""
        if self.chains or self.attempts:
            return None
        counts = [workload.expected() for workload in self.workloads]
        return None if None in counts else sum(counts)

    def close(self) -> None:
        """The clock has stopped: settle the engines, record what is unfinished and what each replica did.

        The run ends with its last request, on a network with its last answer, or where it was stopped when there is more to come.
        """
        recorder = self.recorder
        recorder.watches.clear()
        last = max(recorder.last, self.sandboxes.last) if self._stopped is None else self._stopped
        self.end = last if self.over() else min(self.env.now, self.scenario.duration or self.env.now)
        for _, control in self.controls.values():
            control.close(self.end)
        for engine in self.engines:
            for request in engine.settle():
                recorder.unfinished(request)
        for close in self.closing:
            close()
        for sharing in self.sharings:
            sharing.close(self.end)
        for way in (*self.chains.values(), *self.attempts.values()):
            way.close()
        for request in self.door.close():
            recorder.unfinished(request)
        if self.site is not None and self.deliveries is not None:
            self.deliveries.close()
            self.site.network.close(self.end)
        self.sandboxes.close(self.end)
        for trainer in self.trainers.values():
            trainer.close(self.end)
        write(self, self.end)

    def over(self) -> bool:
        """Whether every request has ended and none will come."""
        if self.recorder.ended != self.door.arrived or any(driver.is_alive for driver in self._drivers):
            return False
        return not any(way.pending for way in (*self.chains.values(), *self.attempts.values()))

    def stop(self, _: Any = None) -> None:
        """Stop the clock if the run is over: what is still under way on a network would go on without a purpose."""
        if self._stopped is None and self.over():
            self._stopped = self.env.now
            self.env.stop()

    def engine(self, number: int) -> Engine | ExactEngine:
        """Another replica of a pool."""
        lifecycle = self.lifecycles[number]
        engine = lifecycle.opened.engine(len(self.engines))
        self.outlook.show(engine, lifecycle.pool, lifecycle.opened.model)
        self.engines.append(engine)
        self.pool_of.append(lifecycle)
        # The last entry, that of requests no replica took, stays last.
        self.recorder.overheads.insert(-1, (lifecycle.opened.model.frontend, lifecycle.pool.engine.frontend_per_token))
        if engine.moves is not None:
            engine.moves.successor = self._hand_on
        return engine

    def _hand_on(self, request: Request, found: Callable[[Request, Engine | ExactEngine], None]) -> None:
        self._scalers.handed_on(request)
        for _, control in self.controls.values():
            control.left(request)
        self.door.successor(request, found)

    def _open(self, number: int) -> None:
        opened = Replicas(self, self.scenario.cluster.pools[number], f"cluster.pools.{number}")
        self.models.append(opened.model)
        self.memories.append(opened.memory)
        self.lifecycles.append(Lifecycle(self, number, opened))

    def _regions(self, ways: Ways) -> None:
        """Tell requests and their answers how far they travel."""
        everywhere = tuple(opened.pool.name for opened in self.lifecycles)
        wide = {*ways.chains, *(number for number, _ in ways.others)}
        reached = [everywhere if number in wide else ways.services[number] for number in range(len(self.workloads))]
        self.outlook.measure([workload.region if workload.sends else None for workload in self.workloads], reached)
        if self.outlook.travels:
            self.recorder.away = self.outlook.away(self.engines)

    def _service(self, wanted: tuple[str, ...]) -> Service:
        """The service of the pools of these names."""
        serving = [opened for opened in self.lifecycles if opened.pool.name in wanted]
        decode = [opened for opened in serving if opened.pool.role == "decode"]
        way = self.scenario.cluster.disaggregation
        entry = self._fleet([opened for opened in serving if opened.pool.role != "decode"])
        return Service(entry, self._fleet(decode) if decode else None, way.short_prompt if way else 0)

    def _fleet(self, members: list[Lifecycle]) -> Fleet:
        """The fleet of some pools; one and the same whoever asks, as its router has a memory."""
        key = tuple(member.pool.name for member in members)
        if key not in self._fleets:
            name = "router" if not self._fleets else f"router.{len(self._fleets)}"
            router = self._seeded(name, ROUTERS.make(self.scenario.cluster.router))
            self._fleets[key] = Fleet([member.opened.limit for member in members], router, self.outlook.look)
            if self.outlook.ranked:
                self._fleets[key].rank(router)
            if self.scenario.cluster.gate is not None:
                gate = Gated(self.env, self._fleets[key], GATES.make(self.scenario.cluster.gate), self.recorder.tables["gate"])
                self._fleets[key].gate = gate
                self.recorder.watches.append(gate.ended)
            for member in members:
                member.join(self._fleets[key])
        return self._fleets[key]

    def _chain(self, number: int, name: str, steps: list[Step]) -> Chain:
        """A workload's way through a cascade. Raises BadInput when its requests may be called off."""
        if self.workloads[number].programs:
            message = "its requests would go through a cascade, whose stages nobody calls off; name the pool or model that agents ask"
            raise BadInput([Problem(message, f"workloads.{number}.model")])
        return Chain(self, name, steps)

    def _attempts(self, number: int, name: str) -> Attempts:
        """What stands between the callers of a workload and the front door. Raises BadInput when that is a cascade already."""
        if number in self.chains:
            message = "its requests go through a cascade, whose stages nobody calls off or asks for again; leave out client or the cascade"
            raise BadInput([Problem(message, f"workloads.{number}.client")])
        return Attempts(self, name, self.workloads[number].client)

    def _names(self) -> list[str]:
        """Each workload's name: the one it asks for, or its kind and how many of that kind came before it."""
        kinds = [options["kind"] for options in self.scenario.workloads]
        names = [workload.name or f"{kinds[i]}{kinds[:i].count(kinds[i]) or ''}" for i, workload in enumerate(self.workloads)]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise BadInput([Problem(f"another workload is named '{name}' already; names must differ", f"workloads.{number}")])
            self.recorder.tables["requests"].label("workload", name)
        return names

    def service(self, number: int, model: str) -> int:
        """The service of the front door for one of a workload's further models. Raises BadInput for one that it did not name."""
        if (number, model) not in self._others:
            known = [name for workload, name in self._others if workload == number]
            near = did_you_mean(model, known) if known else "none is named"
            message = f"the workload did not name '{model}' before the run, as model of one of its agents or of its program's role; {near}"
            raise BadInput([Problem(message, f"workloads.{number}")])
        return self._others[number, model]

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


def _each(do: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Do it for every item. Raises BadInput with what is wrong with any of them."""
    problems: list[Problem] = []
    for item in items:
        try:
            do(item)
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
