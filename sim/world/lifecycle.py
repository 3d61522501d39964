"""The replicas of one pool, from the moment each is wanted to its end: starting, perhaps warm, ready, draining, gone.

A draining replica takes no new requests and ends when what it has is done: its requests, and keys and values that a decode replica has not
fetched yet. What it keeps for sessions that pause goes with it. Fewer are wanted: those that are starting are called off first, the latest
first; then the ready ones with the fewest requests in flight drain, the latest of equals. More are wanted: those that drain are taken back
first, then warm ones, then those that are coming up to be warm.

Where two pools share GPUs (`world/sharing.py`), a replica is there from when the GPUs are its own until the other pool has them: each
time that one wakes it is another replica, with an empty cache.
"""
from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Generator, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sim.core.errors import BadInput, Problem
from sim.core.request import Request
from sim.spec.lending import awake
from sim.spec.scaling import ColdStart
from sim.world.bringing import Bringing, Stage, Stay
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.fleet import Fleet
from sim.world.recorder import Span
from sim.world.replicas import Replicas
from sim.world.timer import Answer

if TYPE_CHECKING:
    from sim.world.cluster import World

STARTING, WARM, READY, DRAINING, LEAVING, GONE = range(6)
INDEX = attrgetter("index")


class Life:
    """One replica: `index` among all, `number` in its pool, `place` the number of its place where there is no network.

    `start`, `ready` and `end` as in the table `replicas`; `since` is when it last joined the traffic, and `worked` are the seconds of steps
    that a scrape has seen. `spare`: it is to be kept warm.
    `stages` are rows of the table `starts`: name, start, end (NaN: not over), bytes, source. `emptied` is called, where somebody waits for
    it, when it drains and has nothing left, in place of its end, and `left` is when it then gave up the GPUs, s.
    """

    __slots__ = (
        "emptied", "end", "engine", "flow", "index", "left", "number", "place", "ready", "since", "spare", "stages", "start", "state",
        "worked",
    )  # fmt: skip

    def __init__(self, engine: Engine | ExactEngine, number: int, spare: bool):
        self.engine, self.index, self.number, self.spare = engine, engine.index, number, spare
        self.start = self.ready = self.end = self.left = self.since = math.nan
        self.worked = 0.0
        self.place = self.flow = -1
        self.state = STARTING
        self.stages: list[list[Any]] = []
        self.emptied: Callable[[], None] | None = None

    def span(self, end: float) -> Span:
        """Its life in a run that ended at `end`; what came after never was."""
        last = self.end if self.end <= end else end
        return Span(self.start if self.start <= last else last, self.ready if self.ready <= last else math.nan, last)


