"""Trajectories of one turn: each is a call of the model, and all samples of a prompt share its cache.

What was stopped goes on as a request of its own whose prompt is all that was there before, so that it is computed again as far as no cache
has it. Content of prompts has a key for each prompt of the data set: met again in a later epoch, it is the same.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.core.content import Content
from sim.core.errors import BadInput, Problem
from sim.core.request import Request
from sim.core.rollout import Prompt, Trajectory

if TYPE_CHECKING:
    from workloads.base import Client


Ended = Callable[[Trajectory], None]
Late = Callable[[Trajectory, int], None]


class Calls:
    """`keeps`: answers are known to caches, as they may be asked to go on.

    A request that is called off ends with the step in flight: `late` is told of tokens that it made after `progress` last counted.
    """

    def __init__(
        self, client: Client, control: Any, content: Callable[[Prompt], Content], keeps: bool, told: tuple[Ended, Late]
    ):  # fmt: skip
        self._client, self._control, self._content, self._keeps = client, control, content, keeps
        self._ended, self._late = told
        self._open: dict[int, Trajectory] = {}

    def begin(self, trajectory: Trajectory, prompt: Prompt) -> None:
        reply = self._client.keys(1) if self._keeps else 0
        request = self._client.request(prompt.tokens, trajectory.target, -1, self._content(prompt), reply)
        trajectory.turns, trajectory.length = 1, prompt.tokens
        trajectory.work = Work()
        self._send(trajectory, request)

    def progress(self, trajectory: Trajectory) -> int:
        work: Work = trajectory.work
        return work.before + (0 if work.request is None else self._control.progress(work.request))

    def stop(self, trajectory: Trajectory) -> None:
        if trajectory.work.request is not None:
            self.park(trajectory)
        trajectory.work.again = False

    def park(self, trajectory: Trajectory) -> None:
        work: Work = trajectory.work
        request = work.request
        if request is None:
            # It was to go on as soon as the step in flight had ended.
            work.again = False
            return
        made = self._control.progress(request)
        work.before += made
        work.request, work.rest, work.made = None, request, made
        self._client.cancel(request)

    def resume(self, trajectory: Trajectory) -> bool:
        work: Work = trajectory.work
        if work.rest is None:
            return False
        if work.rest.id in self._open:
            work.again = True
            return True
        request, work.rest, work.again = work.rest, None, False
        if not work.moves:
            work.home = -1
        if work.before < trajectory.target:
            self._send(trajectory, self._rest(trajectory, request))
        else:
            self._finish(trajectory)
        return True

    def close(self) -> None:
        for number, trajectory in self._open.items():
            work: Work = trajectory.work
            if work.rest is not None and work.rest.id == number:
                self._spilt(trajectory, self._control.progress(work.rest))

    def running(self) -> int:
        return len(self._open)

    def _send(self, trajectory: Trajectory, request: Request) -> None:
        trajectory.work.request = request
        event = self._client.call(request)
        self._open[request.id] = trajectory
        event.callbacks.append(self._over)

    def _rest(self, trajectory: Trajectory, request: Request) -> Request:
        """What is left of an answer after a request for it that has ended."""
        request.output = request.generated + trajectory.target - trajectory.work.before
        rest: Request = self._control.continued(request)
        return rest

    def _over(self, event: Any) -> None:
        request: Request = event._value
        trajectory = self._open.pop(request.id)
        work: Work = trajectory.work
        if work.rest is request:
            self._spilt(trajectory, request.generated)
            if work.again:
                self.resume(trajectory)
        elif request.generated < request.output:
            raise BadInput([Problem(refused(request), self._client.where)])
        else:
            self._finish(trajectory)

    def _spilt(self, trajectory: Trajectory, generated: int) -> None:
        """What was stopped has so many tokens by now."""
        work: Work = trajectory.work
        more, work.made = generated - work.made, generated
        work.before += more
        if more:
            self._late(trajectory, more)

    def _finish(self, trajectory: Trajectory) -> None:
        trajectory.length += trajectory.target
        trajectory.work.before, trajectory.work.request = trajectory.target, None
        self._ended(trajectory)


class Work:
    """What a trajectory has: the request under way; tokens that it was told to have made before that; the request that was stopped, which
    had `made` so many tokens then, and whether it goes on as soon as it has ended. `home`: its replica, where it matters, -1: none yet;
    `moves`: it is on its way to it.
    """

    __slots__ = ("again", "before", "home", "made", "moves", "request", "rest")

    def __init__(self) -> None:
        self.before = self.made = 0
        self.home = -1
        self.again = self.moves = False
        self.request: Request | None = None
        self.rest: Request | None = None


def refused(request: Request) -> str:
    """Why an answer cannot be generated."""
    what = f"an answer of {request.output:,} tokens to a prompt of {request.prompt:,}"
    return f"{what} was turned away ({request.reason}): make room for it in the pool, or lower the cap of answers"
