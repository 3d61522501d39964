"""In which order those who wait are served, and who gives way when the KV cache is full.

A batcher admits from the front of the queue its order makes, and asks the order for a victim. An order looks at requests and at what it has
been told of the service they got, never at a clock: time is the engine's count of decode steps.

Between two events (somebody comes, starts to decode, or leaves) an order must not change its mind, for the engine does not ask again
before the next one. An order whose keys grow while requests wait therefore reads its counters as of the step of the last event.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from sim.core.request import Request
from sim.core.rng import Draws
from sim.policy.batch.base import Waiting


class Order(Protocol):
    """`overtakes`: a newcomer may go before others that wait. `meters`: the order wants to be told of service; only then are `at`,
    `admitted`, `joined` and `left` called, and every arrival must end the stretch under way, so that it is taken in at its own step.

    `step` counts the engine's steps in which decoders got tokens; a member of the decode group has one token more after each.
    An order belongs to one engine: its calls come in the same sequence from the engine that runs stretches and from the oracle.
    """

    overtakes: ClassVar[bool] = True
    meters: ClassVar[bool] = False

    def queue(self) -> Waiting:
        """An empty queue in this order. Called once."""
        ...

    def victim(self, running: dict[int, Request]) -> Request:
        """Which of the running requests, in order of admission and at least one, gives up its cache. A decoder's `computed` and `generated`
        are those of when it joined the group, or later: nothing may rest on them.
        """
        ...

    def seed(self, draws: Draws) -> None:
        """Take what luck the order needs; all replicas get the same."""
        return

    def keeps(self, until: Callable[[Request], float]) -> None:
        """Take a way to ask until when the engine keeps a cache for the session of a request, s; never called where nothing is kept."""
        return

    def at(self, step: int) -> None:
        """A plan is about to be made after `step` decode steps; called before anything reads the queue, at every plan."""
        return

    def admitted(self, request: Request) -> None:
        """The request was taken from the queue to run; its `computed` tokens were found or brought."""
        return

    def joined(self, request: Request, step: int) -> None:
        """The request joined the decode group after `step` decode steps; its newest token is out and counted in `generated`."""
        return

    def left(self, request: Request, step: int) -> None:
        """The request runs no more here after `step` decode steps: it ended, was preempted or handed on, `computed` and `generated` up to
        date.
        """
        return
