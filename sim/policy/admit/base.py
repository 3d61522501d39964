"""Who gets in at the front door. A refused request is recorded as rejected, with the kind of the policy as the reason."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sim.core.request import Request
from sim.policy.route.base import View


class Admission(Protocol):
    def admit(self, request: Request, views: Sequence[View], now: float) -> bool: ...
