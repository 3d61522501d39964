"""A world without a cluster, for what a workload would send: answers take `ANSWER` seconds a token, sandboxes are there at once.

Commands in a sandbox take the time they take. Tables of facts are not kept.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import simpy

from sim.core.content import Content
from sim.core.errors import BadInput, Problem
from sim.core.request import Request
from sim.core.rng import stream

ANSWER = 0.02


class _Ran(NamedTuple):
    outcome: str
    queued: float = 0.0


class Box:
    """A sandbox that nothing happens to."""

    open = True

    def __init__(self, env: simpy.Environment):
        self._env = env

    def run(self, seconds: float, cores: float | None = None, timeout: float | None = None) -> Any:
        late = timeout is not None and seconds > timeout
        return self._command(timeout if late and timeout is not None else seconds, "timeout" if late else "ok")

    def hang(self, timeout: float) -> Any:
        return self._command(timeout, "timeout")

    def pause(self) -> None:
        return

    def release(self) -> None:
        self.open = False

    def _command(self, seconds: float, outcome: str) -> Any:
        command = _Command(self._env)
        self._env.timeout(seconds).callbacks.append(lambda _: command.end(outcome))
        return command


class _Command(simpy.Event):
    def end(self, outcome: str) -> None:
        if not self.triggered:
            self.succeed(_Ran(outcome))

    def stop(self) -> None:
        self.end("stopped")


class _Ask(simpy.Event):
    def withdraw(self) -> None:
        return


def granted(env: simpy.Environment) -> _Ask:
    """A sandbox that was asked for: it is there."""
    ask = _Ask(env)
    ask.succeed(Box(env))
    return ask


class StandIn:
    """`requests` are those sent, in order, and `shared` how many tokens at the front of each were in one before it."""

    def __init__(self, seed: int, name: str, shared_prefix: int):
        self.env, self.name = simpy.Environment(), name
        self.requests: list[Request] = []
        self.shared: list[int] = []
        self._seed, self._fresh, self._numbers = seed, 2, 0
        self._codes: dict[tuple[str, str, str], int] = {}
        self._seen: set[int] = set()
        self._prefix = Content((1,), (shared_prefix,), shared_prefix) if shared_prefix else None

    def rng(self, name: str) -> np.random.Generator:
        return stream(self._seed, f"{self.name}.{name}")

    def keys(self, count: int) -> int:
        first, self._fresh = self._fresh, self._fresh + count
        return first

    def request(self, prompt: int, output: int, session: int = -1, content: Content | None = None, reply: int = 0) -> Request:
        request = Request(len(self.requests), self.env.now, prompt, output, 0, session)
        request.content, request.reply = content if content is not None else self._prefix, reply
        return request

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        known = 0
        if request.content is not None:
            for key, end in zip(request.content.keys, request.content.ends, strict=True):
                if key in self._seen:
                    known = end
                else:
                    self._seen.add(key)
        if request.reply:
            self._seen.add(request.reply)
        self.shared.append(min(known, request.prompt))

    def call(self, request: Request) -> Any:
        self.submit(request)
        event = self.env.timeout(ANSWER * request.output, request)
        event.callbacks.append(lambda _: self._answered(request))
        return event

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def service(self, model: str) -> int:
        return 0

    def cancel(self, request: Request, reason: str = "cancelled") -> None:
        if request.last != request.last:
            request.reason = reason

    def label(self, table: str, column: str, text: str) -> int:
        return self._codes.setdefault((table, column, text), len(self._codes))

    def note(self, table: str, row: tuple[Any, ...]) -> None:
        return

    def closing(self, call: Callable[[], None]) -> None:
        return

    def trainer(self, name: str) -> Any:
        raise BadInput([Problem("what it sends waits for a trainer, which only a run of the scenario has")])

    def sandbox(self, pool: str, image: int = 0) -> Any:
        return granted(self.env)

    def _answered(self, request: Request) -> None:
        if not request.reason:
            request.generated, request.last = request.output, self.env.now
