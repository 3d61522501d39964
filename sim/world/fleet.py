"""Replicas that can stand in for each other, and the choice among them: one fleet per model and role.

Replicas come and go. While none that could take a request is there, it is held, in order of arrival, and sent on when one comes.
"""
from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.core.request import Request
from sim.policy.route.base import Router, View
from sim.policy.route.least_loaded import LeastLoaded
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.ranking import Ranked, Ranking

if TYPE_CHECKING:
    from sim.world.gate import Gated

INDEX = attrgetter("index")


class Held(NamedTuple):
    """A request of `length` tokens that waits since `since`; `send` is called with it once there is a replica. `fresh`: it ran nowhere."""

    request: Request
    length: int
    since: float
    send: Callable[[Request], None]
    fresh: bool


class Fleet:
    """`limits` gives for each pool the longest request a replica of it can hold, in tokens, and the name of what limits it.

    `engines` are the replicas that take requests now, in order of their indices; `held` are requests that wait for one. `look` gives what
    the router sees of a replica; None: the engine itself. `gate` says which programs may send to them; None: all.
    """

    def __init__(self, limits: Sequence[tuple[int, str]], router: Router, look: Callable[[Engine | ExactEngine], View] | None = None):
        self.engines: list[Engine | ExactEngine] = []
        self._look = look
        self._views: list[Any] = self.engines if look is None else []
        self.held: deque[Held] = deque()
        self.gate: Gated | None = None
        self.longest, self.limit = max(limits, default=(0, "max_model_len"))
        self._router = router
        self._shortest = min((limit for limit, _ in limits), default=0)
        self._by_index: dict[int, Engine | ExactEngine] = {}
        self._room: dict[int, int] = {}
        self._ranking: Ranking | None = None

    def rank(self, router: LeastLoaded) -> None:
        """Spare the router of this fleet, all of `Ranked` engines, asking every one."""
        self._ranking = Ranking()
        router.rank(self._views, self._ranking.first)

    def add(self, engine: Engine | ExactEngine, limit: int) -> None:
        """A replica takes requests from now on, up to so many tokens each."""
        insort(self.engines, engine, key=INDEX)
        if self._look is not None:
            insort(self._views, self._look(engine), key=INDEX)
        self._by_index[engine.index], self._room[engine.index] = engine, limit
        if self._ranking is not None and isinstance(engine, Ranked):
            self._ranking.add(engine)

    def remove(self, engine: Engine | ExactEngine) -> None:
        """A replica takes no more."""
        self.engines.remove(engine)
        if self._look is not None:
            self._views = [view for view in self._views if view.index != engine.index]
        del self._by_index[engine.index], self._room[engine.index]
        if self._ranking is not None and isinstance(engine, Ranked):
            self._ranking.remove(engine)

    def able(self, length: int) -> Sequence[View]:
        """What is seen of the replicas that can hold a request of so many tokens, prompt and output."""
        if length <= self._shortest:
            return self._views
        return [view for view in self._views if length <= self._room[view.index]]

    def pick(self, request: Request, views: Sequence[View]) -> Engine | ExactEngine | None:
        """The router's choice among some replicas; the request is marked with it."""
        picked = self._router.pick(request, views)
        if picked is None:
            return None
        request.replica = picked
        return self._by_index[picked]

    @property
    def holding(self) -> int:
        """Requests that wait for a replica, or for a gate to let their programs go on."""
        return len(self.held) + (self.gate.holding if self.gate is not None else 0)

    def send_held(self) -> list[Held]:
        """Send on what is held and can go now, in order; returns it."""
        waiting, self.held = self.held, deque()
        sent = []
        for item in waiting:
            if self.able(item.length):
                sent.append(item)
                item.send(item.request)
            else:
                self.held.append(item)
        return sent

    def let_go(self, request: Request) -> Held | None:
        """A request that is held is wanted no more; None when it is not held."""
        item = next((item for item in self.held if item.request is request), None)
        if item is not None:
            self.held.remove(item)
        return item