class Lifecycle:
    """Pool `number` of the world. `lives` are all replicas it ever had; the other lists those in each state, in order of index."""

    def __init__(self, world: World, number: int, opened: Replicas):
        self._world, self._number, self.opened = world, number, opened
        self.pool = opened.pool
        self.lives: list[Life] = []
        self.starting: list[Life] = []
        self.warm: list[Life] = []
        self.ready: list[Life] = []
        self.draining: list[Life] = []
        self.fleets: list[Fleet] = []
        self._open = True
        self._free: list[int] = []
        self._count = 0
        self._site = world.site
        self._bringing = Bringing(opened, self.pool.start or ColdStart(), world.scenario.seed, world.site)

    # -- the beginning ------------------------------------------------------------
    def begin(self) -> None:
        """The replicas of the beginning. Raises BadInput when one fits nowhere."""
        cold = self.pool.start is not None and self.pool.start.cold
        if self._site is not None and (why := self._site.never(self._site.wanted(self.pool))):
            message = f"no replica of pool {self.pool.name} fits, though all hosts are free: {why}"
            raise BadInput([Problem(message, f"cluster.pools.{self._number}")])
        there = awake(self._world.scenario.cluster, self.pool)
        for number in range(there + self.pool.warm):
            life = self._new(number >= there)
            if self._site is not None and not self._site.take(life.index, self._site.wanted(self.pool)):
                why = self._site.why(self._site.wanted(self.pool))
                message = f"replica {number + 1} of {there + self.pool.warm} of pool {self.pool.name} fits nowhere: {why}"
                raise BadInput([Problem(message, f"cluster.pools.{self._number}")])
            self._settle(life)
            if cold:
                self.starting.append(life)
                self._world.env.process(self._come_up(life))
            else:
                self._bringing.settle(self._hosts(life))
                (self._rest if life.spare else self._serve)(life)

    def join(self, fleet: Fleet) -> None:
        """Replicas of this pool serve in a fleet, from now on."""
        self.fleets.append(fleet)
        for life in self.ready:
            fleet.add(life.engine, self.opened.limit[0])

    # -- more and fewer ------------------------------------------------------------
    def scale(self, wanted: int) -> None:
        """Have so many replicas, those that are starting included."""
        coming = [life for life in self.starting if not life.spare]
        more = wanted - len(self.ready) - len(coming)
        for life in self.draining[:max(more, 0)]:
            self._take_back(life)
            more -= 1
        for life in self.warm[:max(more, 0)]:
            self.warm.remove(life)
            self._close_stage(life)
            self._serve(life)
            more -= 1
        for life in [life for life in self.starting if life.spare][:max(more, 0)]:
            life.spare = False
            more -= 1
        for _ in range(more):
            self._start(False)
        for life in reversed(coming):
            if more < 0:
                self._call_off(life)
                more += 1
        if more < 0:
            least = sorted(self.ready, key=lambda life: (life.engine.in_flight, -life.index))
            for life in least[:-more]:
                self._drain(life)
        for _ in range(self.pool.warm - len(self.warm) - sum(life.spare for life in self.starting)):
            self._start(True)

    def _new(self, spare: bool) -> Life:
        life = Life(self._world.engine(self._number), len(self.lives), spare)
        self.lives.append(life)
        self._world.lives.append(life)
        return life

    def _start(self, spare: bool) -> None:
        life = self._new(spare)
        self.starting.append(life)
        self._world.env.process(self._come_up(life))

    def _come_up(self, life: Life) -> Generator[Any, Any, None]:
        env = self._world.env
        if math.isnan(life.start):
            if self._site is not None:
                placed = env.event()
                self._open_stage(life, "wait")
                self._site.ask(life.index, self._site.wanted(self.pool), placed.succeed)
                yield placed
                if life.state == GONE:
                    return
                self._close_stage(life)
            self._settle(life)
        for stage in self._bringing.stages(self._stay(life)):
            yield from self._pass(life, stage)
            if life.state == GONE:
                return
        self.starting.remove(life)
        (self._rest if life.spare else self._serve)(life)

    def _stay(self, life: Life) -> Stay:
        return Stay(life.index, life.number, self._hosts(life))

    def _pass(self, life: Life, stage: Stage) -> Generator[Any, Any, None]:
        """Go through a stage, to its end or to that of the replica."""
        env = self._world.env
        self._open_stage(life, stage.name, stage.bytes, stage.source)
        if stage.send is None:
            yield env.timeout(stage.seconds)
        else:
            done = env.event()
            life.flow = stage.send(done.succeed)
            yield done
            life.flow = -1
        if life.state != GONE:
            self._close_stage(life)

    def _settle(self, life: Life) -> None:
        """The replica has its GPUs."""
        life.start = self._world.env.now
        self.opened.placed(life.index)
        if self._site is None:
            if not self._free:
                self._free.append(self._count)
                self._count += 1
            life.place = heappop(self._free)

    def _hosts(self, life: Life) -> tuple[int, ...]:
        return self._site.hosts_of(life.index) if self._site is not None else (life.place,)

    def _rest(self, life: Life) -> None:
        life.state = WARM
        self._open_stage(life, "warm")
        insort(self.warm, life, key=INDEX)

    def _serve(self, life: Life) -> None:
        """The replica takes requests from now on."""
        life.state, life.spare, life.since = READY, False, self._world.env.now
        life.worked = life.engine.worked
        if math.isnan(life.ready):
            life.ready = life.since
        insort(self.ready, life, key=INDEX)
        if self._open:
            self._offer([life])

    def withhold(self) -> None:
        """Send nothing to any replica of this pool until `offer`."""
        self._open = False
        for fleet in self.fleets:
            for life in self.ready:
                fleet.remove(life.engine)

    def offer(self) -> None:
        """Send to the ready replicas again, and what was held first."""
        if not self._open:
            self._open = True
            self._offer(self.ready)

    def _offer(self, lives: Sequence[Life]) -> None:
        for fleet in self.fleets:
            for life in lives:
                fleet.add(life.engine, self.opened.limit[0])
        for fleet in self.fleets:
            self._world.door.came(fleet)

    def _call_off(self, life: Life) -> None:
        self.starting.remove(life)
        if life.flow >= 0:
            assert self._site is not None
            self._site.network.call_off(life.flow)
        if self._site is not None:
            self._site.withdraw(life.index)
        self._end(life)

    # -- the end ------------------------------------------------------------
    def _drain(self, life: Life) -> None:
        self.ready.remove(life)
        for fleet in self.fleets if self._open else ():
            fleet.remove(life.engine)
        life.state = DRAINING
        insort(self.draining, life, key=INDEX)
        self._open_stage(life, "drain")
        if life.engine.moves is not None:
            life.engine.moves.emptied = lambda request: self.left(life, request)
        self._look(life)

    def _take_back(self, life: Life) -> None:
        self.draining.remove(life)
        self._close_stage(life)
        if life.engine.moves is not None:
            life.engine.moves.emptied = None
        self._serve(life)

    def left(self, life: Life, request: Request) -> None:
        """A request has left a replica for good. Replicas end between two steps, in order of their indices: rounding decides nothing."""
        if life.state == DRAINING and not life.engine.in_flight:
            Answer(self._world.env, self._world.env.now, request, lambda _: self._look(life))

    def _look(self, life: Life) -> None:
        """End a draining replica if it has nothing left."""
        engine, moves = life.engine, life.engine.moves
        if life.state != DRAINING or engine.in_flight or (moves is not None and (moves.leaving or engine.kv.free < engine.kv.blocks)):
            return
        if moves is not None and moves.keeper is not None:
            moves.keeper.close(self._world.env.now)
        self.draining.remove(life)
        self._close_stage(life)
        if life.emptied is None:
            self._end(life)
        else:
            life.state = LEAVING
            life.emptied()

    def _end(self, life: Life) -> None:
        life.state, life.end = GONE, self._world.env.now
        self.opened.gone(life.index)
        if self._site is not None:
            self._site.give(life.index)
        elif life.place >= 0:
            heappush(self._free, life.place)

    # -- GPUs that two pools share ------------------------------------------------------------
    def retire(self, life: Life, emptied: Callable[[], None]) -> None:
        """A ready replica drains; `emptied` is called when it has nothing left, which may be at once, and its end is the caller's."""
        life.emptied = emptied
        self._drain(life)

    def keep(self, life: Life) -> None:
        """One that drains takes requests again."""
        life.emptied = None
        self._take_back(life)

    def hurry(self, life: Life) -> None:
        """One that drains is waited for no longer: its requests are about to be taken from it."""
        self.draining.remove(life)
        life.state = LEAVING
        self._close_stage(life)

    def sleep(self, life: Life) -> Generator[Any, Any, None]:
        """The weights of a replica that has nothing left go to the memory of its hosts."""
        life.left = self._world.env.now
        yield from self._pass(life, self._bringing.over_host("offload", self._stay(life)))

    def follow(self, before: Life) -> Life:
        """A replica on the GPUs of one of another pool, which ends now."""
        life = self._new(False)
        self.starting.append(life)
        if self._site is not None:
            self._site.hand(before.index, life.index)
        self._world.pool_of[before.index]._end(before)
        self._settle(life)
        return life

    def wake(self, life: Life, seconds: float | None) -> Generator[Any, Any, None]:
        """Its weights come from the memory of its hosts, or all that has to be done takes so many seconds; then it takes requests."""
        stage = self._bringing.over_host("weights", self._stay(life)) if seconds is None else Stage("weights", seconds)
        yield from self._pass(life, stage)
        self.starting.remove(life)
        self._serve(life)

    # -- what is written down ------------------------------------------------------------
    def _open_stage(self, life: Life, name: str, size: float = 0.0, source: str = "") -> None:
        life.stages.append([name, self._world.env.now, math.nan, size, source])

    def _close_stage(self, life: Life) -> None:
        life.stages[-1][2] = self._world.env.now


def write(world: World, end: float) -> None:
    """Rows of the tables `replicas`, `starts` and `places`, in order of index, of a run that ended at `end`."""
    recorder, starts, places = world.recorder, world.recorder.tables["starts"], world.recorder.tables["places"]
    for life in world.lives:
        recorder.replica(world.pool_of[life.index].opened, life.engine, life.span(end))
        for name, since, until, size, source in life.stages:
            if since <= end:
                code, origin = starts.label("stage", name), starts.label("source", source)
                starts.append((life.index, code, since, until if until <= end else math.nan, size, origin))
        for host, gpu in world.site.places.get(life.index, ()) if world.site is not None else ():
            places.append((life.index, host, gpu))
