"""The oracle: the same engine, one event per step, every request touched in every step. Slow and obvious; the fast engine must equal it.

`exact_steps: true` puts it in place of `world/engine.py`. It prices steps with `StepModel.step`, from first principles, so the tabulated
forms are checked too. Admission and preemption are the batcher's in both; what differs is everything that makes the fast one fast.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.base import StepModel, Work
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.paged import Paged
from sim.world.timer import WAKE, Timer


class ExactEngine:
    """A replica that steps one step at a time, as a SimPy process."""

    def __init__(
        self, env: Environment, index: int, model: StepModel, kv: Paged, policy: tuple[Batcher, Limits],
        record: tuple[Table, Table, Callable[[Request], None]],
    ):  # fmt: skip
        self.env, self.index, self.model, self.kv = env, index, model, kv
        self.batcher, self.limits = policy
        self.stretches, self.stalls, self.ended = record
        self.waiting: deque[Request] = deque()
        self.fresh: deque[tuple[float, Request]] = deque()
        self.busy = False
        self.prefilling: list[Request] = []
        self.running: dict[int, Request] = {}
        self.in_flight = self.preemptions = self.order = 0
        self.admit, self.wake = True, env.event()
        self.chunks: list[tuple[Request, int]] = []
        env.process(self.live())

    @property
    def decoding(self) -> list[Request]:
        return [request for request in self.running.values() if request not in self.prefilling]

    @property
    def decoders(self) -> int:
        return len(self.decoding)

    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self.fresh)

    def next_blocks(self) -> int:
        return sum(self.kv.need(request, 1) for request in self.decoding)

    def submit(self, request: Request) -> None:
        if self.limits.lookahead and self.busy:
            self.fresh.append((self.env.now, request))
        else:
            self.waiting.append(request)
        self.in_flight += 1
        if not self.wake.triggered:
            self.wake.succeed()

    def settle(self) -> list[Request]:
        return [*self.running.values(), *self.waiting, *(request for _, request in self.fresh)]

    def live(self) -> Generator[Any, Any, None]:
        while True:
            if not self.waiting and not self.running:
                self.join(self.env.now)
            if not self.waiting and not self.running:
                self.busy, self.wake = False, self.env.event()
                yield self.wake
                yield Timer(self.env, WAKE, 0, lambda _: None)
            self.busy = True
            start, decoding = self.env.now, self.plan()
            assert self.running, "requests wait that nothing can ever admit"
            work = Work(tuple((n, r.computed) for r, n in self.chunks), len(decoding), sum(r.computed for r in decoding))
            seconds = self.model.step(work).seconds
            yield Timer(self.env, seconds, 0, lambda _: None)
            for request in decoding:
                self.kv.grow(request, 1)
            self.record(start, seconds, work)
            self.join(start)
            self.commit(decoding)

    def join(self, before: float) -> None:
        """Whoever came before the last step began is in the queue when the next one is planned."""
        while self.fresh and self.fresh[0][0] <= before:
            self.waiting.append(self.fresh.popleft()[1])

    def plan(self) -> list[Request]:
        """Preempt, admit and take the chunks' blocks; returns who decodes in this step."""
        self.admit = True
        while True:
            chunks, preempt = self.batcher.plan(self, self.kv, self.limits, self.env.now)
            if not preempt:
                break
            for request in preempt:
                self.preempt(request)
            self.admit = False
        for request, tokens in chunks:
            self.kv.grow(request, tokens)
            if request.order < 0:
                self.waiting.remove(request)
                self.order = request.order = self.order + 1
                self.running[request.order] = request
                self.prefilling.append(request)
                request.admitted = self.env.now if math.isnan(request.admitted) else request.admitted
        self.chunks = chunks
        return self.decoding

    def preempt(self, request: Request) -> None:
        if request in self.prefilling:
            self.prefilling.remove(request)
        else:
            request.stalled = self.env.now
        self.kv.drop(request)
        del self.running[request.order]
        request.order, request.computed, request.preemptions = -1, request.cached, request.preemptions + 1
        self.preemptions += 1
        self.waiting.appendleft(request)

    def commit(self, decoding: list[Request]) -> None:
        for request, tokens in [*((request, 1) for request in decoding), *self.chunks]:
            request.computed += tokens
            if request.computed < request.prompt + request.generated:
                continue
            if request in self.prefilling:
                self.prefilling.remove(request)
            if request.generated == 0:
                request.first = self.env.now
            elif not math.isnan(request.stalled):
                self.stalls.append((request.id, self.index, request.stalled, self.env.now))
                request.stalled = math.nan
            request.generated += 1
            if request.generated == request.output:
                request.last = self.env.now
                self.kv.drop(request)
                del self.running[request.order]
                self.in_flight -= 1
                self.ended(request)

    def record(self, start: float, seconds: float, work: Work) -> None:
        tokens, pairs = sum(n for n, _ in work.chunks), sum((n * (before + (n + 1) / 2) for n, before in work.chunks), 0.0)
        self.stretches.append((
            start, seconds, seconds, self.index, 1, work.decoders, work.held, len(work.chunks), tokens, pairs, self.queued,
            self.kv.blocks - self.kv.free,
        ))  # fmt: skip
