"""The requests at an engine, and how they come and go: the half of `world/engine.py` that knows nothing of stretches.

A request waits (`fresh`, then `waiting`), holds blocks without running (`loading` what it has elsewhere, then `ready`), or runs
(`prefilling`, then in the decode group). Whoever sent it may call it off anywhere on this way. While the engine is paused, what is cached
can be forgotten, also that of the requests: then they start again with the tokens they have, in the order in which they were admitted.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from sim.core.record import Table
from sim.core.request import Request
from sim.physics.speculation import Acceptance
from sim.policy.batch.base import Batcher, Limits
from sim.policy.kv.base import KvCache
from sim.world.adapters import Adapters
from sim.world.clock import Clock
from sim.world.moves import Moves
from sim.world.speculators import group


class Members:
    """`waiting`, `ready`, `prefilling` and `running` are what batchers read (`policy/batch/base.py`). `ended(request)` is told of everybody
    who leaves for good: with a last token, or called off. `paused`: no step is under way, and none begins.
    """

    __slots__ = (
        "_batcher",
        "_ended",
        "_env",
        "_extra",
        "_fresh",
        "_gone",
        "_group",
        "_limits",
        "_meter",
        "_order",
        "_stalls",
        "_start",
        "adapters", "in_flight", "index", "kv", "loading", "moves", "paused", "preemptions", "prefilling", "ready", "running", "waiting",
    )  # fmt: skip

    def __init__(
        self, env: Clock, index: int, kv: KvCache, policy: tuple[Batcher, Limits, Acceptance | None],
        record: tuple[Table, Callable[[Request], None]],
    ):  # fmt: skip
        self._env, self.index, self.kv = env, index, kv
        self._batcher, self._limits, law = policy
        self._meter = self._batcher.order if self._batcher.order.meters else None
        self._stalls, self._ended = record
        self._group = group(kv, law)
        self.moves: Moves | None = None
        self.adapters: Adapters | None = None
        self.ready: list[Request] = []
        self.loading: list[Request] = []
        self.waiting = self._batcher.queue()
        self._fresh: deque[tuple[float, Request]] = deque()
        self.prefilling: list[Request] = []
        self.running: dict[int, Request] = {}
        self._gone: list[Request] = []
        self.in_flight = self.preemptions = self._order = 0
        self._start = self._extra = 0.0
        self.paused = False

    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self._fresh) + len(self.ready) + len(self.loading)

    @property
    def decoders(self) -> int:
        return self._group.count

    def next_blocks(self) -> int:
        return self._group.blocks(1)

    def _join(self, before: float) -> None:
        """Let in who came before the last step began: its successor's batch was not chosen yet."""
        fresh = self._fresh
        while fresh and fresh[0][0] <= before:
            self.waiting.append(fresh.popleft()[1])

    def _emit(self, request: Request, now: float) -> None:
        """A prompt is computed: its next token is out, and the request decodes on or ends."""
        if request in self.prefilling:
            self.prefilling.remove(request)
        if request.generated == 0:
            request.first = now
            if request.watch is not None:
                request.watch(request)
        elif request.stalled == request.stalled:
            self._stalls.append((request.id, self.index, request.stalled, now))
            request.stalled = math.nan
        request.generated += 1
        if request.generated >= request.output:
            request.last = now
            self._leave(request)
        elif self.moves is not None and self.moves.hands_on:
            del self.running[request.order]
            self.in_flight -= 1
            self._left(request)
            self.moves.hand_on(self, request)
        else:
            self._group.join(request)
            if self._meter is not None:
                self._meter.joined(request, self._group.step)

    def _admit(self, request: Request, tokens: int) -> None:
        """A request leaves the queue: it runs, or with 0 tokens to compute yet waits for what it has elsewhere."""
        if request.order == 0:
            self.ready.remove(request)
        elif self.waiting[0] is request:
            self.waiting.popleft()
        else:
            self.waiting.remove(request)
        if request.admitted != request.admitted:
            request.admitted = self._start
            request.cached = request.computed
        if not tokens and self.moves is not None:
            request.order = 0
            self.loading.append(request)
            self.moves.fetch(self, request)
            return
        if self.moves is not None:
            self.moves.admitted(request)
        self._order = request.order = self._order + 1
        self.running[request.order] = request
        if self.adapters is not None:
            self._extra += self.adapters.enter(request, self._start)
        if self._meter is not None:
            self._meter.admitted(request)

    def _left(self, request: Request) -> None:
        if self._meter is not None:
            self._meter.left(request, self._group.step)
        if self.adapters is not None:
            self.adapters.leave(request)

    def _leave(self, request: Request) -> None:
        if self._meter is not None or self.adapters is not None:
            self._left(request)
        (self.moves or self.kv).drop(request)
        del self.running[request.order]
        request.order = -1
        self.in_flight -= 1
        self._ended(request if request.asked is None else request.unpadded())

    def _preempt(self, request: Request) -> None:
        """Make room: drop the cache or swap it out, keep the tokens, go to the head of the queue."""
        if request.order == 0:
            self.ready.remove(request)
        else:
            del self.running[request.order]
        if request.joined >= 0:
            self._group.preempt(request)
            request.stalled = self._start
        elif request.order:
            self.prefilling.remove(request)
        if request.order:
            self._left(request)
        if self.moves is not None:
            self._extra += self.moves.swap_out(request)
        self.kv.drop(request)
        self._spare()
        request.order = -1
        request.computed = 0
        request.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(request)

    def _withdraw(self, request: Request) -> None:
        """A request that holds no blocks here is called off: it leaves the queue, and what it has elsewhere is given back."""
        entry = next((entry for entry in self._fresh if entry[1] is request), None)
        if entry is not None:
            self._fresh.remove(entry)
        else:
            self.waiting.remove(request)
        if request.brought and self.moves is not None:
            self.moves.forget(request)
        # What was found for it when it was last looked at, it never had.
        request.computed = 0
        self.in_flight -= 1
        self._ended(request.unpadded())

    def _lose(self) -> None:
        """Those that were called off while they held blocks leave, but for who has just ended or been handed on."""
        for request in self._gone:
            if request.order < 0:
                continue
            if request.order:
                del self.running[request.order]
                if request.joined >= 0:
                    self._stand(request)
                else:
                    self.prefilling.remove(request)
                self._left(request)
            else:
                self.ready.remove(request)
            self.kv.drop(request)
            self._spare()
            request.order = -1
            self.in_flight -= 1
            self._ended(request.unpadded())
        self._gone.clear()

    def _stand(self, request: Request) -> None:
        """A decoder goes before its end; of a paused engine it got no token since that stopped."""
        self._group.preempt(request)
        if self.paused:
            request.stalled = self._start

    def forget(self, everything: bool) -> int:
        """Paused: throw away what is cached and belongs to no request under way, or `everything`: what requests have here, and what they
        have elsewhere to bring here, too. These wait again, in order of admission and before the others; none counts as preempted.

        Returns how many tokens' keys and values they had. What a request that was handed on left here stays until it is fetched.
        """
        assert self.paused, "only a paused engine forgets"
        lost = self._restart() if everything else 0
        if self.moves is not None:
            self.moves.forget_sessions()
        self.kv.forget()
        return lost

    def _restart(self) -> int:
        lost, back, moves = 0, [*self.running.values(), *self.ready, *self.loading], self.moves
        if moves is not None:
            for request in self.waiting:
                if request.brought:
                    lost += request.brought
                    moves.decline(request)
            for request in self.loading:
                moves.disown(request)
        for members in (self.running, self.ready, self.loading, self.prefilling):
            members.clear()
        for request in back:
            if request.joined >= 0:
                self._stand(request)
            if request.order:
                self._left(request)
            lost += request.computed
            self.kv.drop(request, keep=False)
            self._spare()
            request.order, request.computed = -1, 0
        for request in reversed(back):
            if request.reason:
                self.in_flight -= 1
                self._ended(request.unpadded())
            else:
                self.waiting.appendleft(request)
        return lost

    def release(self) -> list[Request]:
        """Paused, and everything is forgotten: those that wait are not its own any more; returns them in the order in which they would
        have been served.
        """
        found = [*self.waiting]
        for request in found:
            self.waiting.remove(request)
        self.in_flight -= len(found)
        return found

    def _spare(self) -> None:
        """Blocks that decoders held ahead of their tokens come back when they leave."""
        if self._group.spare:
            self.kv.give(self._group.spare)
            self._group.spare = 0
