"""The oracle of `world/exact.py` while somebody has paused it: how it stops, goes on, and forgets one request after the other."""
from __future__ import annotations

import abc
import math
from collections.abc import Callable

from simpy import Environment, Event

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.kv.base import KvCache
from sim.world.moves import Moves


class Standing(abc.ABC):
    """What `world/engine.py` and `world/members.py` say of `pause`, `resume`, `forget` and `release` holds here too."""

    env: Environment
    kv: KvCache
    moves: Moves | None
    waiting: Waiting
    ready: list[Request]
    loading: list[Request]
    prefilling: list[Request]
    running: dict[int, Request]
    wake: Event
    halt: Callable[[], None] | None
    ended: Callable[[Request], None]
    busy: bool
    paused: bool
    since: float
    in_flight: int

    @abc.abstractmethod
    def join(self, before: float) -> None: ...

    @abc.abstractmethod
    def left(self, request: Request) -> None: ...

    @abc.abstractmethod
    def stop_drafting(self, request: Request) -> int: ...

    def pause(self, done: Callable[[], None]) -> None:
        assert not self.paused, "the engine is paused already"
        assert self.halt is None, "the engine is about to be paused already"
        if self.busy or self.wake.triggered:
            self.halt = done
        else:
            self.paused = True
            done()

    def resume(self) -> None:
        assert self.paused, "the engine is not paused"
        self.paused = False
        if self.waiting or self.ready or self.running:
            self.wake.succeed()

    def stop(self, done: Callable[[], None]) -> None:
        self.join(math.inf)
        self.halt, self.paused, self.busy = None, True, False
        self.since, self.wake = self.env.now, self.env.event()
        done()

    def stand_still(self, request: Request) -> None:
        if self.paused and request not in self.prefilling:
            request.stalled = self.since

    def forget(self, everything: bool) -> int:
        """One request after the other starts again."""
        assert self.paused, "only a paused engine forgets"
        lost, back = 0, [*self.running.values(), *self.ready, *self.loading] if everything else []
        for request in list(self.waiting) if everything else ():
            if request.brought and self.moves is not None:
                lost += request.brought
                self.moves.decline(request)
        for request in back:
            if request in self.loading and self.moves is not None:
                self.loading.remove(request)
                self.moves.disown(request)
            elif request in self.ready:
                self.ready.remove(request)
            else:
                self.stand_still(request)
                if request in self.prefilling:
                    self.prefilling.remove(request)
                del self.running[request.order]
                self.left(request)
            lost += request.computed
            spare = self.stop_drafting(request)
            self.kv.drop(request, keep=False)
            if spare:
                self.kv.give(spare)
            request.order, request.computed = -1, 0
        for request in reversed(back):
            if request.reason:
                self.in_flight -= 1
                self.ended(request.unpadded())
            else:
                self.waiting.appendleft(request)
        if self.moves is not None:
            self.moves.forget_sessions()
        self.kv.forget()
        return lost

    def release(self) -> list[Request]:
        """One request after the other goes."""
        found = list(self.waiting)
        for request in found:
            self.waiting.remove(request)
            self.in_flight -= 1
        return found
