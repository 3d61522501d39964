"""Everybody gets in; queues take what the engines cannot."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from sim.core.request import Request
from sim.policy.route.base import View


@dataclasses.dataclass
class Always:
    """Admit every request."""

    sees: ClassVar[str] = "nothing"

    def admit(self, request: Request, views: Sequence[View], now: float) -> bool:
        return True
