"""Which programs may send calls to the replicas, and which have to wait, so that the caches of those that may fit together.

A program is paused between its calls, never in one: a call that is under way is finished, and the next one is held at the front door. So a
gate bounds the number of programs whose caches compete, where a batcher bounds that of calls, between which caches are lost. A gate looks
at everything now and then; in between it is asked about programs that come or come back, while nobody waits.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Program(Protocol):
    """A program as a gate sees it. `number` counts programs in order of arrival, `tokens` are those of its contexts without a system prompt
    that sessions share: of each session the last prompt, and its answer once it is out. `replica` is where its last call went, -1: nowhere
    yet. `running` calls of it are under way; with none it acts: it runs tools, since `since` s. `paused`: its next call is held; `asking`:
    a call is. A program that was never let in is paused and asks.
    """

    number: int
    tokens: int
    replica: int
    running: int
    since: float
    paused: bool

    @property
    def asking(self) -> bool: ...


class Room(NamedTuple):
    """A replica that takes requests: `tokens` fit its KV cache, and requests hold blocks for `used` of them."""

    replica: int
    tokens: int
    used: int


class Changes(NamedTuple):
    """Whom to pause, and whom to let go on and at which replica, where its calls then go until it is paused again."""

    pause: list[Program]
    resume: list[tuple[Program, int]]


class Gate(Protocol):
    """`every` so many seconds, at least, it looks. A gate belongs to replicas that can stand in for each other."""

    every: float

    def look(self, now: float, rooms: Sequence[Room], programs: Sequence[Program]) -> Changes:
        """All replicas, which may be none, and all programs, in order of arrival. Some program that asks goes on when there is a replica
        and, of the programs that are let in, none has a call under way nor is expected back. Who has a call under way does not go on.
        """
        ...

    def enter(self, program: Program) -> bool:
        """Whether a program that is paused and now asks, with no call under way, may go on at once, where the router sends it. Nothing
        changes.
        """
        ...

    def entered(self, program: Program) -> None:
        """It went on, to `program.replica`."""
        ...

    def left(self, program: Program, tokens: int) -> None:
        """A session of a program that is not paused is over; so many of its tokens are gone."""
        ...
