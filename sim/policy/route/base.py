"""Which replica gets a request. A router sees views of the replicas that can hold it and returns the chosen one's index, or None to refuse.

A view shows what a front door knows without asking: how many requests it has sent there that have not ended, and how many of them wait.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sim.core.request import Request


class View(Protocol):
    """One replica as the front door sees it."""

    index: int
    in_flight: int

    @property
    def queued(self) -> int:
        """Requests it has not admitted yet."""


class Router(Protocol):
    def pick(self, request: Request, views: Sequence[View]) -> int | None:
        """The `index` of one of `views` (never empty), or None when none should have it."""
