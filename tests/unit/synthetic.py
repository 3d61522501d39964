"""Consistent tables without an engine: replicas that serve one request at a time, first come first served.

A request is a prompt step and, for more than one token, one stretch of decode steps that grow linearly; times, tokens, KV blocks and
stretches agree with each other, so every invariant holds until a test corrupts one.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.core.record import Table
from sim.core.request import COMPLETED, UNFINISHED
from sim.core.tables import tables
from sim.spec.scenario import Scenario
from sim.study.result import Result

BLOCK, BLOCKS = 16, 1000
PROMPT_SECONDS, STEP, SLOPE = 0.02, 0.01, 1e-6
FLOPS_PER_TOKEN, WEIGHTS, KV_BYTES = 2e9, 2e9, 1e5


def scenario(**changes: Any) -> Scenario:
    """A valid scenario; `slo` and others by name."""
    base = {"name": "synthetic", "model": "tiny", "cluster": {"pools": [{"gpu": "h100_sxm"}]}, "workloads": [{"kind": "poisson"}]}
    return Scenario.model_validate(base | changes)


def pool(name: str = "serve", **changes: Any) -> dict[str, Any]:
    """One pool as `meta["pools"]` has it: a GPU of 1 PFLOP/s and 3 TB/s."""
    figures = [("flops.bf16", 1e15, "datasheet"), ("bandwidth", 3e12, "measured"), ("idle_watts", 70.0, "judgement")]
    return {
        "name": name, "model": "tiny", "gpu": "h100_sxm", "gpus": 1, "replicas": 1, "price_per_hour": 3.6, "tdp": 700.0, "idle_watts": 70.0,
        "beyond_price_per_hour": 3.6, "reserved": 0, "power_cap": 700.0, "clock": 1.0, "host_watts": 300.0,
        "peak_flops": 1e15, "bandwidth": 3e12, "weight_bytes": WEIGHTS, "active_weight_floor": WEIGHTS, "flops_per_token": FLOPS_PER_TOKEN,
        "flops_per_pair": 1e5, "kv_bytes_per_token": KV_BYTES, "extrapolated": [], "kv_blocks": BLOCKS,
        "memory": {"budget": 7e10, "weights": 2e9, "activations": 1e9, "reserve": 1e9, "per_block": BLOCK * KV_BYTES},
        "provenance": [{"name": n, "value": v, "kind": k, "source": "a source", "date": "2025-01-01"} for n, v, k in figures],
    } | changes  # fmt: skip


def serve(arrivals: np.ndarray, outputs: np.ndarray, horizon: float = math.inf, replicas: int = 1, **changes: Any) -> Result:
    """Serve requests of 100 prompt tokens, dealt to the replicas in turn. `horizon` cuts the run; `changes` go to the scenario and meta."""
    facts = tables()
    facts["requests"].label("workload", "poisson")
    free, taken, peak = [0.0] * replicas, [0] * replicas, [0] * replicas
    for number, (arrival, output) in enumerate(zip(arrivals.tolist(), outputs.tolist(), strict=True)):
        if arrival > horizon:
            break
        at = number % replicas
        start = max(arrival, free[at])
        first = start + PROMPT_SECONDS
        steps = output - 1
        seconds = steps * (STEP + SLOPE * (steps - 1) / 2)
        if first + seconds > horizon:
            free[at] = math.inf
            late = math.nan
            put(facts["requests"], (number, 0, -1, at, arrival, late, late, late, 100, 0, output, 0, UNFINISHED, 0, 0, 0, 0.0))
            continue
        blocks = -(-(100 + steps) // BLOCK)
        common = {"replica": at, "blocks": blocks}
        _stretch(facts["stretches"], start, PROMPT_SECONDS, PROMPT_SECONDS, 1, **common, prefill=100)
        if steps:
            _stretch(facts["stretches"], first, seconds, STEP, steps, **common, held=100)
        times = arrival, start, first, first + seconds
        put(facts["requests"], (number, 0, -1, at, *times, 100, output, output, 0, COMPLETED, 0, 0, 0, 0.0))
        free[at] = first + seconds
        taken[at], peak[at] = taken[at] + blocks, max(peak[at], blocks)
    last = [float(v) for v in facts["requests"]["last_token"] if v == v]
    end = horizon if horizon < math.inf else max(last, default=0.0)
    for index in range(replicas):
        code = facts["replicas"].label("pool", "serve"), facts["replicas"].label("gpu", "h100_sxm")
        put(facts["replicas"], (*code, 1, 0.0, 0.0, end, BLOCKS, BLOCK, peak[index], taken[index], taken[index], 0, 0))
    meta = {
        "version": "0", "seed": 1, "digest": "d" * 64, "sim_s": end, "cpu_s": 0.1, "events": 3, "closed_loop": False,
        "arrivals_end": float(facts["requests"]["arrival"].max(initial=0.0)), "remarks": [], "pools": [pool(replicas=replicas)],
    }  # fmt: skip
    inside = {key: value for key, value in changes.items() if key in meta}
    return Result(scenario(**{key: value for key, value in changes.items() if key not in meta}), facts, meta | inside)


def queue(rho: float, number: int = 4000, seed: int = 0, **changes: Any) -> Result:
    """An M/G/1 queue at utilisation `rho`: Poisson arrivals, geometric outputs of 50 tokens in the mean, about half a second each."""
    rng = np.random.Generator(np.random.PCG64(seed))
    outputs = rng.geometric(1 / 50, number)
    steps = outputs - 1
    service = PROMPT_SECONDS + steps * (STEP + SLOPE * (steps - 1) / 2)
    replicas = changes.get("replicas", 1)
    arrivals = np.cumsum(rng.exponential(float(service.mean()) / rho / replicas, number))
    return serve(arrivals, outputs, **changes)


def put(table: Table, row: tuple[Any, ...]) -> None:
    """Append a row; columns it does not reach, which say what it has nothing of, are 0."""
    table.append(row + (0,) * (len(table.columns) - len(row)))


def edit(table: Table, column: str, row: int, value: Any) -> None:
    """Corrupt one cell."""
    table[column]
    table._chunks[0][column][row] = value


def _stretch(table: Table, start: float, seconds: float, first: float, steps: int, **more: int) -> None:
    prefill = more.get("prefill", 0)
    pairs = prefill * (prefill + 1) / 2
    put(table, (
        start, seconds, first, more["replica"], steps, 0 if prefill else 1, more.get("held", 0), 1 if prefill else 0, prefill, pairs, 0,
        more["blocks"], 0, 0.0 if prefill else float(steps),
    ))  # fmt: skip
