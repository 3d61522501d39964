"""Weighted: replicas get requests in proportion to the weights of their pools.

`by: load` takes the one with the least (in flight + 1) / weight, so that loads, not turns, follow the weights (weighted least connections).
`by: turns` deals them out whatever they have: smooth weighted round robin as in nginx, which spreads the turns of a heavy one evenly. A
pool that gives no weight has one from what its replicas can do: tokens per second that one of them decodes for 64 requests (or
as many as it may run) that hold 1,024 tokens each.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

from sim.core.request import Request
from sim.policy.route.base import WideView


@dataclasses.dataclass
class Weighted:
    """Shares follow the weights of pools."""

    sees: ClassVar[str] = "state"

    by: Literal["load", "turns"] = "load"
    _credit: dict[int, float] = dataclasses.field(default_factory=dict, init=False)

    def pick(self, request: Request, views: Sequence[WideView]) -> int:
        if self.by == "load":
            return min(views, key=_relative).index
        credit, total = self._credit, 0.0
        best = views[0]
        for view in views:
            index, weight = view.index, view.weight
            credit[index] = credit.get(index, 0.0) + weight
            total += weight
            if credit[index] > credit[best.index]:
                best = view
        credit[best.index] -= total
        return best.index


def _relative(view: WideView) -> float:
    return (view.in_flight + 1) / view.weight
