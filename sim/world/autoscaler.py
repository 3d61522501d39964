"""The autoscaler of one pool: looks at it every so often, asks its policy how many replicas there should be, and sees to it.

A scrape costs what the policy sees. Where that is no more than requests, replicas are counted; where it is their blocks and busy time,
those that were idle all the time since the scrape before are only counted; where it is each by itself, all are looked at. What is seen of
a replica in the middle of a stretch is what one event per step would show.
"""
from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.registry import AUTOSCALERS
from sim.core.request import COMPLETED, Request
from sim.policy.scale.base import Autoscaler, Seen
from sim.spec.limits import request_limits
from sim.spec.scaling import Autoscale
from sim.world.lifecycle import Life, Lifecycle
from sim.world.timer import Timer

if TYPE_CHECKING:
    from sim.world.cluster import World

# Without a replica, and with requests that are held, a policy may still be waiting for its time of the week; beyond that it never comes.
PATIENCE = 8 * 86400.0


class Tally:
    """What has ended at the replicas of a pool since the last scrape. `gone` counts all that ever left them."""

    def __init__(self, limits: dict[str, float]):
        self._limits = limits
        self.gone = 0
        self.touched: dict[int, Life] = {}
        self.clear()

    def clear(self) -> None:
        self.touched.clear()
        self.ended = self.late = self._firsts = self._paces = 0
        self._ttft = self._tpot = 0.0

    def left(self, life: Life, request: Request, overhead: float, counts: bool) -> None:
        """A request has left a replica; it `counts` where it is answered, or handed on."""
        self.gone += 1
        self.touched[life.index] = life
        if not counts:
            return
        self.ended += 1
        ttft = request.first - request.arrival + overhead
        self._firsts, self._ttft = self._firsts + 1, self._ttft + ttft
        late = ttft > self._limits.get("ttft", math.inf)
        if request.last == request.last:
            late |= request.last - request.arrival + overhead > self._limits.get("e2e", math.inf)
            if request.generated > 1:
                tpot = (request.last - request.first) / (request.generated - 1)
                self._paces, self._tpot = self._paces + 1, self._tpot + tpot
                late |= tpot > self._limits.get("tpot", math.inf)
        self.late += late

    @property
    def ttft(self) -> float:
        return self._ttft / self._firsts if self._firsts else math.nan

    @property
    def tpot(self) -> float:
        return self._tpot / self._paces if self._paces else math.nan


class Use(NamedTuple):
    """What of `policy/scale/base.py`'s `Seen` takes a look into the replicas."""

    kv: float
    busy: float
    kvs: tuple[float, ...] = ()
    queues: tuple[int, ...] = ()


UNSEEN = Use(math.nan, math.nan)


