"""Where requests come in: numbered, turned away or let in, and sent to a replica of the model they ask for.

A request that no replica could ever hold is turned away first (`max_model_len`, `kv_capacity`), then the admission policy is asked, then
the router. Whoever is turned away gets a row with the reason. Where prefill and decode have replicas of their own, a prompt goes to a
prefill replica unless it is short, and from there to a decode replica, chosen when its first token is out.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from simpy import Environment, Event

from sim.core.request import Request
from sim.policy.admit.base import Admission
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.fleet import Fleet


class Service(NamedTuple):
    """A model's replicas: those that take requests in, and those that decode where these only prefill. Prompts up to `short` tokens skip
    the prefill replicas.
    """

    entry: Fleet
    decode: Fleet | None = None
    short: int = 0


class FrontDoor:
    """`services` has, for each workload, the service its requests ask for first, and then those of the later stages of cascades."""

    def __init__(
        self, env: Environment, services: Sequence[Service], admission: tuple[str, Admission], rejected: Callable[[Request, str], None]
    ):
        self._env, self._services = env, services
        self._kind, self._admission = admission
        self._rejected = rejected
        self.arrived = 0
        self.last_arrival = 0.0

    def submit(self, request: Request) -> None:
        """Take a request that arrives now."""
        request.id = self.arrived
        self.arrived += 1
        self.last_arrival = now = self._env._now
        fleet, decode, short = self._services[request.service]
        length = request.prompt + request.output
        if decode is not None:
            if request.prompt <= short:
                fleet = decode
            elif not decode.able(length):
                self._rejected(request, decode.limit)
                return
            else:
                length = request.prompt + 1
        views = fleet.able(length)
        if not views:
            self._rejected(request, fleet.limit)
            return
        if not self._admission.admit(request, views, now):
            self._rejected(request, self._kind)
            return
        engine = fleet.pick(request, views)
        if engine is None:
            self._rejected(request, "router")
            return
        engine.submit(request)

    def successor(self, request: Request) -> Engine | ExactEngine:
        """The decode replica for a request that a prefill replica is done with."""
        decode = self._services[request.service].decode
        assert decode is not None
        views = decode.able(request.prompt + request.output)
        # Nobody is turned away half-way: where the router refuses, the least loaded has to take it.
        return decode.pick(request, views) or min(views, key=lambda engine: engine.in_flight)

    def call(self, request: Request) -> Event:
        """Submit; the event succeeds with the request just after it has ended, also when it was turned away."""
        done: Event = self._env.event()
        request.done = done
        self.submit(request)
        return done
