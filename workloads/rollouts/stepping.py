"""Turns of a batch in step: the next calls of all trajectories under way go out together, when the last of them has come for its own.

So do managers of environments that step a whole batch: a turn takes as long as the slowest of its answers and tools, in place of each
trajectory going on by itself (RollArt, OSDI'26, compares the two). Who has ended is not waited for, nor who is stopped or put by, nor who
is in line for a sandbox that others would have to give back first. A call that is made again, and one that writes a summary, is a turn
like any other. Waiting counts as the agent's seconds at models, as that for engines does.

They go out in the order of their numbers, which does not hang on who came first within an instant.
"""
from __future__ import annotations

from typing import Any

from simpy import Environment


class Step:
    """Of one run. Each trajectory is known by a number from `began` to `ended`."""

    def __init__(self, env: Environment):
        self._env = env
        # Who is waited for, and whether it may call already; who waits, and for what; why many times who is neither is away.
        self._open: dict[int, bool] = {}
        self._here: dict[int, Any] = {}
        self._away: dict[int, int] = {}

    def began(self, number: int) -> None:
        """One is under way, and waited for."""
        self._open[number] = False

    def ended(self, number: int) -> None:
        """One is not under way any more; nothing happens where it is not known."""
        self._away.pop(number, None)
        self._leave(number)

    def away(self, number: int) -> None:
        """One is not waited for until it is `back`, as often as it went away."""
        self._away[number] = self._away.get(number, 0) + 1
        self._leave(number)

    def back(self, number: int) -> None:
        """One that was away comes again; nothing happens where it has ended meanwhile."""
        if number not in self._away:
            return
        self._away[number] -= 1
        if not self._away[number]:
            del self._away[number]
            self._open[number] = False

    def held(self, number: int) -> Any:
        """What one waits for before it calls: an event, after which it has to ask again; None: it may."""
        if number not in self._open:
            return None
        if self._open[number]:
            self._open[number] = False
            return None
        del self._open[number]
        event = self._here[number] = self._env.event()
        self._look()
        return event

    def _leave(self, number: int) -> None:
        self._open.pop(number, None)
        event = self._here.pop(number, None)
        if event is not None:
            # It has to ask anew: it may have been put by, and go on before the others do.
            event.succeed()
        self._look()

    def _look(self) -> None:
        """Let all go that are here, if nobody is missing."""
        if self._open or not self._here:
            return
        here, self._here = self._here, {}
        for number in sorted(here):
            self._open[number] = True
            here[number].succeed()
