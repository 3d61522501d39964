"""Cache-aware: the replica that holds most of the prompt, unless loads are too unequal: then the least loaded.

As SGLang's router does (sgl-router, policy cache_aware, with its thresholds): loads are unequal when the largest exceeds the smallest by
more than `balance_abs` requests and by more than `balance_rel` times. A prompt of which nobody holds more than `threshold` goes to the
least loaded (there: to the one whose record is smallest), so that new beginnings spread.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from sim.core.request import Request
from sim.policy.route._prefixes import Prefixes, refused
from sim.policy.route.base import WideView
from sim.policy.route.least_loaded import IN_FLIGHT


@dataclasses.dataclass
class CacheAware(Prefixes):
    """Most of the prompt found, while loads are balanced."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    balance_abs: Annotated[int, Field(ge=0)] = 64
    balance_rel: Annotated[float, Field(ge=1)] = 1.5

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return refused(dict(values))

    def pick(self, request: Request, views: Sequence[WideView]) -> int:
        loads = [view.in_flight for view in views]
        least, most = min(loads), max(loads)
        if most - least > self.balance_abs and most > self.balance_rel * least:
            return self.to(request, views[loads.index(least)])
        found = self.cached(request, views)
        longest = max(found)
        if longest <= self.threshold * request.prompt:
            return self.to(request, views[loads.index(least)])
        return self.to(request, min((view for view, tokens in zip(views, found, strict=True) if tokens == longest), key=IN_FLIGHT))
