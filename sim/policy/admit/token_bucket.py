"""Rate limit: a bucket that fills at `rate` a second up to `burst`; a request takes its cost out of it or is turned away."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sim.core.request import Request
from sim.policy.route.base import View


@dataclasses.dataclass
class TokenBucket:
    """Admit what the bucket can pay. `unit` is what a request costs: one, or its prompt and output tokens."""

    rate: Annotated[float, Field(gt=0)]
    burst: Annotated[float, Field(gt=0)]
    unit: Literal["requests", "tokens"] = "requests"
    _level: float = dataclasses.field(default=-1.0, init=False)
    _at: float = dataclasses.field(default=0.0, init=False)

    def admit(self, request: Request, views: Sequence[View], now: float) -> bool:
        level = self.burst if self._level < 0 else min(self.burst, self._level + (now - self._at) * self.rate)
        cost = 1.0 if self.unit == "requests" else float(request.prompt + request.output)
        admitted = cost <= level
        self._level, self._at = level - cost if admitted else level, now
        return admitted
