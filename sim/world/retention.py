"""Keeps the caches of sessions that pause, for as long as a policy says (`policy/retain/`).

Times to live end on whole nanoseconds, like transfers, and take effect when the engine next plans a step. So does the end of what was kept
for a session that has been admitted elsewhere. A request counts as its session's next one when it is admitted, whatever it asks for.
"""
from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from simpy import Environment

from sim.core.request import Request
from sim.policy.kv.node import Node
from sim.policy.kv.radix import Radix
from sim.policy.kv.tiers import Costs, Tiered
from sim.policy.retain._history import History
from sim.policy.retain.base import Retention, State
from sim.world.timer import GRID, Timer

# A session's workload and its number there.
Name = tuple[int, int]


class Planner(Protocol):
    """An engine, as the keeper of its caches sees it."""

    in_flight: int

    def poke(self) -> None: ...


class Hold(NamedTuple):
    """What is kept: `owner` keeps it since `begin`, as number `ticket`, up to `leaf`; then it may be moved down. Where it is kept firmly,
    `came` is when the first call of its program to end here had arrived, s (NaN: it is not), and `blocks` those that nobody else held then.
    """

    owner: Keeper
    ticket: int
    begin: float
    leaf: Node
    offload: bool
    came: float
    blocks: int


class Session:
    """A session as one replica knows it: `calls` made there, when the last one ended, how many of its tokens were cached then, and until
    when they were to be kept.
    """

    __slots__ = ("calls", "ended", "tokens", "until")

    def __init__(self) -> None:
        self.calls, self.tokens, self.ended, self.until = 0, 0, math.nan, -math.inf


