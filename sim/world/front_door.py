"""Where requests come in: numbered, turned away or let in, and sent to a replica of the model they ask for.

A request that no replica could ever hold is turned away first (`max_model_len`, `kv_capacity`), then the admission policy is asked, then
the router. While no replica is ready for it a request that was admitted is held, and while a gate has paused its program. Whoever is turned
away gets a row with the reason. Where prefill and decode have replicas of their own, a prompt goes to a prefill replica unless it is short,
and from there to a decode replica, chosen when its first token is out.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from simpy import Environment, Event

from sim.core.record import Table
from sim.core.request import Request
from sim.policy.admit.base import Admission
from sim.policy.route.least_loaded import IN_FLIGHT
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.fleet import Fleet, Held


class Service(NamedTuple):
    """A model's replicas: those that take requests in, and those that decode where these only prefill. Prompts up to `short` tokens skip
    the prefill replicas.
    """

    entry: Fleet
    decode: Fleet | None = None
    short: int = 0


class FrontDoor:
    """`services` has, for each workload, the service its requests ask for first, and then those of the later stages of cascades.

    `engines` are all replicas by index. `record` is told of those turned away, and of those that fail before they have a replica, each with
    the reason; its table is of those that were held.
    """

    def __init__(
        self, env: Environment, services: Sequence[Service], admission: tuple[str, Admission],
        engines: Sequence[Engine | ExactEngine], record: tuple[Callable[[Request, str], None], Callable[[Request, str], None], Table],
    ):  # fmt: skip
        self._env, self._services = env, services
        self._kind, self._admission = admission
        self._engines = engines
        self._rejected, self._failed, self._held = record
        self.arrived = 0
        self.last_arrival = 0.0

    def submit(self, request: Request, avoid: Collection[int] = ()) -> None:
        """Take a request that arrives now; it goes to none of the replicas `avoid` where another can have it."""
        request.id = self.arrived
        self.arrived += 1
        self.last_arrival = now = self._env._now
        fleet, decode, short = self._services[request.service]
        length = request.prompt + request.output
        if decode is not None:
            if request.prompt <= short:
                fleet = decode
            elif length > decode.longest:
                self._rejected(request, decode.limit)
                return
            else:
                length = request.prompt + 1
        if length > fleet.longest:
            self._rejected(request, fleet.limit)
            return
        views = fleet.able(length)
        if not self._admission.admit(request, views, now):
            self._rejected(request, self._kind)
        elif fleet.gate is None or fleet.gate.passes(request, lambda request: self._send(request, fleet, length, avoid)):
            self._send(request, fleet, length, avoid)

    def _send(self, request: Request, fleet: Fleet, length: int, avoid: Collection[int]) -> None:
        """Send it to a replica, once there is one."""
        views, gate = fleet.able(length), fleet.gate
        if not views:
            fleet.held.append(Held(request, length, self._env._now, lambda request: self._send(request, fleet, length, avoid), True))
            return
        if gate is not None:
            views = gate.narrowed(request, views)
        if avoid:
            views = [view for view in views if view.index not in avoid] or views
        engine = fleet.pick(request, views)
        if engine is None:
            self._rejected(request, "router")
            return
        engine.submit(request)
        if gate is not None:
            gate.sent(request)

    def successor(self, request: Request, found: Callable[[Request, Engine | ExactEngine], None]) -> None:
        """Call `found` with the decode replica for a request that a prefill replica is done with, at once or when there is one."""
        decode = self._services[request.service].decode
        assert decode is not None
        length = request.prompt + request.output

        def send(request: Request) -> None:
            found(request, self._taker(decode, request, length))

        if decode.able(length):
            send(request)
        else:
            decode.held.append(Held(request, length, self._env._now, send, False))

    def again(self, request: Request) -> None:
        """Send a request that has left its replica unfinished to another one, at once or when there is one; nobody turns it away."""
        fleet, length, request.replica = self._services[request.service].entry, request.prompt + request.output, -1

        def send(request: Request) -> None:
            self._taker(fleet, request, length).submit(request)

        if fleet.able(length):
            send(request)
        else:
            fleet.held.append(Held(request, length, self._env._now, send, True))

    def _taker(self, fleet: Fleet, request: Request, length: int) -> Engine | ExactEngine:
        """Who takes a request half-way, where nobody is turned away: the least loaded if the router refuses. The request is marked."""
        views = fleet.able(length)
        if fleet.pick(request, views) is None:
            request.replica = min(views, key=IN_FLIGHT).index
        return self._engines[request.replica]

    def came(self, fleet: Fleet) -> None:
        """A replica came to a fleet: what was held for it goes on."""
        if fleet.held:
            for item in fleet.send_held():
                self._held.append((item.request.id, item.since, self._env._now))

    def close(self) -> list[Request]:
        """The clock has stopped; returns the requests that are still held and ran nowhere."""
        items = [item for fleet in self._fleets() for item in fleet.held]
        for item in items:
            self._held.append((item.request.id, item.since, math.nan))
        held = [request for fleet in self._fleets() if fleet.gate is not None for request in fleet.gate.close()]
        return [item.request for item in items if item.fresh] + held

    def _fleets(self) -> list[Fleet]:
        return list(dict.fromkeys(fleet for service in self._services for fleet in (service.entry, service.decode) if fleet is not None))

    def cancel(self, request: Request, reason: str) -> None:
        """Who sent a request wants it no more: it leaves, wherever it is, and fails for that reason, unless it has ended already."""
        if request.reason or request.last == request.last:
            return
        request.reason = reason
        if request.replica < 0:
            if not any(fleet.gate.let_go(request) for fleet in self._fleets() if fleet.gate is not None):
                held = next(item for fleet in self._fleets() for item in [fleet.let_go(request)] if item is not None)
                self._held.append((request.id, held.since, self._env._now))
            self._failed(request, reason)
            return
        self._engines[request.replica].cancel(request)

    def call(self, request: Request, avoid: Collection[int] = ()) -> Event:
        """Submit; the event succeeds with the request just after it has ended, also when it was turned away."""
        done: Event = self._env.event()
        request.done = done
        self.submit(request, avoid)
        return done
