"""Load shedding by class: as replicas fill up, requests of low priority are turned away first.

Each class has a limit: what its replicas may have, on average, before its requests are turned away. A request belongs to the class of the
highest `priority` that is not above its own; below the lowest, to the lowest. Google's SRE book (Handling Overload, 2016) tells why.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from sim.core.request import Request
from sim.policy.route.base import WideView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """What replicas may have on average: requests that wait, requests in flight, share of KV blocks held; None: no such limit."""

    priority: int
    queue: Annotated[float, Field(gt=0)] | None = None
    in_flight: Annotated[float, Field(gt=0)] | None = None
    kv: Annotated[float, Field(gt=0, le=1)] | None = None

    def holds(self, views: Sequence[WideView]) -> bool:
        count = len(views)
        if self.queue is not None and sum([view.queued for view in views]) >= self.queue * count:
            return False
        if self.in_flight is not None and sum([view.in_flight for view in views]) >= self.in_flight * count:
            return False
        return self.kv is None or sum([view.kv_used for view in views]) < self.kv * count


@dataclasses.dataclass
class Shed:
    """`limits`, one for each class; a class without a limit of its own kind is never turned away."""

    limits: Annotated[tuple[Limit, ...], Field(min_length=1)]
    _classes: list[Limit] = dataclasses.field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._classes = sorted(self.limits, key=lambda limit: limit.priority)

    @property
    def sees(self) -> str:
        return "state" if any(limit.kv is not None for limit in self.limits) else "load"

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        limits: Sequence[Limit] = values["limits"]
        seen: dict[int, int] = {}
        for number, limit in enumerate(limits):
            if limit.priority in seen:
                yield f"limits.{number}.priority", f"priority {limit.priority} has a limit already (limits.{seen[limit.priority]})"
            seen.setdefault(limit.priority, number)
        if all(limit.queue is None and limit.in_flight is None and limit.kv is None for limit in limits):
            yield "limits", "found no limit, so that nobody is ever turned away; give queue, in_flight or kv"
        ordered = sorted(range(len(limits)), key=lambda number: limits[number].priority)
        for low, high in pairwise(ordered):
            for name in ("queue", "in_flight", "kv"):
                below, above = vars(limits[low])[name], vars(limits[high])[name]
                if above is not None and (below is None or below > above):
                    found = "none" if below is None else f"{below:g}"
                    yield f"limits.{high}.{name}", (
                        f"found {above:g}, and {found} for the lower priority {limits[low].priority}; a higher priority cannot be turned "
                        "away first"
                    )

    def admit(self, request: Request, views: Sequence[WideView], now: float) -> bool:
        mine = self._classes[0]
        for limit in self._classes[1:]:
            if limit.priority <= request.priority:
                mine = limit
        # Without any replica there is nothing to protect: who comes is held until there is one.
        return not views or mine.holds(views)
