"""Writes the facts of a run down: a row when a request ends, a row per replica at the close. Engines write their own stretches, and
between two ends of requests they make few: that is when full chunks of those are put away.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from simpy import Environment

from sim.core.record import Table
from sim.core.request import COMPLETED, FAILED, REJECTED, UNFINISHED, Request
from sim.core.tables import tables
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.timer import Answer

if TYPE_CHECKING:
    from sim.world.replicas import Replicas


class Span(NamedTuple):
    """A replica's life, s: when its GPUs were its own, when it could take its first request (NaN: never), when it ended."""

    start: float
    ready: float
    end: float


class Recorder:
    """The tables of a run. `ended` counts requests with a row; `last` is when the last of them ended of itself, s.

    `overheads` are what a request spends outside its engine, (seconds, seconds per prompt token), an entry per replica and one for none
    (-1): an answer comes that much later. What the engine does is not touched: a delay that is much the same for all moves arrivals and
    answers, not their order. `watches` are told of each request that ends, and how; `away` says
    how long its answer travels back.
    """

    def __init__(self, env: Environment):
        self._env = env
        self.tables: dict[str, Table] = tables()
        self._requests, self._stretches = self.tables["requests"], self.tables["stretches"]
        self.overheads: list[tuple[float, float]] = [(0.0, 0.0)]
        self.watches: list[Callable[[Request, int], None]] = []
        self.away: Callable[[Request], float] | None = None
        self.ended = 0
        self.last = 0.0

    def left(self, request: Request) -> None:
        """A request has left its engine: with its last token, or called off."""
        if request.last != request.last:
            self.failed(request, request.reason)
            return
        self.last = self._env._now
        self._end(request, COMPLETED, 0)

    def rejected(self, request: Request, reason: str) -> None:
        self.last = self._env._now
        request.reason = reason
        self._end(request, REJECTED, self._requests.label("reason", reason))

    def failed(self, request: Request, reason: str) -> None:
        """A request that was let in comes to nothing."""
        self.last = now = self._env._now
        self.tables["losses"].append((request.id, request.replica, now, request.stalled, request.computed))
        self._end(request, FAILED, self._requests.label("reason", reason))

    def overhead(self, request: Request) -> float:
        """Seconds that a request spends outside its engine."""
        fixed, reading = self.overheads[request.replica]
        seconds = fixed + reading * request.prompt
        return seconds if self.away is None else seconds + self.away(request)

    def unfinished(self, request: Request) -> None:
        self._end(request, UNFINISHED, 0)

    def replica(self, opened: Replicas, engine: Engine | ExactEngine, life: Span) -> None:
        """What a replica had and did in its life."""
        table, pool, kv, moves = self.tables["replicas"], opened.pool, engine.kv, engine.moves
        kept = moves.keeper.close(life.end) if moves is not None and moves.keeper is not None else (0, 0.0)
        table.append((
            table.label("pool", pool.name), table.label("gpu", pool.gpu), pool.parallel.gpus, *life, opened.memory.blocks, kv.block_size,
            kv.peak, kv.taken, kv.returned, kv.blocks - kv.free, engine.preemptions, *kept,
        ))  # fmt: skip

    def _end(self, request: Request, status: int, reason: int) -> None:
        self.ended += 1
        self._stretches.trim()
        for watch in self.watches:
            watch(request, status)
        overhead = self.overhead(request)
        common = min(request.cached, request.content.common) if request.content is not None else 0
        self._requests.append((
            request.id, request.workload, request.session, request.replica, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, status, reason,
            request.cached, common, overhead,
        ))  # fmt: skip
        if request.done is not None:
            # The event leads back to the request; without this cut every call would be a cycle for the garbage collector.
            done, request.done = request.done, None
            Answer(self._env, self._env._now + overhead, request, done.succeed)
