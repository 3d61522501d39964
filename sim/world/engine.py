"""One replica's inference engine: plan, wait, commit, a stretch of steps at a time.

Between two changes of its batch an engine repeats the same step, each sequence one token longer. Such a run is one event: at its start the
engine knows the first step at which anything can change (a completion, the KV blocks running out, a prompt chunk, a kink of the step
time) and sets one timer. An arrival cuts the stretch at the end of the step in flight, and so does who pauses the engine: then no step
begins until it is resumed. `world/exact.py` does the same one step at a time.
"""
from __future__ import annotations

import math
from collections.abc import Callable

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.base import StepModel
from sim.physics.speculation import Acceptance
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.base import KvCache
from sim.world.clock import Clock
from sim.world.members import Members
from sim.world.timer import WAKE


class Engine(Members):
    """A replica: `submit` requests, and `ended(request)` is called when one leaves. It is also the router's view of itself."""

    __slots__ = (
        "_alarm",
        "_chunks",
        "_decode",
        "_halt",
        "_idle",
        "_lookahead",
        "_note",
        "_pairs",
        "_ring",
        "_slope",
        "_step_seconds",
        "_steps",
        "_ticket",
        "_tokens",
        "admit",
        "model",
        "rested",
    )

    def __init__(
        self, env: Clock, index: int, model: StepModel, kv: KvCache, policy: tuple[Batcher, Limits, Acceptance | None],
        record: tuple[Table, Table, Callable[[Request], None]],
    ):  # fmt: skip
        stretches, stalls, ended = record
        super().__init__(env, index, kv, policy, (stalls, ended))
        self.model = model
        self._lookahead = self._limits.lookahead
        self._note = stretches.add
        self.admit = self._decode = True
        self._chunks: list[tuple[Request, int]] = []
        self._idle, self._ticket = True, 0
        self._halt: Callable[[], None] | None = None
        self._step_seconds = self._slope = self._pairs = 0.0
        self._steps = self._tokens = 0
        self._ring, self._alarm = self._tick, env.alarm
        self._start = self.rested = env.now

    # -- what others see ------------------------------------------------------------
    @property
    def worked(self) -> float:
        """Seconds spent in steps so far."""
        return (self._start if self._idle else self._env._now) - self.rested

    @property
    def used(self) -> int:
        """KV blocks in use, with those that the steps made in the stretch under way have taken."""
        taken = self.kv.blocks - self.kv.free
        if self._steps > 1 and self._group.count:
            taken += self._group.blocks(min(self._steps_by(self._env._now, math.floor), self._steps))
        return taken

    def progress(self, request: Request) -> int:
        """Tokens generated for a request that is here, those of the steps made in the stretch under way included."""
        if request.joined < 0:
            return request.generated
        tokens = self._group.out(request, self._made(self._env._now))
        return tokens if request.asked is None else min(tokens, request.asked[1])

    def _made(self, at: float) -> int:
        """Whole steps of this stretch made before a time; the last is made when the stretch ends."""
        if self._steps < 2 or at <= self._start:
            return 0
        return min(self._steps_by(at, math.floor), self._steps - 1)

    # -- what others do ------------------------------------------------------------
    def submit(self, request: Request) -> None:
        """Queue a request: it can join at the end of the step in flight, with lookahead one step later. An idle engine starts once this
        instant's arrivals are in.
        """
        self.in_flight += 1
        if self._idle:
            self.waiting.append(request)
            self._wake()
        elif self._lookahead and self._steps:
            fresh = self._fresh
            fresh.append((self._env._now, request))
            if self._steps > 1 and len(fresh) == 1 and self._heard(len(self.waiting)):
                self._cut(1)
        else:
            self.waiting.append(request)
            if self._steps > 1 and self._heard(len(self.waiting) - 1):
                self._cut(0)

    def _heard(self, before: int) -> bool:
        """Whether an arrival, with so many queued before it, may be admitted."""
        if self._meter is not None or self.adapters is not None:
            return True
        return (not before or self._batcher.overtakes) and len(self.running) < self._limits.max_num_seqs

    def cancel(self, request: Request) -> None:
        """Who sent a request that is here wants it no more. From the queue it goes at once; while it runs, at the end of the step in
        flight, unless that step is its last; and while keys and values come to it, when they are in.
        """
        if request.order < 0:
            if self.moves is not None and request.id in self.moves.leaving:
                return
            self._withdraw(request)
            if len(self.running) < self._limits.max_num_seqs and (self.waiting or self.ready or self._fresh):
                self.poke()
        elif request not in self.loading:
            self._gone.append(request)
            self.poke()

    def loaded(self, request: Request) -> None:
        """What the request had elsewhere is in the cache: it can run."""
        self.loading.remove(request)
        self.ready.append(request)
        if request.reason:
            self._gone.append(request)
        self.poke()

    def poke(self) -> None:
        """Something changed that a stretch does not foresee: plan anew at the end of the step in flight."""
        if not self._idle:
            if self._steps > 1:
                self._cut(0)
        elif self.paused:
            self._lose()
        elif self.waiting or self.ready or self._gone:
            self._wake()

    def pause(self, done: Callable[[], None]) -> None:
        """Begin no step from now on; `done` is called when the step in flight has ended, at once where there is none. Requests that come
        wait, those that run stand still with their blocks, and who is called off leaves at once.
        """
        assert not self.paused, "the engine is paused already"
        assert self._halt is None, "the engine is about to be paused already"
        if self._idle:
            self.paused = True
            done()
        else:
            self._halt = done
            self.poke()

    def resume(self) -> None:
        """Go on, not before the `done` of `pause` has been called."""
        assert self.paused, "the engine is not paused"
        self.paused = False
        if self.waiting or self.ready or self.running:
            self._wake()

    def _stop(self, done: Callable[[], None]) -> None:
        self._join(math.inf)
        self._halt, self.paused, self._idle = None, True, True
        self._start, self._steps = self._env._now, 0
        done()

    def _wake(self) -> None:
        if self.paused:
            return
        self.rested += self._env._now - self._start
        self._idle, self._steps = False, 0
        self._wait(WAKE)

    def settle(self) -> list[Request]:
        """Stop here: count the whole steps made so far, and return the requests that have not ended, up to date."""
        if self._steps and not self._chunks:
            self._steps = min(self._steps_by(self._env.now, math.floor), self._steps)
            if self._steps:
                self._advance(self._start + self._lasts(self._steps))
        for request in self.running.values():
            if request.joined >= 0:
                self._group.leave(request)
        queued = [*self.ready, *self.loading, *self.waiting, *(request for _, request in self._fresh)]
        if self.moves is not None:
            queued += self.moves.leaving.values()
            for request in queued:
                if request.brought:
                    self.moves.forget(request)
        return [request.unpadded() for request in (*self.running.values(), *queued)]

    # -- plan, wait, commit ------------------------------------------------------------
    def _tick(self, ticket: int) -> None:
        if ticket == self._ticket:
            if self._steps:
                if self._fresh:
                    self._join(self._start + self._lasts(self._steps - 1) if self._steps > 1 else self._start)
                self._commit()
            if self._gone:
                self._lose()
            if self._halt is None:
                self._plan()
            else:
                self._stop(self._halt)

    def _plan(self) -> None:
        group = self._group
        self._start = self._env._now
        if self._fresh and not self.running and not self.waiting and not self.ready:
            self._join(self._start)
        self._chunks = chunks = self._choose()
        if chunks:
            self._steps = 1
            self._slope = 0.0
            seconds = self._price(chunks)
            if self._extra:
                seconds, self._extra = seconds + self._extra, 0.0
            self._step_seconds = seconds
            # `_wait`, written out here and below: a call less in each of a stretch's few microseconds.
            self._ticket = ticket = self._ticket + 1
            self._alarm(seconds, self._ring, ticket)
        elif group.count:
            # A step that preempted admits nobody; the next one may.
            steps = group.fits(self.kv.free, group.until_finish()) if self.admit and not self._fresh else 1
            self._step_seconds, slope, most = self.model.line(group.count, group.held)
            if self.adapters is not None:
                self._step_seconds += self.adapters.seconds((), self.prefilling, True)
            if self._extra:
                self._step_seconds, slope, steps = self._step_seconds + self._extra, 0.0, 1
                self._extra = 0.0
            self._slope = slope
            self._steps = steps = steps if steps < most else most
            self._ticket = ticket = self._ticket + 1
            self._alarm(steps * (self._step_seconds + slope * (steps - 1) / 2), self._ring, ticket)
        elif self._fresh:
            self._join(self._start)
            self._plan()
        else:
            self._idle = True
            self._steps = 0

    def _choose(self) -> list[tuple[Request, int]]:
        """The prompt chunks of the next step, their blocks taken; preempts until the running requests' next tokens fit."""
        self.admit = self._decode = True
        group, free = self._group, self.kv.free
        if self.moves is not None:
            self.moves.due(self._start)
        if self._meter is not None:
            self._meter.at(group.step)
        # Nobody to prefill or admit, and blocks for all: a decoder takes at most one, so their number settles it in most steps.
        if (
            not self.prefilling
            and not self.ready
            and (not self.waiting or len(self.running) >= self._limits.max_num_seqs)
            and (group.count * group.most <= free or group.blocks(1) <= free)
        ):
            return []
        while True:
            chunks, preempt, self._decode = self._batcher.plan(self, self.kv, self._limits, self._start)
            if self.moves is not None and (preempt or not (chunks or self.running or self.loading)) and self.moves.yields():
                continue
            if not preempt:
                break
            for request in preempt:
                self._preempt(request)
            self.admit = not self.running
        for request, tokens in chunks:
            if request.order <= 0:
                self._admit(request, tokens)
        return chunks if self.moves is None else [chunk for chunk in chunks if chunk[1]]

    def _price(self, chunks: list[tuple[Request, int]]) -> float:
        """Length of a step with chunks; keeps their token and query-key pair counts for the record."""
        tokens, pairs = 0, 0.0
        for request, n in chunks:
            tokens += n
            pairs += n * (request.computed + (n + 1) / 2)
        self._tokens, self._pairs = tokens, pairs
        group = self._group
        seconds = self.model.mixed(group.count, group.held, chunks) if self._decode else self.model.mixed(0, 0, chunks)
        return seconds if self.adapters is None else seconds + self.adapters.seconds(chunks, self.prefilling, self._decode)

    def _wait(self, seconds: float) -> None:
        # An overtaken timer finds its number stale.
        self._ticket = ticket = self._ticket + 1
        self._alarm(seconds, self._ring, ticket)

    def _cut(self, more: int) -> None:
        """End the stretch with the step in flight, or so many steps later."""
        now = self._env._now
        steps = (self._steps_by(now, math.ceil) or 1) + more
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
        now, group, chunks = self._env._now, self._group, self._chunks
        self._advance(now)
        if group.finish and group.finish[0][0] <= group.step:
            for request in group.finished():
                request.last = now
                self._leave(request)
            self._spare()
        if chunks:
            for request, tokens in chunks:
                request.computed += tokens
                if request.computed == request.prompt + request.generated:
                    self._emit(request, now)
                elif request not in self.prefilling:
                    self.prefilling.append(request)
            self._chunks = []

    def _advance(self, now: float) -> None:
        """Every decoder gets the stretch's tokens; the stretch is recorded."""
        group, kv, steps, chunks = self._group, self.kv, self._steps, self._chunks
        start, count, held, got, paused = self._start, group.count, group.held, 0.0, 0
        if not self._decode:
            count, held, paused = 0, 0, count
        elif count:
            blocks = group.blocks(steps)
            if blocks:
                kv.take(blocks)
            got = group.advance(steps)
        tokens, pairs = (self._tokens, self._pairs) if chunks else (0, 0.0)
        queued = len(self.waiting) + len(self._fresh) if self.moves is None else self.queued
        self._note((
            start, now - start, self._step_seconds, self.index, steps, count, held, len(chunks), tokens, pairs, queued, kv.blocks - kv.free,
            paused, got,
        ))  # fmt: skip
