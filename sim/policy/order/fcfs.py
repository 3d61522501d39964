"""First come, first served; who was preempted goes back to the head of the queue, and the newest running request is preempted first.

vLLM's default (`scheduling_policy: fcfs`).
"""
from __future__ import annotations

import dataclasses
from collections import deque
from typing import ClassVar

from sim.core.request import Request
from sim.policy.batch.base import Waiting
from sim.policy.order.base import Order


@dataclasses.dataclass
class Fcfs(Order):
    """In order of arrival."""

    overtakes: ClassVar[bool] = False

    def queue(self) -> Waiting:
        return deque()

    def victim(self, running: dict[int, Request]) -> Request:
        return next(reversed(running.values()))
