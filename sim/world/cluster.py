"""The world of one run: replicas behind a front door, and the clock they share. Workloads see it through a `Client` each."""
from __future__ import annotations

from typing import Any

import numpy as np
from simpy import Environment, Process

from sim.core.errors import BadInput, Problem
from sim.core.registry import ADMISSIONS, BATCHERS, ROUTERS, WORKLOADS
from sim.core.request import Request
from sim.core.rng import Draws, stream
from sim.physics.memory import Memory, divide
from sim.physics.step import EngineStep
from sim.policy.batch.base import Limits
from sim.policy.kv.paged import Paged
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool, Scenario
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.front_door import FrontDoor
from sim.world.recorder import Recorder


class World:
    """Everything with a clock. `engines` are all replicas in the order of the pools; `models` and `memories` have one entry per pool."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.env = Environment()
        self.recorder = Recorder(self.env)
        self.engines: list[Engine | ExactEngine] = []
        self.models: list[EngineStep] = []
        self.memories: list[Memory] = []
        self.end = 0.0
        limits = [limit for number, pool in enumerate(scenario.cluster.pools) for limit in self._open(pool, f"cluster.pools.{number}")]
        self.door = FrontDoor(
            self.env, self.engines, limits, self._seeded("router", ROUTERS.make(scenario.cluster.router)),
            (scenario.cluster.admission["kind"], self._seeded("admission", ADMISSIONS.make(scenario.cluster.admission))),
            self.recorder.rejected,
        )  # fmt: skip
        self.workloads = [WORKLOADS.make(options) for options in scenario.workloads]
        self._clients = [Client(self, number, name) for number, name in enumerate(self._names())]
        self._drivers: list[Process] = []

    def rng(self, name: str) -> np.random.Generator:
        return stream(self.scenario.seed, name)

    def start(self) -> list[str]:
        """Prepare the workloads and set them going; returns their remarks. Raises BadInput with all that is wrong with any of them."""
        remarks: list[str] = []
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
        """Requests that will be sent, when every workload knows. Only after `start`."""
        counts = [workload.expected() for workload in self.workloads]
        return None if None in counts else sum(counts)

    def close(self) -> None:
        """The clock has stopped: settle the engines, record what is unfinished and what each replica did.

        The run ends with its last request, or where it was stopped when there is more to come.
        """
        recorder = self.recorder
        over = recorder.ended == self.door.arrived and not any(driver.is_alive for driver in self._drivers)
        self.end = recorder.last if over else min(self.env.now, self.scenario.duration or self.env.now)
        for engine in self.engines:
            for request in engine.settle():
                recorder.unfinished(request)
        engines = iter(self.engines)
        for pool, memory in zip(self.scenario.cluster.pools, self.memories, strict=True):
            for _ in range(pool.replicas):
                recorder.replica(pool, memory, next(engines), self.end)

    def _open(self, pool: Pool, where: str) -> list[tuple[int, str]]:
        """Open the replicas of one pool; they share a step model, which has no state of its own. Returns the limit of each."""
        architecture, chip, options = llm(pool.model or self.scenario.model), gpu(pool.gpu), pool.engine
        memory = divide(architecture, chip, pool, where)
        model = EngineStep(architecture, chip, pool)
        self.models.append(model)
        self.memories.append(memory)
        longest = options.max_model_len or architecture.max_position
        _check_budget(pool, longest, where)
        limits = _limits(pool)
        # The last entry, that of requests no replica took, stays last.
        self.recorder.overheads[-1:] = [*[model.frontend] * pool.replicas, 0.0]
        kind = ExactEngine if options.exact_steps else Engine
        for _ in range(pool.replicas):
            policy = BATCHERS.make(options.batcher), limits
            record = self.recorder.tables["stretches"], self.recorder.tables["stalls"], self.recorder.completed
            self.engines.append(kind(self.env, len(self.engines), model, Paged(memory.blocks, options.block_size), policy, record))
        # The last token's keys and values are never computed, so a cache of n tokens holds a request of n + 1.
        room = memory.blocks * options.block_size + 1
        return [(longest, "max_model_len") if longest <= room else (room, "kv_capacity")] * pool.replicas

    def _names(self) -> list[str]:
        """Each workload's name: the one it asks for, or its kind and how many of that kind came before it."""
        kinds = [options["kind"] for options in self.scenario.workloads]
        names = [workload.name or f"{kinds[i]}{kinds[:i].count(kinds[i]) or ''}" for i, workload in enumerate(self.workloads)]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise BadInput([Problem(f"another workload is named '{name}' already; names must differ", f"workloads.{number}")])
            self.recorder.tables["requests"].label("workload", name)
        return names

    def _seeded(self, name: str, policy: Any) -> Any:
        if hasattr(policy, "seed"):
            policy.seed(Draws(self.rng(name)))
        return policy


class Client:
    """The world as one workload sees it; its random streams are its own."""

    __slots__ = ("_cached", "_number", "_world", "call", "env", "name", "submit")

    def __init__(self, world: World, number: int, name: str):
        self._world, self._number, self.name = world, number, name
        self._cached = world.workloads[number].cached_prefix
        self.env, self.submit, self.call = world.env, world.door.submit, world.door.call

    def rng(self, name: str) -> np.random.Generator:
        return self._world.rng(f"{self.name}.{name}")

    def request(self, prompt: int, output: int, session: int = -1) -> Request:
        if not self._cached:
            return Request(-1, self.env._now, prompt, output, self._number, session)
        request = Request(-1, self.env._now, prompt, output, self._number, session)
        request.cached = request.computed = min(self._cached, prompt - 1)
        return request


def _limits(pool: Pool) -> Limits:
    """The scheduler's limits for a whole replica: each attention group has its own, and each pipeline stage a batch in flight.

    A prompt's chunk still fits one batch of one group.
    """
    options, parallel = pool.engine, pool.parallel
    lanes = parallel.pp * parallel.dp
    budget, most = options.max_num_batched_tokens, options.long_prefill_token_threshold
    if lanes > 1:
        most = min(most or budget, budget)
    return Limits(options.max_num_seqs * parallel.dp, budget * lanes, options.enable_chunked_prefill, most, options.async_scheduling)


def _check_budget(pool: Pool, longest: int, where: str) -> None:
    """Without chunked prefill a prompt is computed in one step or never; vLLM refuses such a configuration too."""
    budget = pool.engine.max_num_batched_tokens
    if not pool.engine.enable_chunked_prefill and budget < longest:
        message = (
            f"max_num_batched_tokens ({budget}) is below max_model_len ({longest}), and without chunked prefill a longer prompt could "
            "never be computed; raise it, lower max_model_len, or set enable_chunked_prefill: true"
        )
        raise BadInput([Problem(message, f"{where}.engine.max_num_batched_tokens")])
