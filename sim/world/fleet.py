"""Replicas that can stand in for each other, and the choice among them: one fleet per model and role."""
from __future__ import annotations

from collections.abc import Sequence

from sim.core.request import Request
from sim.policy.route.base import Router
from sim.world.engine import Engine
from sim.world.exact import ExactEngine


class Fleet:
    """`limits` gives for each engine the longest request it can hold, in tokens, and the name of what limits it."""

    def __init__(self, engines: Sequence[Engine | ExactEngine], limits: Sequence[tuple[int, str]], router: Router):
        self.engines, self.limits, self._router = engines, limits, router
        self.longest, self.limit = max(limits)
        self._shortest = min(limit for limit, _ in limits)
        self._by_index = {engine.index: engine for engine in engines}

    def able(self, length: int) -> Sequence[Engine | ExactEngine]:
        """The replicas that can hold a request of so many tokens, prompt and output."""
        if length <= self._shortest:
            return self.engines
        return [engine for engine, (limit, _) in zip(self.engines, self.limits, strict=True) if length <= limit]

    def pick(self, request: Request, views: Sequence[Engine | ExactEngine]) -> Engine | ExactEngine | None:
        """The router's choice among some replicas; the request is marked with it."""
        picked = self._router.pick(request, views)
        if picked is None:
            return None
        request.replica = picked
        return self._by_index[picked]
