"""Session affinity: a session always goes to the replica its number hashes to, so that its cache is found there; requests without a session
go to the least loaded. By program, an agent and its sub-agents go to one replica, where they find the system prompt they share and a gate
sees all that the program holds; by session, sub-agents spread.

Rendezvous hashing (Thaler and Ravishankar 1998): when a replica leaves, only its own sessions move.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sim.core.request import Request
from sim.core.rng import mixes
from sim.policy.route.base import View
from sim.policy.route.least_loaded import IN_FLIGHT

# Choices remembered, to be made again when there are more: a hash for each replica takes longer than all else about a request.
MOST = 100_000


@dataclasses.dataclass
class SessionAffinity:
    """`by`: what sticks to one replica, each session or each program."""

    by: Literal["session", "program"] = "session"
    _replicas: list[int] = dataclasses.field(default_factory=list, init=False)
    _numbers: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype="u8"), init=False, repr=False, compare=False)
    _chosen: dict[int, int] = dataclasses.field(default_factory=dict, init=False)

    def pick(self, request: Request, views: Sequence[View]) -> int:
        number = request.program if self.by == "program" and request.program >= 0 else request.session
        if number < 0:
            return min(views, key=IN_FLIGHT).index
        replicas = [view.index for view in views]
        if replicas != self._replicas or len(self._chosen) >= MOST:
            self._replicas, self._chosen = replicas, {}
            self._numbers = np.array(replicas, dtype="u8")
        if number not in self._chosen:
            self._chosen[number] = replicas[int(mixes(number, self._numbers).argmax())]
        return self._chosen[number]
