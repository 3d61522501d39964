"""A bounded queue: turn requests away when every replica already has `limit` requests waiting."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from sim.core.request import Request
from sim.policy.route.base import View


@dataclasses.dataclass
class MaxQueue:
    """Admit while some replica has fewer than `limit` requests waiting, and while there is none at all."""

    limit: Annotated[int, Field(ge=1)]

    def admit(self, request: Request, views: Sequence[View], now: float) -> bool:
        return not views or any(view.queued < self.limit for view in views)
