"""What becomes of a request's cache when it has ended and its session is expected to ask again.

Blocks that are kept are free all the same: they are used up after all others, those kept longest first, so that keeping never delays or
preempts a request. Unless they are kept firmly: then they are not free, others wait for room, and only when an engine could not go on, or
would have to preempt a request, those of the program that came last are let go. A policy is asked once, when a request ends; its answer
holds until the session's next request is admitted.
"""
from __future__ import annotations

from typing import NamedTuple, Protocol

from sim.core.request import Request
from sim.policy.retain._history import History


class State(NamedTuple):
    """The replica as a policy sees it when a request ends; `blocks` are the request's own, seconds throughout.

    `lifetime` is how long a block that is given back now is likely to stay: the blocks that go before it over those taken per second so
    far. `recompute` and `reload` are the times to have the request's tokens again, on an idle replica: computed, and from the
    nearest tier (infinite without one).
    """

    blocks: int
    lifetime: float
    recompute: float
    reload: float
    history: History


class Fate(NamedTuple):
    """Keep for so many seconds (0: not at all; infinite: until it is asked for), then `offload`: move to the nearest tier. `firm`: nobody
    else gets the blocks meanwhile.
    """

    keep: float
    offload: bool = False
    firm: bool = False


LET_GO = Fate(0.0)


class Retention(Protocol):
    """`offloads`: it needs a host tier."""

    offloads: bool

    def decide(self, request: Request, state: State) -> Fate:
        """For a request that has ended and whose `pause` is a number. Nothing changes."""
