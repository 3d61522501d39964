"""A service outside that tools go through: a queue with a quota.

A bucket of `burst` tokens, refilled at `rate`, says when the next call may begin, and `concurrency` how many run at a time; whoever has to
wait is served in order of arrival. The bucket is kept as one number, the time at which it would be full (the generic cell rate algorithm,
ITU-T I.371): a call may begin when that is at most (burst - 1) / rate ahead, and moves it on by 1 / rate.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from workloads.programs.options import Quota

# A timer rings a rounding error early or late; the bucket forgives that much of a refill.
SLACK = 1e-9


class Pass:
    """One call's turn: `begin` is called when it may go on, unless it was called off before."""

    __slots__ = ("begin", "off", "running")

    def __init__(self, begin: Callable[[], None]):
        self.begin = begin
        self.off = self.running = False


class Api:
    """One service, shared by all sessions of a workload."""

    def __init__(self, env: Any, quota: Quota):
        self._env, self._quota = env, quota
        self._queue: deque[Pass] = deque()
        self._waiting = self._running = 0
        self._full = -1e300
        self._timed = False

    def enter(self, begin: Callable[[], None]) -> Pass | None:
        """Ask to be let in; None: too many wait already. `begin` may be called before this returns."""
        most = self._quota.queue
        ticket = Pass(begin)
        self._queue.append(ticket)
        self._waiting += 1
        self._serve()
        if most is not None and not ticket.running and self._waiting > most:
            self.leave(ticket)
            return None
        return ticket

    def leave(self, ticket: Pass) -> None:
        """A call is over, or does not want its turn any more."""
        if ticket.off:
            return
        ticket.off = True
        if ticket.running:
            self._running -= 1
            self._serve()
        else:
            self._waiting -= 1

    def _serve(self) -> None:
        quota, queue = self._quota, self._queue
        while queue:
            if queue[0].off:
                queue.popleft()
                continue
            if quota.concurrency is not None and self._running >= quota.concurrency:
                return
            if quota.rate is not None:
                now, gap = self._env.now, 1.0 / quota.rate
                early = self._full - now - (quota.burst - 1) * gap
                if early > SLACK:
                    self._later(early)
                    return
                self._full = max(self._full, now) + gap
            ticket = queue.popleft()
            ticket.running = True
            self._waiting -= 1
            self._running += 1
            ticket.begin()

    def _later(self, seconds: float) -> None:
        if not self._timed:
            self._timed = True
            self._env.timeout(seconds).callbacks.append(self._ring)

    def _ring(self, _: Any) -> None:
        self._timed = False
        self._serve()
