"""Gather the tails: once nobody waits any more, what runs on many replicas goes on in a few of them, and the others are free.

After Laminar, which packs again every 5 s. Loads are packed best fit decreasing, the largest first and each to where it leaves the least
room, so that no replica holds more than `fill` of its cache or `max_running` trajectories, for what runs still grows. Of those packed
together the one with the largest load keeps it, and the others move; a replica above either mark takes no part. The figures but the
interval are ours.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from sim.core.rounds import Replica
from sim.core.units import Seconds
from sim.policy.tail._within import Within


@dataclasses.dataclass
class Consolidate(Within):
    """`interval` from one packing to the next."""

    interval: Annotated[Seconds, Field(gt=0, le=86_400)] = 5.0
    fill: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_running: Annotated[int, Field(ge=1, le=10**6)] = 64

    @property
    def every(self) -> float:
        return self.interval

    def moves(self, replicas: Sequence[Replica]) -> list[tuple[int, int]]:
        if any(one.waiting for one in replicas):
            return []
        light = [one for one in replicas if 0 < one.running <= self.max_running and one.used <= self.fill * one.tokens]
        homes: list[Replica] = []
        moves = []
        for one in sorted(light, key=lambda one: (-one.used, -one.running, one.number)):
            fitting = [(self._room(home, one), place) for place, home in enumerate(homes) if self._fits(home, one)]
            if fitting:
                place = min(fitting)[1]
                home = homes[place]
                homes[place] = home._replace(running=home.running + one.running, used=home.used + one.used)
                moves.append((one.number, home.number))
            else:
                homes.append(one)
        return moves

    def _room(self, home: Replica, other: Replica) -> float:
        """Tokens of cache left below the mark when one has taken the other's load."""
        return self.fill * home.tokens - home.used - other.used

    def _fits(self, home: Replica, other: Replica) -> bool:
        return self._room(home, other) >= 0 and home.running + other.running <= self.max_running