class Keeper:
    """What one replica keeps. `holds` of each session are shared by the replicas of a pool, as a session may go on at another one.

    `peak` is the most blocks kept at a time, firmly or not, `block_seconds` their sum over time, both as seen when requests come and go;
    what was used up in between counts as kept up to then. The `engine` is set once it exists.
    """

    def __init__(self, env: Environment, policy: Retention, kv: Radix, costs: Costs, holds: dict[Name, list[Hold]]):
        self._env, self._policy, self._kv, self._costs, self._holds = env, policy, kv, costs, holds
        self._sessions: dict[Name, Session] = {}
        self.engine: Planner | None = None
        self._history = History()
        self._came: dict[Name, float] = {}
        self._due: list[tuple[float, int, int, Hold]] = []
        self._held: dict[int, Hold] = {}
        self._tickets = self._level = self._firm = self.peak = 0
        self._since = self.block_seconds = 0.0
        self._closed: tuple[int, float] | None = None

    def drop(self, request: Request) -> None:
        """A request has ended: keep what its session will ask for, give the rest back."""
        if request.session < 0:
            self._kv.drop(request)
            return
        name = request.workload, request.session
        session = self._sessions.setdefault(name, Session())
        session.calls += 1
        if request.pause != request.pause:
            self._history.finished(session.calls)
            self._release(request)
            del self._sessions[name]
            self._kv.drop(request)
            return
        session.ended, session.tokens = self._env.now, request.computed
        fate = self._policy.decide(request, self._state(request))
        session.until = _on_grid(session.ended + fate.keep) if fate.keep > 0.0 else -math.inf
        if fate.keep <= 0.0 and not fate.offload:
            self._kv.drop(request)
            return
        leaf = self._kv.withhold(request) if fate.firm else self._kv.retain(request)
        if leaf is not None:
            self._tickets += 1
            came = self._came.setdefault(request.task, request.arrival) if fate.firm else math.nan
            hold = Hold(self, self._tickets, session.ended, leaf, fate.offload, came, self._kv.alone(leaf) if fate.firm else 0)
            self._held[hold.ticket] = hold
            self._firm += hold.blocks
            if fate.keep > 0.0:
                self._holds.setdefault(name, []).append(hold)
                self._until(hold, self._env.now + fate.keep)
            else:
                self._end(hold)
            self._note()

    def admitted(self, request: Request) -> None:
        """A request takes blocks for the first time: what was kept for its session has served."""
        self._release(request)
        session = self._sessions.get((request.workload, request.session))
        if session is None or not session.ended < request.arrival:
            return
        self._history.paused(request.arrival - session.ended)
        if request.computed < session.tokens // self._kv.block_size * self._kv.block_size:
            self._history.missed(self._env.now - request.arrival)
        session.ended = math.nan
        self._note()

    def until(self, request: Request) -> float:
        """Until when the cache of the request's session, as its last call here left it, is to be kept, s; minus infinity: it is not."""
        session = self._sessions.get((request.workload, request.session))
        return session.until if session is not None else -math.inf

    def give_up(self, name: Name) -> None:
        """A session will not be let in for a while: what is kept for it, wherever it is, goes the way it would when its time is over."""
        for hold in self._holds.pop(name, ()):
            if hold.ticket in hold.owner._held:
                hold.owner._until(hold, self._env.now)

    def yields(self) -> bool:
        """The engine cannot go on as it is: let go of what is kept firmly for the program that came last; False: there is nothing."""
        firm = [hold for hold in self._held.values() if hold.came == hold.came]
        if not firm:
            return False
        self._end(max(firm, key=lambda hold: (hold.came, hold.ticket)))
        self._note()
        return True

    def forget(self) -> None:
        """What is kept is worth nothing any more: let go of all of it, and move nothing down."""
        for hold in list(self._held.values()):
            self._end(hold._replace(offload=False))
        for session in self._sessions.values():
            session.until = -math.inf
        self._note()

    def due(self, now: float) -> None:
        """Let go of what was kept up to now."""
        due = self._due
        while due and due[0][0] <= now:
            hold = heappop(due)[3]
            if hold.ticket in self._held:
                self._end(hold)
                self._note()

    def close(self, end: float) -> tuple[int, float]:
        """The run, or the replica's life, is over at `end`: the most blocks kept at a time, and block-seconds. Asked again, the same."""
        if self._closed is None:
            self._closed = self.peak, self.block_seconds + self._level * max(end - self._since, 0.0)
            while self.yields():
                pass
        return self._closed

    def _state(self, request: Request) -> State:
        kv, tokens, now = self._kv, request.computed, self._env.now
        blocks = -(-tokens // kv.block_size)
        rate = (kv.taken - kv.again) / now if now > 0 else 0.0
        lifetime = (kv.free - kv.kept) / rate if rate > 0 else math.inf
        return State(blocks, lifetime, self._costs.compute(0, tokens), self._costs.load(0, blocks), self._history)

    def _release(self, request: Request) -> None:
        """End what was kept for the request's session before it came, wherever it is."""
        name = request.workload, request.session
        holds = self._holds.get(name)
        if holds is None:
            return
        for hold in holds:
            if hold.begin < request.arrival and hold.ticket in hold.owner._held:
                hold.owner._until(hold._replace(offload=False), self._env.now)
        later = [hold for hold in holds if hold.begin >= request.arrival]
        if later:
            self._holds[name] = later
        else:
            del self._holds[name]

    def _until(self, hold: Hold, at: float) -> None:
        if at == math.inf:
            return
        # Between two steps of whichever engine keeps it, never at the end of one.
        ends = _on_grid(at)
        heappush(self._due, (ends, hold.ticket, len(self._due), hold))
        Timer(self._env, ends - self._env.now, hold.ticket, self._ring)

    def _ring(self, timer: Any) -> None:
        assert self.engine is not None
        if timer._value in self._held:
            if self.engine.in_flight:
                self.engine.poke()
            else:
                # The timer may ring a rounding error early.
                self.due(self._env.now + GRID / 2)

    def _end(self, hold: Hold) -> None:
        del self._held[hold.ticket]
        self._firm -= hold.blocks
        (self._kv.release if hold.came == hold.came else self._kv.let_go)(hold.leaf)
        if hold.offload and isinstance(self._kv, Tiered):
            self._kv.offload(hold.leaf)

    def _note(self) -> None:
        now, kept = self._env.now, self._kv.kept + self._firm
        self.block_seconds += self._level * (now - self._since)
        self._since, self._level, self.peak = now, kept, max(self.peak, kept)


def _on_grid(at: float) -> float:
    """The first whole nanosecond at least half of one after a time; infinity stays."""
    return (round(at / GRID) + 1) * GRID if at < math.inf else at
