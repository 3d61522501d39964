"""LMetric: the replica with the least product of prompt tokens it would have to compute and requests it would then have.

The product of the two needs no weight between them: it is small where either is. Of equal products the least loaded is taken.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.core.request import Request
from sim.policy.route._prefixes import Prefixes, refused
from sim.policy.route.base import WideView


@dataclasses.dataclass
class Lmetric(Prefixes):
    """Least (new prompt tokens) x (requests in flight)."""

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return refused(dict(values))

    def pick(self, request: Request, views: Sequence[WideView]) -> int:
        loads, prompt = [view.in_flight + 1 for view in views], request.prompt
        costs = [((prompt - tokens) * load, load) for tokens, load in zip(self.cached(request, views), loads, strict=True)]
        return self.to(request, views[costs.index(min(costs))])
