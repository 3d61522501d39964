"""One replica's inference engine: plan, wait, commit, a stretch of steps at a time.

Between two changes of its batch an engine repeats the same step, each sequence one token longer. Such a run is one event: at its start the
engine knows the first step at which anything can change (a completion, the KV blocks running out, a prompt chunk, a kink of the step
time) and sets one timer. An arrival cuts the stretch at the end of the step in flight. `world/exact.py` does the same one step at a time.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.base import StepModel
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.paged import Paged
from sim.world.decoders import Decoders
from sim.world.timer import WAKE, Timer


class Engine:
    """A replica: `submit` requests, and `ended(request)` is called when one has its last token. It is also the router's view of itself."""

    __slots__ = (
        "_batcher",
        "_chunks",
        "_ended",
        "_env",
        "_fresh",
        "_group",
        "_idle",
        "_limits",
        "_lookahead",
        "_model",
        "_order",
        "_pairs",
        "_ring",
        "_slope",
        "_stalls",
        "_start",
        "_step_seconds",
        "_steps",
        "_stretches",
        "_ticket",
        "_tokens",
        "admit",
        "in_flight",
        "index",
        "kv",
        "preemptions",
        "prefilling",
        "running",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, env: Environment, index: int, model: StepModel, kv: Paged, policy: tuple[Batcher, Limits],
        record: tuple[Table, Table, Callable[[Request], None]],
    ):  # fmt: skip
        self._env, self.index, self._model, self.kv = env, index, model, kv
        self._batcher, self._limits = policy
        self._lookahead = self._limits.lookahead
        self._stretches, self._stalls, self._ended = record
        self._group = Decoders(kv.block_size)
        self.waiting: deque[Request] = deque()
        self._fresh: deque[tuple[float, Request]] = deque()
        self.prefilling: list[Request] = []
        self.running: dict[int, Request] = {}
        self.admit = True
        self.in_flight = self.preemptions = 0
        self._chunks: list[tuple[Request, int]] = []
        self._idle, self._ticket, self._order = True, 0, 0
        self._start = self._step_seconds = self._slope = self._pairs = 0.0
        self._steps = self._tokens = 0
        self._ring = self._tick

    # -- what others see ------------------------------------------------------------
    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self._fresh)

    @property
    def decoders(self) -> int:
        return self._group.count

    def next_blocks(self) -> int:
        return self._group.blocks(1)

    def submit(self, request: Request) -> None:
        """Queue a request: it can join at the end of the step in flight, with lookahead one step later. An idle engine starts once this
        instant's arrivals are in.
        """
        self.in_flight += 1
        if self._idle:
            self.waiting.append(request)
            self._idle = False
            self._steps = 0
            self._wait(WAKE)
        elif self._lookahead and self._steps:
            fresh = self._fresh
            fresh.append((self._env._now, request))
            if self._steps > 1 and len(fresh) == 1 and not self.waiting and len(self.running) < self._limits.max_num_seqs:
                self._cut(1)
        else:
            self.waiting.append(request)
            if self._steps > 1 and len(self.waiting) == 1 and len(self.running) < self._limits.max_num_seqs:
                self._cut(0)

    def settle(self) -> list[Request]:
        """Stop here: count the whole steps made so far, and return the requests that have not ended, up to date."""
        if self._steps and not self._chunks:
            self._steps = min(self._steps_by(self._env.now, math.floor), self._steps)
            if self._steps:
                self._advance(self._start + self._lasts(self._steps))
        for request in self.running.values():
            if request.joined >= 0:
                self._group.leave(request)
        return [*self.running.values(), *self.waiting, *(request for _, request in self._fresh)]

    # -- plan, wait, commit ------------------------------------------------------------
    def _tick(self, timer: Any) -> None:
        if timer._value == self._ticket:
            if self._steps:
                if self._fresh:
                    self._join(self._start + self._lasts(self._steps - 1) if self._steps > 1 else self._start)
                self._commit()
            self._plan()

    def _join(self, before: float) -> None:
        """Let in who came before the last step began: its successor's batch was not chosen yet."""
        fresh = self._fresh
        while fresh and fresh[0][0] <= before:
            self.waiting.append(fresh.popleft()[1])

    def _plan(self) -> None:
        group = self._group
        self._start = self._env._now
        if self._fresh and not self.running and not self.waiting:
            self._join(self._start)
        self._chunks = chunks = self._choose()
        if chunks:
            self._steps = 1
            self._slope = 0.0
            self._step_seconds = self._price(chunks)
            self._wait(self._step_seconds)
        elif group.count:
            # A step that preempted admits nobody; the next one may.
            steps = group.fits(self.kv.free, group.until_finish()) if self.admit and not self._fresh else 1
            self._step_seconds, slope, most = self._model.line(group.count, group.held)
            self._slope = slope
            self._steps = steps = steps if steps < most else most
            self._wait(steps * (self._step_seconds + slope * (steps - 1) / 2))
        else:
            self._idle = True
            self._steps = 0

    def _choose(self) -> list[tuple[Request, int]]:
        """The prompt chunks of the next step, their blocks taken; preempts until the running requests' next tokens fit."""
        self.admit = True
        group, free = self._group, self.kv.free
        # Nobody to prefill or admit, and blocks for all: a decoder takes at most one, so their number settles it in most steps.
        if (
            not self.prefilling
            and (not self.waiting or len(self.running) >= self._limits.max_num_seqs)
            and (group.count <= free or group.blocks(1) <= free)
        ):
            return []
        while True:
            chunks, preempt = self._batcher.plan(self, self.kv, self._limits, self._start)
            if not preempt:
                break
            for request in preempt:
                self._preempt(request)
            self.admit = False
        for request, tokens in chunks:
            self.kv.grow(request, tokens)
            if request.order < 0:
                self._admit(request)
        return chunks

    def _price(self, chunks: list[tuple[Request, int]]) -> float:
        """Length of a step with chunks; keeps their token and query-key pair counts for the record."""
        tokens, pairs = 0, 0.0
        for request, n in chunks:
            tokens += n
            pairs += n * (request.computed + (n + 1) / 2)
        self._tokens, self._pairs = tokens, pairs
        return self._model.mixed(self._group.count, self._group.held, chunks)

    def _wait(self, seconds: float) -> None:
        # An overtaken timer finds its number stale.
        self._ticket = ticket = self._ticket + 1
        Timer(self._env, seconds, ticket, self._ring)

    def _cut(self, more: int) -> None:
        """End the stretch with the step in flight, or so many steps later."""
        now = self._env._now
        steps = self._steps_by(now, math.ceil)
        if steps < 1:
            steps = 1
        steps += more
        if steps < self._steps:
            self._steps = steps
            left = self._start + self._lasts(steps) - now
            self._wait(left if left > 0.0 else 0.0)

    def _lasts(self, steps: int) -> float:
        return steps * (self._step_seconds + self._slope * (steps - 1) / 2)

    def _steps_by(self, now: float, whole: Callable[[float], int]) -> int:
        """Steps of this stretch made by `now`, rounded by `whole`: the root of `_lasts`, in the form that does not cancel."""
        gone = now - self._start
        if gone <= 0.0:
            return 0
        half = self._step_seconds - self._slope / 2
        steps = 2 * gone / (half + math.sqrt(half * half + 2 * self._slope * gone))
        near = round(steps)
        return near if abs(steps - near) < 1e-9 else whole(steps)

    def _commit(self) -> None:
        now = self._env._now
        self._advance(now)
        group = self._group
        if group.finish and group.finish[0][0] <= group.step:
            for request in group.finished():
                request.last = now
                self._leave(request)
        for request, tokens in self._chunks:
            request.computed += tokens
            if request.computed == request.prompt + request.generated:
                self._emit(request, now)
            elif request not in self.prefilling:
                self.prefilling.append(request)
        self._chunks = []

    def _advance(self, now: float) -> None:
        """Every decoder gets the stretch's tokens; the stretch is recorded."""
        group, kv, steps, chunks = self._group, self.kv, self._steps, self._chunks
        count = group.count
        if count:
            kv.take(group.blocks(steps))
        tokens, pairs = (self._tokens, self._pairs) if chunks else (0, 0.0)
        self._stretches.append((
            self._start, now - self._start, self._step_seconds, self.index, steps, count, group.held, len(chunks), tokens, pairs,
            len(self.waiting) + len(self._fresh), kv.blocks - kv.free,
        ))  # fmt: skip
        group.step += steps
        group.held += count * steps

    def _emit(self, request: Request, now: float) -> None:
        """A prompt is computed: its next token is out, and the request decodes on or ends."""
        if request in self.prefilling:
            self.prefilling.remove(request)
        if request.generated == 0:
            request.first = now
        elif request.stalled == request.stalled:
            self._stalls.append((request.id, self.index, request.stalled, now))
            request.stalled = math.nan
        request.generated += 1
        if request.generated < request.output:
            self._group.join(request)
        else:
            request.last = now
            self._leave(request)

    # -- coming and going ------------------------------------------------------------
    def _admit(self, request: Request) -> None:
        if self.waiting[0] is request:
            self.waiting.popleft()
        else:
            self.waiting.remove(request)
        self._order = request.order = self._order + 1
        self.running[request.order] = request
        if request.admitted != request.admitted:
            request.admitted = self._start

    def _leave(self, request: Request) -> None:
        self.kv.drop(request)
        del self.running[request.order]
        request.order = -1
        self.in_flight -= 1
        self._ended(request)

    def _preempt(self, request: Request) -> None:
        """Recompute later: drop the cache, keep the tokens, go to the head of the queue."""
        if request.joined >= 0:
            self._group.preempt(request)
            request.stalled = self._start
        else:
            self.prefilling.remove(request)
        self.kv.drop(request)
        del self.running[request.order]
        request.order = -1
        request.computed = request.cached
        request.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(request)
