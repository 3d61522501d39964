"""Which replica gets a request. A router sees views of the replicas that can hold it and returns the chosen one's index, or None to refuse.

A view shows what a front door knows without asking: how many requests it has sent there that have not ended, and how many of them wait.
A router that reads more says so by an attribute `sees`: "state" shows it wider views, "blocks" also has the replicas report which KV blocks
they keep. Either may be as old as `cluster.views` says. One that reads nothing at all says `sees` "nothing", and views are refused with it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sim.core.request import Request


class View(Protocol):
    """One replica as the front door sees it."""

    index: int

    @property
    def in_flight(self) -> int:
        """Requests sent there that have not ended."""

    @property
    def queued(self) -> int:
        """Requests it has not admitted yet."""


class WideView(View, Protocol):
    """What else is known of a replica: `room` tokens fit its KV cache, in blocks of `block_size`. `weight` is that of its pool."""

    room: int
    block_size: int
    weight: float

    @property
    def kv_used(self) -> float:
        """Share of its KV blocks that requests hold."""

    def distance(self, request: Request) -> float:
        """Seconds, one way, from where a request comes from; 0 without regions."""

    def cached(self, request: Request) -> int:
        """Prompt tokens whose KV blocks it has reported and not reported as evicted, from the front on; for a router that sees "blocks"."""


class Router(Protocol):
    def pick(self, request: Request, views: Sequence[View]) -> int | None:
        """The `index` of one of `views` (never empty), or None when none should have it."""