class Scaler:
    """Watches one pool and scales it, as `options` say. Of a prefill pool, a request has ended when it is handed on."""

    def __init__(self, world: World, lifecycle: Lifecycle, options: Autoscale):
        self._world, self._lifecycle, self._options = world, lifecycle, options
        self._policy: Autoscaler = AUTOSCALERS.make(options.policy)
        self._moves = lifecycle.pool.role == "prefill"
        self._sees = self._policy.sees
        self._before, self._flow, self._stuck = 0.0, 0, 0.0
        self.tally = Tally(request_limits(world.scenario.slo))

    def live(self) -> Generator[Any, Any, None]:
        """The process: it ends when no request can come any more."""
        options, env = self._options, self._world.env
        while True:
            yield env.timeout(options.every)
            if self._world.over() or self._hopeless():
                return
            seen = self.look()
            if options.lag:
                later: Any = env.timeout(options.lag, seen)
                later.callbacks.append(lambda event: self._act(event.value))
            else:
                self._act(seen)

    def look(self) -> Seen:
        """The pool as it is now."""
        now, lifecycle, tally = self._world.env.now, self._lifecycle, self.tally
        ready, window = lifecycle.ready, now - self._before
        in_flight = queued = 0
        for life in ready:
            engine = life.engine
            if engine.in_flight:
                in_flight += engine.in_flight
                queued += engine.queued
        use = UNSEEN if self._sees == "counts" else self._use(window)
        held = sum(fleet.holding for fleet in lifecycle.fleets)
        flow = in_flight + sum(life.engine.in_flight for life in lifecycle.draining) + tally.gone + held
        starting = sum(not life.spare for life in lifecycle.starting)
        seen = Seen(
            now, len(ready), starting, in_flight, queued, held, use.kv, use.busy, max(flow - self._flow, 0), tally.ended, tally.late,
            tally.ttft, tally.tpot, use.kvs, use.queues,
        )  # fmt: skip
        self._before, self._flow = now, flow
        tally.clear()
        return seen

    def _use(self, window: float) -> Use:
        """The KV blocks in use now, and the share of the last `window` seconds spent in steps."""
        ready, size, each = self._lifecycle.ready, self._lifecycle.opened.memory.blocks, self._sees == "replicas"
        everywhere, touched = each or self._moves, self.tally.touched
        busy = blocks = 0.0
        kvs, queues = [], []
        for life in ready:
            engine = life.engine
            count = engine.in_flight
            if not count and not everywhere and life.index not in touched:
                continue
            worked = engine.worked
            busy += worked - life.worked
            life.worked = worked
            used = engine.used if count or self._moves else 0
            blocks += used
            if each:
                queues.append(engine.queued if count else 0)
                kvs.append(used / size)
        there = len(ready) * window - sum(life.since - self._before for life in ready if life.since > self._before)
        kv = blocks / size / len(ready) if ready else 0.0
        return Use(kv, min(busy / there, 1.0) if there > 0 else 0.0, tuple(kvs), tuple(queues))

    def _act(self, seen: Seen) -> None:
        lifecycle, options = self._lifecycle, self._options
        wanted = min(max(self._policy.want(seen), options.min), options.max)
        site, table = self._world.site, self._world.recorder.tables["scaling"]
        table.append((
            seen.time, table.label("pool", lifecycle.pool.name), seen.ready, seen.starting, len(lifecycle.draining), wanted,
            seen.in_flight, seen.queued + seen.held, site.stranded() if site is not None else 0,
        ))  # fmt: skip
        lifecycle.scale(wanted)

    def _hopeless(self) -> bool:
        """Whether requests are held and for days nothing has been done about it: the run would never end."""
        lifecycle, now = self._lifecycle, self._world.env.now
        if lifecycle.ready or lifecycle.starting or not any(fleet.holding for fleet in lifecycle.fleets):
            self._stuck = now
        return now - self._stuck > PATIENCE


class Scalers:
    """Those of all pools that have one. They are told of every request that leaves a replica."""

    def __init__(self, world: World):
        self._world = world
        self._of = {
            lifecycle: Scaler(world, lifecycle, lifecycle.pool.autoscale)
            for lifecycle in world.lifecycles if lifecycle.pool.autoscale is not None
        }  # fmt: skip
        if self._of or world.site is not None:
            world.recorder.watches.append(self._left)

    def start(self) -> None:
        """Set them going."""
        for scaler in self._of.values():
            self._world.env.process(scaler.live())

    def handed_on(self, request: Request) -> None:
        """A prefill replica is done with a request."""
        self._note(request, True)

    def _left(self, request: Request, status: int) -> None:
        world = self._world
        if request.replica >= 0:
            self._note(request, status == COMPLETED)
        if world.site is not None and world.recorder.ended == world.door.arrived:
            Timer(world.env, 0.0, 0, world.stop)

    def _note(self, request: Request, counts: bool) -> None:
        life = self._world.lives[request.replica]
        lifecycle = self._world.pool_of[request.replica]
        if lifecycle in self._of:
            self._of[lifecycle].tally.left(life, request, self._world.recorder.overhead(request), counts)
            lifecycle.left(life, request)
