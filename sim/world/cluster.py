"""The world of one run: replicas behind a front door, and the clock they share.

A request reaches the front door, is refused or routed, queues at a replica, and ends with one row in `requests`. Workloads see the world
through a `Client`, which keeps their random streams apart.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from simpy import Environment, Event, Process

from sim.core.errors import BadInput, Problem
from sim.core.record import Table, tables
from sim.core.registry import ADMISSIONS, BATCHERS, ROUTERS, WORKLOADS
from sim.core.request import COMPLETED, REJECTED, UNFINISHED, Request
from sim.core.rng import Draws, stream
from sim.physics.memory import Memory, divide
from sim.physics.step import RooflineStep
from sim.policy.admit.base import Admission
from sim.policy.batch.base import Limits
from sim.policy.kv.paged import Paged
from sim.policy.route.base import Router
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool, Scenario
from sim.world.engine import Engine
from sim.world.exact import ExactEngine


class World:
    """Everything with a clock. `engines` are all replicas in order of pools; `limits` the longest request each can hold, in tokens."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.env = Environment()
        self.tables: dict[str, Table] = tables()
        self.engines: list[Engine | ExactEngine] = []
        self.models: list[RooflineStep] = []
        self.memories: list[Memory] = []
        self.limits: list[tuple[int, str]] = []
        self.arrived = self.ended = 0
        self.last_arrival = self.end = 0.0
        self._drivers: list[Process] = []
        self._router: Router = self._seeded("router", ROUTERS.make(scenario.cluster.router))
        self._admission: Admission = self._seeded("admission", ADMISSIONS.make(scenario.cluster.admission))
        self._refusal = scenario.cluster.admission["kind"]
        for number, pool in enumerate(scenario.cluster.pools):
            self._open(pool, f"cluster.pools.{number}")
        self._shortest = min(limit for limit, _ in self.limits)
        self.workloads = [WORKLOADS.make(options) for options in scenario.workloads]
        self.clients = self._introduce()

    def rng(self, name: str) -> np.random.Generator:
        return stream(self.scenario.seed, name)

    def start(self) -> list[str]:
        """Prepare the workloads and set them going; returns their remarks. Raises BadInput."""
        remarks, problems = [], []
        for client in self.clients:
            try:
                remarks += [f"{client.name}: {text}" for text in self.workloads[client.number].prepare()]
            except BadInput as error:
                where = f"workloads.{client.number}"
                problems += [problem._replace(path=f"{where}.{problem.path}".rstrip(".")) for problem in error.problems]
        if problems:
            raise BadInput(problems)
        self._drivers = [self.env.process(self.workloads[client.number].drive(client)) for client in self.clients]
        return remarks

    def expected(self) -> int | None:
        """Requests that will be sent, when every workload knows."""
        counts = [workload.expected() for workload in self.workloads]
        return None if None in counts else sum(counts)

    def submit(self, request: Request) -> None:
        """The front door: number the request, let it in or not, and send it to a replica."""
        request.id = self.arrived
        self.arrived += 1
        self.last_arrival = now = self.env._now
        views = self.engines
        length = request.prompt + request.output
        if length > self._shortest:
            views = [view for view, (limit, _) in zip(views, self.limits, strict=True) if length <= limit]
            if not views:
                self._end(request, REJECTED, max(self.limits)[1])
                return
        if not self._admission.admit(request, views, now):
            self._end(request, REJECTED, self._refusal)
            return
        picked = self._router.pick(request, views)
        if picked is None:
            self._end(request, REJECTED, "router")
            return
        request.replica = picked
        self.engines[picked].submit(request)

    def call(self, request: Request) -> Event:
        """Submit; the event succeeds with the request when it has ended."""
        done = request.done = self.env.event()
        self.submit(request)
        return done

    def close(self) -> None:
        """The clock has stopped: settle the engines, record what is unfinished and what each replica did.

        The run ends with its last request, or at its horizon when there is more to come.
        """
        if self.ended < self.arrived or any(driver.is_alive for driver in self._drivers):
            self.end = min(self.env.now, self.scenario.duration or self.env.now)
        for engine in self.engines:
            for request in engine.settle():
                self._end(request, UNFINISHED)
        number = 0
        for pool, memory in zip(self.scenario.cluster.pools, self.memories, strict=True):
            for _ in range(pool.replicas):
                engine, kv = self.engines[number], self.engines[number].kv
                table = self.tables["replicas"]
                table.append((
                    table.label("pool", pool.name), table.label("gpu", pool.gpu), pool.parallel.gpus, 0.0, self.end, memory.blocks,
                    kv.block_size, kv.peak, kv.taken, kv.returned, kv.blocks - kv.free, engine.preemptions,
                ))  # fmt: skip
                number += 1

    def _open(self, pool: Pool, where: str) -> None:
        """The replicas of one pool; they share a step model, which has no state of its own."""
        architecture, chip = llm(pool.model or self.scenario.model), gpu(pool.gpu)
        memory = divide(architecture, chip, pool, where)
        model = RooflineStep(architecture, chip, pool)
        self.models.append(model)
        self.memories.append(memory)
        options = pool.engine
        longest = options.max_model_len or architecture.max_position
        if not options.enable_chunked_prefill and options.max_num_batched_tokens < longest:
            raise BadInput([Problem(
                f"max_num_batched_tokens ({options.max_num_batched_tokens}) is below max_model_len ({longest}), and without chunked "
                "prefill a longer prompt could never be computed; raise it, lower max_model_len, or set enable_chunked_prefill: true",
                f"{where}.engine.max_num_batched_tokens",
            )])  # fmt: skip
        # The last token's keys and values are never computed, so a cache of n tokens holds a request of n + 1.
        room = memory.blocks * options.block_size + 1
        limit = (longest, "max_model_len") if longest <= room else (room, "kv_capacity")
        limits = Limits(
            options.max_num_seqs, options.max_num_batched_tokens, options.enable_chunked_prefill, options.long_prefill_token_threshold
        )
        kind = ExactEngine if options.exact_steps else Engine
        for _ in range(pool.replicas):
            policy = BATCHERS.make(options.batcher), limits
            record = self.tables["stretches"], self.tables["stalls"], self._finished
            kv = Paged(memory.blocks, options.block_size)
            self.engines.append(kind(self.env, len(self.engines), model, kv, policy, record))
            self.limits.append(limit)

    def _introduce(self) -> list[Client]:
        """A client per workload, named as it asks or by its kind and how many of that kind came before it."""
        clients: list[Client] = []
        for number, (options, workload) in enumerate(zip(self.scenario.workloads, self.workloads, strict=True)):
            nth = sum(other["kind"] == options["kind"] for other in self.scenario.workloads[:number])
            name = workload.name or f"{options['kind']}{nth or ''}"
            self.tables["requests"].label("workload", name)
            clients.append(Client(self, number, name))
        return clients

    def _seeded(self, name: str, policy: Any) -> Any:
        if hasattr(policy, "seed"):
            policy.seed(Draws(self.rng(name)))
        return policy

    def _finished(self, request: Request) -> None:
        self._end(request, COMPLETED)

    def _end(self, request: Request, status: int, reason: str = "") -> None:
        self.ended += 1
        if status != UNFINISHED:
            self.end = self.env._now
        table = self.tables["requests"]
        table.append((
            request.id, request.workload, request.session, request.replica, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, status, table.label("reason", reason) if reason else 0,
        ))  # fmt: skip
        if request.done is not None:
            # The event leads back to the request; without this cut every call would be a cycle for the garbage collector.
            done, request.done = request.done, None
            done.succeed(request)


class Client:
    """The world as one workload sees it."""

    __slots__ = ("_world", "call", "env", "name", "number", "submit")

    def __init__(self, world: World, number: int, name: str):
        self._world, self.number, self.name = world, number, name
        self.env, self.submit, self.call = world.env, world.submit, world.call

    def rng(self, name: str) -> np.random.Generator:
        return self._world.rng(f"{self.name}.{name}")

    def request(self, prompt: int, output: int, session: int = -1) -> Request:
        return Request(-1, self.env._now, prompt, output, self.number, session)
