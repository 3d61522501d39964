"""What a workload would send, without a cluster: its arrivals and lengths as arrays.

Open-loop traffic is drawn from its blocks directly, the same numbers that a run of that name and seed would send. Whoever waits for answers
gets them from a stand-in (`workloads/fitting/stand_in.py`), since only a cluster could tell when.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.core.registry import WORKLOADS
from sim.core.rng import stream
from workloads.base import OpenLoop
from workloads.fitting.stand_in import StandIn


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
    world = StandIn(seed, name, workload.shared_prefix)
    world.env.process(workload.drive(world))
    world.env.run(until=span)
    rows = np.array([(request.arrival, request.prompt, request.output) for request in world.requests]).reshape(-1, 3)
    told = any(request.content is not None for request in world.requests)
    shared = np.array(world.shared, dtype=np.int64) if told else None
    return Sent(rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64), shared, [])
