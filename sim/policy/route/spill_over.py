"""Spill-over: replicas of the request's own region first; where all of them are at the threshold, those of the nearest region with room.

Where nobody has room, the request stays in its own region. Within a region `then` chooses.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from sim.core.registry import ROUTERS
from sim.core.request import Request
from sim.core.rng import Draws
from sim.policy.route.base import WideView


@dataclasses.dataclass
class SpillOver:
    """A replica has room while fewer than `threshold` requests wait there (`by: queued`) or are in flight there (`by: in_flight`)."""

    threshold: Annotated[int, Field(ge=1)]
    by: Literal["queued", "in_flight"] = "queued"
    then: Annotated[Any, ROUTERS] = dataclasses.field(default_factory=lambda: {"kind": "least_loaded"})

    def __post_init__(self) -> None:
        if isinstance(self.then, Mapping):
            self.then = ROUTERS.make(self.then)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["then"].get("kind") == "spill_over":
            yield "then", "found spill_over again; within a region there is nothing to spill over to, another kind is wanted"

    @property
    def sees(self) -> str:
        return "blocks" if hasattr(self.then, "sees") and self.then.sees == "blocks" else "state"

    def seed(self, draws: Draws) -> None:
        if hasattr(self.then, "seed"):
            self.then.seed(draws)

    def pick(self, request: Request, views: Sequence[WideView]) -> int | None:
        near: dict[float, list[WideView]] = {}
        for view in views:
            near.setdefault(view.distance(request), []).append(view)
        for distance in sorted(near):
            room = [view for view in near[distance] if (view.queued if self.by == "queued" else view.in_flight) < self.threshold]
            if room:
                return self._then(request, room)
        return self._then(request, near[min(near)])

    def _then(self, request: Request, views: Sequence[WideView]) -> int | None:
        picked: int | None = self.then.pick(request, views)
        return picked
