"""Session affinity: a session always goes to the replica its number hashes to, so that its cache is found there; requests without a session
go to the least loaded.

Rendezvous hashing (Thaler and Ravishankar 1998): when a replica leaves, only its own sessions move.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sim.core.request import Request
from sim.policy.route.base import View
from sim.policy.route.least_loaded import IN_FLIGHT


@dataclasses.dataclass
class SessionAffinity:
    """Each session sticks to one replica."""

    def pick(self, request: Request, views: Sequence[View]) -> int:
        session = request.session
        if session < 0:
            return min(views, key=IN_FLIGHT).index
        return max(views, key=lambda view: _mix(session, view.index)).index


def _mix(session: int, replica: int) -> int:
    """64 well-mixed bits of two numbers (the finaliser of SplitMix64)."""
    z = (session * 0x9E3779B97F4A7C15 + replica * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)
