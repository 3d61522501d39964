"""The kinds of agents that sessions begin with: which one a session is, is part of its own luck."""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from sim.core.rng import Luck
from workloads.programs.base import Program

# The part of a session's luck that says which.
KIND = 5_000_001


class Mix:
    """`shares` of all sessions that begin with each of `programs`; they need not sum to 1, but one is above 0."""

    def __init__(self, programs: Sequence[Program], shares: Sequence[float]):
        self._programs = programs
        self._ends = list(accumulate(shares))

    def of(self, luck: Luck) -> Program:
        """The program of a session with this luck."""
        if len(self._programs) == 1:
            return self._programs[0]
        return self._programs[min(bisect_left(self._ends, luck.part(KIND).next() * self._ends[-1]), len(self._programs) - 1)]
