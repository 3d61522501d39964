"""Session affinity: a session always goes to the replica its number hashes to, so that its cache is found there; requests without a session
go to the least loaded.

Rendezvous hashing (Thaler and Ravishankar 1998): when a replica leaves, only its own sessions move.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sim.core.request import Request
from sim.core.rng import mix
from sim.policy.route.base import View
from sim.policy.route.least_loaded import IN_FLIGHT


@dataclasses.dataclass
class SessionAffinity:
    """Each session sticks to one replica."""

    def pick(self, request: Request, views: Sequence[View]) -> int:
        session = request.session
        if session < 0:
            return min(views, key=IN_FLIGHT).index
        return max(views, key=lambda view: mix(session, view.index)).index
