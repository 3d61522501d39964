"""Rate limit: a bucket that fills at `rate` a second up to `burst`; a request takes its cost out of it or is turned away.

One bucket for all, or one for each workload or priority, so that the burst of one is not the loss of another.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sim.core.request import Request
from sim.policy.route.base import View


@dataclasses.dataclass
class TokenBucket:
    """Admit what the bucket can pay. `unit` is what a request costs: one, or its prompt and output tokens."""

    sees: ClassVar[str] = "nothing"

    rate: Annotated[float, Field(gt=0)]
    burst: Annotated[float, Field(gt=0)]
    unit: Literal["requests", "tokens"] = "requests"
    per: Literal["all", "workload", "priority"] = "all"
    _buckets: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict, init=False)

    def admit(self, request: Request, views: Sequence[View], now: float) -> bool:
        whose = 0 if self.per == "all" else request.workload if self.per == "workload" else request.priority
        level, at = self._buckets.get(whose, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        cost = 1.0 if self.unit == "requests" else float(request.prompt + request.output)
        admitted = cost <= level
        self._buckets[whose] = level - cost if admitted else level, now
        return admitted
