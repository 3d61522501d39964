"""Writes the facts of a run down: a row when a request ends, a row per replica at the close. Engines write their own stretches."""
from __future__ import annotations

from simpy import Environment

from sim.core.record import Table, tables
from sim.core.request import COMPLETED, REJECTED, UNFINISHED, Request
from sim.physics.memory import Memory
from sim.spec.scenario import Pool
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.timer import Answer


class Recorder:
    """The tables of a run. `ended` counts requests with a row; `last` is when the last of them ended of itself, s.

    `overheads` are the seconds, one entry per replica and one for none (-1), that a request spends outside its engine: an answer comes that
    much later. What the
    engine does is not touched, as a delay that is the same for all only moves arrivals and answers.
    """

    def __init__(self, env: Environment):
        self._env = env
        self.tables: dict[str, Table] = tables()
        self._requests = self.tables["requests"]
        self.overheads: list[float] = [0.0]
        self.ended = 0
        self.last = 0.0

    def completed(self, request: Request) -> None:
        self.last = self._env._now
        self._end(request, COMPLETED, 0)

    def rejected(self, request: Request, reason: str) -> None:
        self.last = self._env._now
        self._end(request, REJECTED, self._requests.label("reason", reason))

    def unfinished(self, request: Request) -> None:
        self._end(request, UNFINISHED, 0)

    def replica(self, pool: Pool, memory: Memory, engine: Engine | ExactEngine, end: float) -> None:
        """What a replica that lived from 0 to `end` had and did."""
        table, kv = self.tables["replicas"], engine.kv
        table.append((
            table.label("pool", pool.name), table.label("gpu", pool.gpu), pool.parallel.gpus, 0.0, end, memory.blocks, kv.block_size,
            kv.peak, kv.taken, kv.returned, kv.blocks - kv.free, engine.preemptions,
        ))  # fmt: skip

    def _end(self, request: Request, status: int, reason: int) -> None:
        self.ended += 1
        overhead = self.overheads[request.replica]
        self._requests.append((
            request.id, request.workload, request.session, request.replica, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, status, reason,
            overhead,
        ))  # fmt: skip
        if request.done is not None:
            # The event leads back to the request; without this cut every call would be a cycle for the garbage collector.
            done, request.done = request.done, None
            Answer(self._env, self._env._now + overhead, request, done.succeed)
