"""The oracle: the same engine, one event per step, every request touched in every step. Slow and obvious; the fast engine must equal it.

`exact_steps: true` puts it in place of `world/engine.py`. It prices steps with `StepModel.step`, from first principles, so the tabulated
forms are checked too. Admission and preemption are the batcher's in both; what differs is everything that makes the fast one fast.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.base import StepModel, Work
from sim.physics.speculation import Acceptance
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.base import KvCache
from sim.world.adapters import Adapters
from sim.world.exact_standing import Standing
from sim.world.moves import Moves
from sim.world.timer import WAKE, Timer


@dataclass
class Draft:
    """A decoder under speculation: tokens in the cache when it joined, tokens out after each of its steps, steps made."""

    base: int
    tokens: list[int]
    steps: int = 0

    def out(self, steps: int) -> int:
        return self.tokens[steps - 1] if steps else 0

    def holds(self, steps: int, k: int, block_size: int) -> int:
        """Blocks held once so many steps are under way or made: each may compute k + 1 tokens, none beyond the request's end."""
        most = self.base + (self.out(steps - 1) + k + 1 if steps else 0)
        return math.ceil(min(most, self.base + self.tokens[-1]) / block_size)


class ExactEngine(Standing):
    """A replica that steps one step at a time, as a SimPy process."""

    def __init__(
        self, env: Environment, index: int, model: StepModel, kv: KvCache, policy: tuple[Batcher, Limits, Acceptance | None],
        record: tuple[Table, Table, Callable[[Request], None]],
    ):  # fmt: skip
        self.env, self.index, self.model, self.kv = env, index, model, kv
        self.batcher, self.limits, self.law = policy
        self.order_of = self.batcher.order
        self.drafts: dict[int, Draft] = {}
        self.made, self.owed = 0, 0.0
        self.stretches, self.stalls, self.ended = record
        self.waiting = self.batcher.queue()
        self.fresh: deque[tuple[float, Request]] = deque()
        self.busy = self.paused = False
        self.halt = None
        self.moves: Moves | None = None
        self.adapters: Adapters | None = None
        self.ready: list[Request] = []
        self.loading: list[Request] = []
        self.gone: list[Request] = []
        self.extra = 0.0
        self.prefilling: list[Request] = []
        self.running: dict[int, Request] = {}
        self.in_flight = self.preemptions = self.order = 0
        self.admit, self.wake = True, env.event()
        self.chunks: list[tuple[Request, int]] = []
        self.since = self.rested = env.now
        env.process(self.live())

    @property
    def worked(self) -> float:
        return (self.env.now if self.busy else self.since) - self.rested

    @property
    def used(self) -> int:
        return self.kv.blocks - self.kv.free

    @property
    def decoding(self) -> list[Request]:
        return [request for request in self.running.values() if request not in self.prefilling]

    @property
    def decoders(self) -> int:
        return len(self.decoding)

    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self.fresh) + len(self.ready) + len(self.loading)

    def next_blocks(self) -> int:
        return sum(self.grows_by(request) for request in self.decoding)

    def grows_by(self, request: Request) -> int:
        """Blocks a decoder takes in the next step."""
        if not self.kv.grows:
            return 0
        if self.law is None:
            return self.kv.need(request, 1)
        draft = self.drafts[request.id]
        return draft.holds(draft.steps + 1, self.law.k, self.kv.block_size) - draft.holds(draft.steps, self.law.k, self.kv.block_size)

    def held(self, request: Request) -> float:
        """Tokens a decoder holds, as steps are priced."""
        if self.law is None:
            return request.computed
        draft = self.drafts[request.id]
        return draft.base + self.law.e * draft.steps

    def submit(self, request: Request) -> None:
        if self.limits.lookahead and self.busy:
            self.fresh.append((self.env.now, request))
        else:
            self.waiting.append(request)
        self.in_flight += 1
        self.poke()

    def poke(self) -> None:
        if self.paused:
            self.lose()
        elif not self.wake.triggered and (self.waiting or self.ready or self.gone):
            self.wake.succeed()

    def progress(self, request: Request) -> int:
        return request.generated if request.asked is None else min(request.generated, request.asked[1])

    def loaded(self, request: Request) -> None:
        self.loading.remove(request)
        self.ready.append(request)
        if request.reason:
            self.gone.append(request)
        self.poke()

    def cancel(self, request: Request) -> None:
        if request.order < 0:
            if self.moves is not None and request.id in self.moves.leaving:
                return
            entry = next((entry for entry in self.fresh if entry[1] is request), None)
            if entry is not None:
                self.fresh.remove(entry)
            else:
                self.waiting.remove(request)
            if request.brought and self.moves is not None:
                self.moves.forget(request)
            request.computed = 0
            self.in_flight -= 1
            self.ended(request.unpadded())
            self.poke()
        elif request not in self.loading:
            self.gone.append(request)
            self.poke()

    def settle(self) -> list[Request]:
        queued = [*self.ready, *self.loading, *self.waiting, *(request for _, request in self.fresh)]
        if self.moves is not None:
            queued += self.moves.leaving.values()
            for request in queued:
                if request.brought:
                    self.moves.forget(request)
        return [request.unpadded() for request in (*self.running.values(), *queued)]

    def live(self) -> Generator[Any, Any, None]:
        while True:
            self.lose()
            if self.halt is not None:
                self.stop(self.halt)
            if self.paused:
                yield from self.rest()
                continue
            if self.moves is not None:
                self.moves.due(self.env.now)
            if not self.waiting and not self.running and not self.ready:
                self.join(self.env.now)
            self.chunks, decoding = [], list[Request]()
            if self.waiting or self.running or self.ready:
                self.busy, start, decoding = True, self.env.now, self.plan()
            if not decoding and not self.chunks and self.fresh:
                self.join(self.env.now)
                continue
            if not decoding and not self.chunks:
                assert not self.running, "an engine with running requests always has something to do"
                self.busy, self.wake, self.since = False, self.env.event(), self.env.now
                yield from self.rest()
                continue
            work = Work(tuple((n, r.computed) for r, n in self.chunks), len(decoding), sum(self.held(r) for r in decoding))
            seconds = self.model.step(work).seconds + self.extra
            if self.adapters is not None:
                seconds += self.adapters.plainly(self.chunks, decoding)
            self.extra = 0.0
            yield Timer(self.env, seconds, 0, lambda _: None)
            for request in decoding:
                self.kv.take(self.grows_by(request))
            self.made += bool(decoding)
            self.record(start, seconds, work, self.emitted(decoding))
            self.join(start)
            self.commit(decoding)

    def rest(self) -> Generator[Any, Any, None]:
        yield self.wake
        self.rested, self.since = self.rested + self.env.now - self.since, self.env.now
        yield Timer(self.env, WAKE, 0, lambda _: None)

    def join(self, before: float) -> None:
        """Whoever came before the last step began is in the queue when the next one is planned."""
        while self.fresh and self.fresh[0][0] <= before:
            self.waiting.append(self.fresh.popleft()[1])

    def plan(self) -> list[Request]:
        """Preempt, admit and take the chunks' blocks; returns who decodes in this step."""
        self.admit = True
        self.order_of.at(self.made)
        while True:
            chunks, preempt, decode = self.batcher.plan(self, self.kv, self.limits, self.env.now)
            if self.moves is not None and (preempt or not (chunks or self.running or self.loading)) and self.moves.yields():
                continue
            if not preempt:
                break
            for request in preempt:
                self.preempt(request)
            self.admit = not self.running
        for request, tokens in chunks:
            if request.order > 0:
                continue
            (self.waiting if request.order else self.ready).remove(request)
            if math.isnan(request.admitted):
                request.admitted, request.cached = self.env.now, request.computed
            if not tokens and self.moves is not None:
                request.order = 0
                self.loading.append(request)
                self.moves.fetch(self, request)
                continue
            if self.moves is not None:
                self.moves.admitted(request)
            self.order = request.order = self.order + 1
            self.running[request.order] = request
            self.prefilling.append(request)
            self.order_of.admitted(request)
            if self.adapters is not None:
                self.extra += self.adapters.enter(request, self.env.now)
        self.chunks = [chunk for chunk in chunks if chunk[1]]
        return self.decoding if decode else []

    def preempt(self, request: Request) -> None:
        if request.order == 0:
            self.ready.remove(request)
        elif request in self.prefilling:
            self.prefilling.remove(request)
        else:
            request.stalled = self.env.now
        if request.order:
            self.left(request)
        spare = self.stop_drafting(request)
        if self.moves is not None:
            self.extra += self.moves.swap_out(request)
        self.kv.drop(request)
        if spare:
            self.kv.give(spare)
        self.running.pop(request.order, None)
        request.order, request.computed, request.preemptions = -1, 0, request.preemptions + 1
        self.preemptions += 1
        self.waiting.appendleft(request)

    def lose(self) -> None:
        """Who was called off while it held blocks leaves, unless its last step has just ended it or handed it on."""
        for request in self.gone:
            if request.order < 0:
                continue
            spare = 0
            if request.order == 0:
                self.ready.remove(request)
            else:
                self.stand_still(request)
                if request in self.prefilling:
                    self.prefilling.remove(request)
                del self.running[request.order]
                self.left(request)
                spare = self.stop_drafting(request)
            self.kv.drop(request)
            if spare:
                self.kv.give(spare)
            request.order = -1
            self.in_flight -= 1
            self.ended(request.unpadded())
        self.gone.clear()

    def commit(self, decoding: list[Request]) -> None:
        for request, tokens in [*((request, self.next_tokens(request)) for request in decoding), *self.chunks]:
            request.computed += tokens
            if request.computed < request.prompt + request.generated and request in self.prefilling:
                continue
            joins = request in self.prefilling
            if joins:
                self.prefilling.remove(request)
            if request.generated == 0:
                request.first = self.env.now
                if request.watch is not None:
                    request.watch(request)
            elif not math.isnan(request.stalled):
                self.stalls.append((request.id, self.index, request.stalled, self.env.now))
                request.stalled = math.nan
            request.generated += 1 if joins else tokens
            if request.generated == request.output:
                request.last = self.env.now
                self.stop_drafting(request)
                self.left(request)
                (self.moves or self.kv).drop(request)
                del self.running[request.order]
                request.order = -1
                self.in_flight -= 1
                self.ended(request.unpadded())
            elif joins and self.moves is not None and self.moves.hands_on:
                del self.running[request.order]
                self.in_flight -= 1
                self.left(request)
                self.moves.hand_on(self, request)
            elif joins:
                self.order_of.joined(request, self.made)
                if self.law is not None:
                    tokens_out = self.law.trajectory(request.output - request.generated, request.id, request.preemptions).tolist()
                    self.drafts[request.id] = Draft(request.computed, tokens_out)

    def left(self, request: Request) -> None:
        """A request runs here no more."""
        self.order_of.left(request, self.made)
        if self.adapters is not None:
            self.adapters.leave(request)

    def next_tokens(self, request: Request) -> int:
        """Tokens that the step just made gives a decoder."""
        if self.law is None:
            return 1
        draft = self.drafts[request.id]
        draft.steps += 1
        return draft.out(draft.steps) - draft.out(draft.steps - 1)

    def emitted(self, decoding: list[Request]) -> float:
        """Tokens of a step as they are recorded: at the expected pace, but for a request's last."""
        if self.law is None:
            return len(decoding)
        tokens, self.owed = self.law.e * len(decoding) + self.owed, 0.0
        for draft in (self.drafts[request.id] for request in decoding):
            if draft.steps + 1 == len(draft.tokens):
                tokens += draft.tokens[-1] - self.law.e * len(draft.tokens)
        return tokens

    def stop_drafting(self, request: Request) -> int:
        """A decoder leaves; returns the blocks it held for tokens that were not kept."""
        draft = self.drafts.pop(request.id, None)
        if draft is None or self.law is None:
            return 0
        if draft.steps < len(draft.tokens):
            self.owed += draft.out(draft.steps) - self.law.e * draft.steps
        if not self.kv.grows:
            return 0
        return draft.holds(draft.steps, self.law.k, self.kv.block_size) - math.ceil(request.computed / self.kv.block_size)

    def record(self, start: float, seconds: float, work: Work, got: float) -> None:
        tokens, pairs = sum(n for n, _ in work.chunks), sum((n * (before + (n + 1) / 2) for n, before in work.chunks), 0.0)
        self.stretches.append((
            start, seconds, seconds, self.index, 1, work.decoders, work.held, len(work.chunks), tokens, pairs, self.queued,
            self.kv.blocks - self.kv.free, len(self.decoding) - work.decoders, got,
        ))  # fmt: skip
