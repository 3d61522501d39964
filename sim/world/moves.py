"""What a replica moves besides its steps: keys and values to and from the host's memory and other lower tiers, and from a prefill replica
to a decode replica. What is kept of them while a session pauses passes through here too.

An engine knows that a request has some of its keys and values elsewhere; where, and how long it takes to bring them, is known here. A
request that is being brought holds its blocks at the target, so that nothing is sent without room for it, and those at its source until
the last byte is out.
"""
from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.policy.kv.base import KvCache
from sim.world.link import Link
from sim.world.retention import Keeper
from sim.world.roads import Road, Roads
from sim.world.tier_links import TierLinks
from sim.world.timer import Answer

if TYPE_CHECKING:
    from sim.world.engine import Engine
    from sim.world.exact import ExactEngine

HANDOFF, SWAP_IN = 0, 1


class Held(NamedTuple):
    """Blocks that a request left behind at `engine` until they are fetched: `request` is it as it was then."""

    engine: Engine | ExactEngine
    request: Request


class Moves:
    """The moves of one replica. `hands_on`: it prefills for others. `out` is its link to the network, `host` the one to its host's memory,
    and `roads`, where there is a network with shared links, take the place of both.

    `per_token` bytes of keys and values are moved for a token, by all GPUs of the replica together. `swap` tokens may be in the host's
    memory at a time. `overlap` is the share of a hand-on's bytes that may leave while the prompt is still being computed. `tiers` are the
    ways to lower tiers and `keeper` is who keeps caches of sessions, where there are any. `successor` finds a decode replica for a request
    and calls back with it; `emptied` is called, where somebody waits for it, when blocks that a request left here have been given back,
    and `touched` before.
    """

    def __init__(self, env: Environment, kv: KvCache, ways: tuple[Link, Link], per_token: float, record: Table):
        self.env, self._kv, self.per_token, self.transfers = env, kv, per_token, record
        self.out, self.host = ways
        self.tiers: TierLinks | None = None
        self.keeper: Keeper | None = None
        self.roads: Roads | None = None
        self.hands_on = False
        self.overlap = 0.0
        self.swap = 0
        self.successor: Callable[[Request, Callable[[Request, Engine | ExactEngine], None]], None] | None = None
        self.emptied: Callable[[Request], None] | None = None
        self.touched: Callable[[], None] | None = None
        self.leaving: dict[int, Request] = {}
        self._sources: dict[int, Held] = {}
        self._swapped: dict[int, int] = {}
        self._unwanted = Counter[int]()

    def fetch(self, engine: Engine | ExactEngine, request: Request) -> None:
        """Bring what the request has elsewhere into the cache of `engine`, then call its `loaded`."""
        self._comes(request)
        if self.tiers is not None and self.tiers.has(request):
            self.tiers.reload(request, lambda: self._loaded(engine, request))
            return
        began, tokens, held = self.env.now, request.fetch, self._sources.get(request.id)
        if held is not None:
            there = held.engine.moves
            assert there is not None
            way = there.out if self.roads is None or there.roads is None else self.roads.between(there.roads, request)
            whole, left = self._bytes(there, request, way.bandwidth)
            kind, source = HANDOFF, held.engine.index
        else:
            whole = left = tokens * self.per_token
            way = self.host if self.roads is None else self.roads.memory(request)
            kind, source = SWAP_IN, engine.index

        def arrived() -> None:
            self.transfers.append((kind, request.id, source, engine.index, began, self.env.now, whole, tokens, 0))
            self._loaded(engine, request)
            if left < whole and isinstance(way, Road):
                way.catch_up(whole - left)

        way.send(left, arrived)

    def admitted(self, request: Request) -> None:
        """A request starts to run: what it had elsewhere is needed no more."""
        self._comes(request)
        if request.brought:
            self.decline(request)

    def due(self, now: float) -> None:
        """A step is about to be planned: what was kept up to now is let go of."""
        if self.keeper is not None:
            self.keeper.due(now)

    def yields(self) -> bool:
        """Whether something that was kept from all others has been let go, as the engine could not go on."""
        return self.keeper is not None and self.keeper.yields()

    def drop(self, request: Request) -> None:
        """A request has its last token: its blocks are given back, but for what is kept for its session."""
        (self.keeper or self._kv).drop(request)
        if self.tiers is not None:
            self.tiers.flush(request)

    def _comes(self, request: Request) -> None:
        if self.keeper is not None:
            self.keeper.admitted(request)
        if self.tiers is not None:
            self.tiers.flush(request)

    def _loaded(self, engine: Engine | ExactEngine, request: Request) -> None:
        if self._unwanted[request.id]:
            self._unwanted[request.id] -= 1
            return
        self.forget(request)
        engine.loaded(request)

    def decline(self, request: Request) -> None:
        """What a request has elsewhere is not fetched: it is here already, or of no use. Of what was handed on, nothing is moved."""
        held, now = self._sources.get(request.id), self.env.now
        if held is not None:
            self.transfers.append((HANDOFF, request.id, held.engine.index, request.replica, now, now, 0.0, 0, 0))
        self.forget(request)

    def disown(self, request: Request) -> None:
        """What is on its way to a request is not wanted any more: it still comes, and nobody waits for it."""
        self._unwanted[request.id] += 1
        self.forget(request)

    def forget_sessions(self) -> None:
        """Nothing is kept for sessions any more."""
        if self.keeper is not None:
            self.keeper.forget()

    def hand_on(self, engine: Engine | ExactEngine, request: Request) -> None:
        """Pass a request whose first token is out to a decode replica; its blocks here stay until they have been fetched.

        Replicas in lock step end their prompts at one instant: as with answers, their order decides then.
        """
        held = Held(engine, copy.copy(request))
        request.stalled = self.env.now
        request.leaf, request.linked, request.order, request.brought = None, 0, -1, request.computed
        self.leaving[request.id] = request

        def onward(request: Request) -> None:
            assert self.successor is not None
            self.successor(request, arrive)

        def arrive(request: Request, target: Engine | ExactEngine) -> None:
            del self.leaving[request.id]
            assert target.moves is not None
            target.moves._sources[request.id] = held
            target.submit(request)
            if request.reason:
                target.cancel(request)

        Answer(self.env, self.env.now, request, onward)

    def swap_out(self, request: Request) -> float:
        """A preempted request's cache goes to the host's memory where there is room; returns the seconds the engine waits for that."""
        tokens = request.computed
        if not self.swap or tokens > self.swap:
            return 0.0
        self.swap -= tokens
        self._swapped[request.id] = tokens
        request.brought = tokens
        return tokens * self.per_token / self.host.bandwidth

    def forget(self, request: Request) -> None:
        """What the request had elsewhere is needed no more."""
        request.brought = request.fetch = 0
        self.swap += self._swapped.pop(request.id, 0)
        held = self._sources.pop(request.id, None)
        if held is not None:
            source = held.engine.moves
            if source is not None and source.touched is not None:
                source.touched()
            held.engine.kv.drop(held.request)
            held.engine.poke()
            if source is not None and source.emptied is not None:
                source.emptied(request)

    def _bytes(self, there: Moves, request: Request, bandwidth: float) -> tuple[float, float]:
        """All bytes to be moved, and those still left when the prompt is done: earlier layers may leave while later ones are computed.

        Where they go is known only then. So a shared network carries them late, behind the others; how many they were is reckoned from the
        `bandwidth` that it has to give now.
        """
        size = request.fetch * there.per_token
        computing = request.first - request.admitted
        return size, max(size * (1.0 - there.overlap), size - computing * bandwidth) if there.overlap else size
