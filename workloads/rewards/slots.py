"""Lines, first come, first served: a fixed number of slots, or instances that start when they are wanted and go when they are idle.

Nobody watches a line: who leaves lets the next one in, and that an instance has gone shows when somebody looks for one.
"""
from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sim.spec.law import Law

if TYPE_CHECKING:
    from sim.core.rng import Luck


class User(Protocol):
    """Who stands in line; who is `over` has left it. `served`: it has a slot."""

    over: bool
    served: bool

    def begin(self) -> None:
        """It has a slot from now on."""


class Line(Protocol):
    """What users stand in line for."""

    def enter(self, user: User, luck: Luck) -> None:
        """Take a slot or stand in line; `begin` may be called before this returns. `luck` is what a new instance draws from."""

    def leave(self, user: User) -> None:
        """A user that is over, in line or not."""


class Slots:
    """`count` of them; None: any number."""

    __slots__ = ("_free", "_queue")

    def __init__(self, count: int | None):
        self._free = math.inf if count is None else count
        self._queue: deque[User] = deque()

    def enter(self, user: User, luck: Luck) -> None:
        if self._free:
            self._free -= 1
            user.served = True
            user.begin()
        else:
            self._queue.append(user)

    def leave(self, user: User) -> None:
        if not user.served:
            return
        following = _next(self._queue)
        if following is None:
            self._free += 1
        else:
            following.served = True
            following.begin()


class Life(NamedTuple):
    """Of instances: at most `most`, which take `cold_start` to come up, and go when idle for `keep` seconds."""

    most: int | None
    cold_start: Law
    keep: float


class Instances:
    """An instance is started for each that comes and finds none idle, up to the most; whoever is first in line has the next that is up or
    free. Of those idle the one used last is taken, so that the others may go. `started` counts them.
    """

    def __init__(self, env: Any, life: Life):
        self._env, self._life = env, life
        self._queue: deque[User] = deque()
        self._idle: list[float] = []
        self._coming = self._busy = self.started = 0

    def enter(self, user: User, luck: Luck) -> None:
        idle, life = self._idle, self._life
        if idle and self._env.now - idle[-1] <= life.keep:
            idle.pop()
            self._serve(user)
            return
        # The one used last is gone, and so are those before it.
        idle.clear()
        self._queue.append(user)
        if life.most is None or self._coming + self._busy < life.most:
            self._coming += 1
            self.started += 1
            self._env.timeout(life.cold_start.at(luck.next())).callbacks.append(self._up)

    def leave(self, user: User) -> None:
        if user.served:
            self._busy -= 1
            self._free()

    def _up(self, _: Any) -> None:
        self._coming -= 1
        self._free()

    def _free(self) -> None:
        following = _next(self._queue)
        if following is None:
            self._idle.append(self._env.now)
        else:
            self._serve(following)

    def _serve(self, user: User) -> None:
        self._busy += 1
        user.served = True
        user.begin()


def _next(queue: deque[User]) -> User | None:
    while queue:
        user = queue.popleft()
        if not user.over:
            return user
    return None
