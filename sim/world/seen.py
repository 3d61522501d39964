"""Engines that show more of themselves than how many requests they have, for routers that look at more, old views and regions.

They are the engines of `world/engine.py` and `world/exact.py` otherwise; a cluster that needs none of it has those. A request from another
region is on its way for a while: it counts as in flight there from when it is sent, and is not queued before it arrives.
"""
from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

from simpy import Environment, Event

from sim.core.request import Request
from sim.policy.kv.radix import Radix
from sim.world.block_events import BlockEvents
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.reports import Reports


class About(NamedTuple):
    """What is known of a replica for good: the weight of its pool, and seconds one way to it for each workload, by number; none: 0."""

    env: Environment
    weight: float
    away: Mapping[int, float]
    blocks: BlockEvents | None


class Shown(abc.ABC):
    """What both kinds have in common. `coming` are requests on their way here, `reports` those it makes where views are old."""

    __slots__ = ()

    about: About
    reports: Reports | None
    coming: dict[int, Request]
    kv: Any
    index: int
    in_flight: int

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.coming = {}
        self.reports = None

    # -- what routers see ------------------------------------------------------------
    @property
    def room(self) -> int:
        return int(self.kv.blocks * self.kv.block_size)

    @property
    def block_size(self) -> int:
        return int(self.kv.block_size)

    @property
    def weight(self) -> float:
        return self.about.weight

    @property
    def kv_used(self) -> float:
        return self.used_by(self.about.env.now) / float(self.kv.blocks)

    def distance(self, request: Request) -> float:
        away = self.about.away
        return away[request.workload] if away else 0.0

    def cached(self, request: Request) -> int:
        return self.about.blocks.hits(request).get(self.index, 0) if self.about.blocks is not None else 0

    @abc.abstractmethod
    def used_by(self, at: float) -> int:
        """KV blocks that requests held at a time since which nothing has changed but for the steps made."""

    # -- what changes ------------------------------------------------------------
    def before(self) -> None:
        """Something is about to change."""
        if self.reports is not None:
            self.reports.before(self)  # type: ignore[arg-type]

    def submit(self, request: Request) -> None:
        self.before()
        # Who has a token already comes from a prefill replica, and what it brings takes its own time.
        seconds = self.distance(request) if not request.generated else 0.0
        if not seconds:
            super().submit(request)  # type: ignore[misc]
            return
        self.in_flight += 1
        self.coming[request.id] = request
        event = self.about.env.timeout(seconds, request)
        assert event.callbacks is not None
        event.callbacks.append(self._arrive)

    def _arrive(self, event: Event) -> None:
        request = event.value
        if self.coming.pop(request.id, None) is not None:
            self.before()
            self.in_flight -= 1
            super().submit(request)  # type: ignore[misc]

    def cancel(self, request: Request) -> None:
        self.before()
        if self.coming.pop(request.id, None) is not None:
            self.in_flight -= 1
            self.lost(request)
        else:
            super().cancel(request)  # type: ignore[misc]

    @abc.abstractmethod
    def lost(self, request: Request) -> None:
        """A request was called off on its way."""

    def forget(self, everything: bool) -> int:
        self.before()
        return super().forget(everything)  # type: ignore[misc, no-any-return]

    def release(self) -> list[Request]:
        self.before()
        coming, self.coming = [*self.coming.values()], {}
        self.in_flight -= len(coming)
        return [*super().release(), *coming]  # type: ignore[misc]

    def settle(self) -> list[Request]:
        return [*super().settle(), *self.coming.values()]  # type: ignore[misc]


class Seen(Shown, Engine):
    """A fast engine that is looked at."""

    __slots__ = ("about", "coming", "reports")

    def _tick(self, ticket: int) -> None:
        if ticket == self._ticket:
            self.before()
            super()._tick(ticket)

    def _lose(self) -> None:
        self.before()
        super()._lose()

    def lost(self, request: Request) -> None:
        self._ended(request)

    def used_by(self, at: float) -> int:
        taken = self.kv.blocks - self.kv.free
        made = self._made(at)
        return taken + self._group.blocks(made) if made else taken

    def catch_up(self, at: float) -> None:
        """Where the steps made by a time have taken blocks that others could still have found: do so now. The stretch is cut in two; its
        timer stays.
        """
        made = self._made(at)
        if not made or not isinstance(self.kv, Radix) or self._group.blocks(made) <= self.kv.nameless:
            return
        steps, end = self._steps, self._start + self._lasts(made)
        self._steps = made
        self._advance(end)
        self._start, self._step_seconds, self._steps = end, self._step_seconds + self._slope * made, steps - made


class SeenExact(Shown, ExactEngine):
    """The oracle, looked at. It has made every step when it is asked."""

    def lost(self, request: Request) -> None:
        self.ended(request)

    def used_by(self, at: float) -> int:
        return int(self.kv.blocks - self.kv.free)

    def catch_up(self, at: float) -> None:
        pass

    def grows_by(self, request: Request) -> int:
        # The first thing that is asked when a step has been made.
        self.before()
        return super().grows_by(request)

    def commit(self, decoding: list[Request]) -> None:
        self.before()
        super().commit(decoding)

    def lose(self) -> None:
        self.before()
        super().lose()
