"""What a workload would send, without a cluster: its arrivals and lengths as arrays.

Open-loop traffic is drawn from its blocks directly, the same numbers that a run of that name and seed would send. Whoever waits for answers
gets them from a stand-in that takes `ANSWER` seconds a token, since only a cluster could tell.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.core.content import Content
from sim.core.registry import WORKLOADS
from sim.core.request import Request
from sim.core.rng import stream
from workloads.base import OpenLoop

ANSWER = 0.02


class Sent(NamedTuple):
    """Times in seconds, ascending; tokens (int64); tokens at the front of each prompt that an earlier one of it had too, or None."""

    times: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    shared: np.ndarray | None
    remarks: list[str]


def sent(options: Mapping[str, Any], span: float, seed: int, name: str = "workload") -> Sent:
    """What a workload of checked `options` sends before `span`. Raises BadInput."""
    workload = WORKLOADS.make(options)
    remarks = workload.prepare()
    if isinstance(workload, OpenLoop) and workload.prefixes is None and workload.samples == 1 and not workload.shared_prefix:
        return _drawn(workload, span, seed, name)._replace(remarks=remarks)
    return _driven(workload, span, seed, name)._replace(remarks=remarks)


def _drawn(workload: OpenLoop, span: float, seed: int, name: str) -> Sent:
    lengths, left = stream(seed, f"{name}.lengths"), math.inf if workload.num_requests is None else workload.num_requests
    end = min(span - workload.start, math.inf if workload.duration is None else workload.duration)
    parts = [np.empty((3, 0))]
    for times, senders in workload.sent(stream(seed, f"{name}.arrivals")):
        prompts, outputs = workload.sizes(lengths, senders)
        count = int(min(np.searchsorted(times, end), left))
        parts.append(np.stack([workload.start + times[:count], prompts[:count], outputs[:count]]))
        left -= count
        if count < len(times) or not left:
            break
    at, prompt, output = np.concatenate(parts, axis=1)
    return Sent(at, prompt.astype(np.int64), output.astype(np.int64), None, [])


def _driven(workload: Any, span: float, seed: int, name: str) -> Sent:
    world = _World(seed, name, workload.shared_prefix)
    world.env.process(workload.drive(world))
    world.env.run(until=span)
    rows = np.array([(request.arrival, request.prompt, request.output) for request in world.requests]).reshape(-1, 3)
    told = any(request.content is not None for request in world.requests)
    shared = np.array(world.shared, dtype=np.int64) if told else None
    return Sent(rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64), shared, [])


class _World:
    """Takes requests, answers calls after a while, and notes how much of each prompt was there before."""

    def __init__(self, seed: int, name: str, shared_prefix: int):
        import simpy

        self.env, self.name = simpy.Environment(), name
        self.requests: list[Request] = []
        self.shared: list[int] = []
        self._seed, self._fresh = seed, 2
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

    def _answered(self, request: Request) -> None:
        request.generated, request.last = request.output, self.env.now
