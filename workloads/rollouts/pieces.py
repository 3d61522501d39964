"""Answers that need not end where they began: in pieces that find a home each, or moved together when replicas run empty.

A tail policy says how long pieces are, which of those that wait goes first, where it runs, and what moves. Homes are chosen on what has
been promised: each piece sent keeps the tokens that it will have at its end, so that nobody is preempted for it, and what fits nowhere
waits here. Where replicas have a store of keys and values in the memory of their hosts (`swap_space`), what moves is fetched from there
through the host's link, as from the pool that all replicas read of Seer; else it is computed again.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.core.content import Content
from sim.core.request import Request
from sim.core.rollout import Prompt, Trajectory
from sim.core.rounds import Replica
from workloads.rollouts.calls import Calls, Ended, Late

if TYPE_CHECKING:
    from sim.policy.tail.base import Tail
    from workloads.base import Client


class Pieces(Calls):
    """Under a tail policy. `homes`: replicas by what has been promised of their caches, where the policy sends pieces home."""

    def __init__(self, client: Client, control: Any, content: Callable[[Prompt], Content], tail: Tail, told: tuple[Ended, Late]):
        super().__init__(client, control, content, True, told)
        self._tail = tail
        self._seats = control.seats()
        self._views = {number: Replica(number, 0, 0, 0, tokens) for number, tokens, _ in self._seats}
        self._most = {number: most for number, _, most in self._seats}
        self._sends_home = tail.sends_home
        self._queue: list[tuple[tuple[float, ...], int, int, Trajectory]] = []
        self._entry: dict[int, int] = {}
        self._own: dict[int, tuple[int, int]] = {}
        self._count = 0
        self._timer = False

    # -- pieces ------------------------------------------------------------
    def _send(self, trajectory: Trajectory, request: Request) -> None:
        """Send what is left of an answer, or let it wait for room."""
        request.output = min(self._tail.piece(request.output), request.output)
        trajectory.work.request = request
        if not self._sends_home:
            home = trajectory.work.home
            self._go(trajectory, request, home)
            self._watch()
            return
        self._enter(trajectory)
        self._dispatch()

    def _enter(self, trajectory: Trajectory) -> None:
        self._count += 1
        self._entry[id(trajectory)] = self._count
        heapq.heappush(self._queue, (self._tail.rank(trajectory), self._count, trajectory.number, trajectory))

    def _dispatch(self) -> None:
        """Send those that wait, in order, as long as there is room for the first."""
        queue, views = self._queue, self._views
        while queue:
            _, entry, _, trajectory = queue[0]
            work = trajectory.work
            if self._entry.get(id(trajectory)) != entry or work.request is None:
                heapq.heappop(queue)
                continue
            request = work.request
            wanted = request.prompt + request.output
            able = [one for one in views.values() if one.used + wanted <= one.tokens and one.running < self._most[one.number]]
            if not able and any(one.running for one in views.values()):
                return
            heapq.heappop(queue)
            del self._entry[id(trajectory)]
            home = self._tail.home(trajectory, work.home, able or list(views.values()))
            self._promise(home, wanted, 1)
            self._own[id(trajectory)] = home, wanted
            self._go(trajectory, request, home)

    def _promise(self, home: int, tokens: int, count: int) -> None:
        view = self._views[home]
        self._views[home] = view._replace(running=view.running + count, used=view.used + tokens)

    def _go(self, trajectory: Trajectory, request: Request, home: int) -> None:
        """Send it, to the replica `home` where that is not -1."""
        moved = home >= 0 and trajectory.work.home >= 0 and home != trajectory.work.home
        if (moved or trajectory.work.moves) and request.prompt > 1 and self._control.brings:
            request.brought = request.prompt - 1
        trajectory.work.moves = False
        # It may have waited here, where nobody could serve it.
        request.arrival = self._client.env.now
        others = [number for number, _, _ in self._seats if number != home] if home >= 0 else ()
        event = self._client.call(request, others)
        trajectory.work.home = request.replica
        self._open[request.id] = trajectory
        event.callbacks.append(self._over)

    def _over(self, event: Any) -> None:
        request: Request = event._value
        trajectory = self._open[request.id]
        self._free(trajectory)
        work = trajectory.work
        if work.rest is None and request.generated >= request.output and work.before + request.output < trajectory.target:
            # A piece has ended, and not the answer.
            del self._open[request.id]
            work.before += request.output
            self._send(trajectory, self._rest(trajectory, request))
        else:
            super()._over(event)
        if self._sends_home:
            self._dispatch()

    def _free(self, trajectory: Trajectory) -> None:
        home, wanted = self._own.pop(id(trajectory), (-1, 0))
        if home >= 0:
            self._promise(home, -wanted, -1)

    def _finish(self, trajectory: Trajectory) -> None:
        super()._finish(trajectory)
        # What has ended tells how long its siblings will be.
        for one in trajectory.group.trajectories if self._sends_home else ():
            if self._entry.get(id(one)):
                self._enter(one)

    def park(self, trajectory: Trajectory) -> None:
        work = trajectory.work
        if self._entry.pop(id(trajectory), None) is None:
            super().park(trajectory)
            return
        # It waits here, and no engine knows of it.
        work.rest, work.request, work.made = work.request, None, 0

    # -- moves ------------------------------------------------------------
    def _watch(self) -> None:
        if not self._timer and self._tail.every:
            self._timer = True
            self._client.env.timeout(self._tail.every).callbacks.append(self._look)

    def _look(self, _: Any) -> None:
        self._timer = False
        if not self._open or self._control.paused:
            if self._open:
                self._watch()
            return
        moves = dict(self._tail.moves([Replica(*one) for one in self._control.views()]))
        for trajectory in list(self._open.values()):
            work = trajectory.work
            request = work.request
            if request is not None and request.replica in moves:
                target = moves[request.replica]
                self.park(trajectory)
                work.again, work.home, work.moves = True, target, True
        self._watch()
