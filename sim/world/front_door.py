"""Where requests come in: numbered, turned away or let in, and sent to a replica.

A request that no replica could ever hold is turned away first (`max_model_len`, `kv_capacity`), then the admission policy is asked, then
the router. Whoever is turned away gets a row with the reason.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from simpy import Environment, Event

from sim.core.request import Request
from sim.policy.admit.base import Admission
from sim.policy.route.base import Router
from sim.world.engine import Engine
from sim.world.exact import ExactEngine


class FrontDoor:
    """`limits` gives for each engine the longest request it can hold, in tokens, and the name of what limits it."""

    def __init__(
        self, env: Environment, engines: Sequence[Engine | ExactEngine], limits: Sequence[tuple[int, str]], router: Router,
        admission: tuple[str, Admission], rejected: Callable[[Request, str], None],
    ):  # fmt: skip
        self._env, self._engines, self._limits, self._router = env, engines, limits, router
        self._kind, self._admission = admission
        self._rejected = rejected
        self._shortest = min(limit for limit, _ in limits)
        self.arrived = 0
        self.last_arrival = 0.0

    def submit(self, request: Request) -> None:
        """Take a request that arrives now."""
        request.id = self.arrived
        self.arrived += 1
        self.last_arrival = now = self._env._now
        views, length = self._engines, request.prompt + request.output
        if length > self._shortest:
            views = [engine for engine, (limit, _) in zip(self._engines, self._limits, strict=True) if length <= limit]
            if not views:
                self._rejected(request, max(self._limits)[1])
                return
        if not self._admission.admit(request, views, now):
            self._rejected(request, self._kind)
            return
        picked = self._router.pick(request, views)
        if picked is None:
            self._rejected(request, "router")
            return
        request.replica = picked
        self._engines[picked].submit(request)

    def call(self, request: Request) -> Event:
        """Submit; the event succeeds with the request just after it has ended, also when it was turned away."""
        done: Event = self._env.event()
        request.done = done
        self.submit(request)
        return done
