"""Queueing theory: an engine whose step takes a constant time is a queue with known answers.

One seat and a fixed length is M/D/1; c seats and geometric lengths are M/M/c. Steps are short beside the service, so that starting only at
step boundaries does not show.
"""
from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from sim.core.request import Request
from sim.core.rng import stream
from sim.core.tables import tables
from sim.physics.base import Cost, Work
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.world.clock import Clock
from sim.world.engine import Engine

STEP = 1e-3


class Constant:
    """Every step takes the same time, whoever is in it."""

    def step(self, work: Work) -> Cost:
        return Cost(STEP, 0.0, STEP, 0.0, 0.0)

    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        return STEP, 0.0, 1 << 60

    def mixed(self, decoders, held, chunks):
        return STEP


def strata(name: str, n: int) -> np.ndarray:
    """n uniform numbers, one from each n-th of the unit interval, in random order: the luck of the draw shrinks, its law stays."""
    return stream(3, name).permutation((np.arange(n) + 0.5) / n)


def queue(seats: int, rate: float, outputs: np.ndarray) -> dict[str, np.ndarray]:
    env, out = Clock(), tables()
    ended: list[Request] = []
    limits = Limits(seats, max(seats, 2) + 8, True, 0)
    engine = Engine(env, 0, Constant(), Paged(1 << 40, 16), (VllmV1(), limits, None), (out["stretches"], out["stalls"], ended.append))
    gaps = -np.log1p(-strata(f"gaps {seats} {rate}", len(outputs))) / rate
    arrivals = np.cumsum(gaps)

    def drive():
        for number, (at, output) in enumerate(zip(arrivals.tolist(), outputs.tolist(), strict=True)):
            yield env.timeout(max(at - env.now, 0.0))
            engine.submit(Request(number, env.now, 1, output))

    env.process(drive())
    env.run()
    ended.sort(key=lambda request: request.id)
    return {name: np.array([getattr(request, name) for request in ended]) for name in ("arrival", "admitted", "last")} | {
        "busy": out["stretches"]["seconds"].sum(), "held": out["stretches"]
    }  # fmt: skip


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_one_seat_and_fixed_lengths_is_md1(rho):
    """Pollaczek-Khinchine: the mean wait is rho s / (2 (1 - rho)). Steps add half a step to the start of a service begun idle: none."""
    steps = 200
    service = steps * STEP
    facts = queue(1, rho / service, np.full(300_000 if rho > 0.7 else 100_000, steps))
    wait = (facts["admitted"] - facts["arrival"]).mean()
    assert wait == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.02)
    assert facts["busy"] / facts["last"].max() == pytest.approx(rho, rel=0.02)


def erlang_c(servers: int, load: float) -> float:
    """Probability of waiting in M/M/c with `load` Erlangs."""
    inverse = sum(load**k / math.factorial(k) for k in range(servers))
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (inverse + last)


@pytest.mark.parametrize(("seats", "rho"), [(1, 0.6), (4, 0.7), (16, 0.8)])
def test_geometric_lengths_are_mmc(seats, rho):
    """Erlang C: the mean wait is C(c, a) s / (c (1 - rho)).

    The luck of 100,000 customers is worth several per cent, so the engine is held to the exact waits of its own customers (0.2 %), and
    those waits, over as many customers as it takes, to theory.
    """
    mean = 1000

    def lengths(n: int) -> np.ndarray:
        return np.ceil(np.log1p(-strata(f"lengths {seats}", n)) / math.log1p(-1 / mean)).astype(int)

    rate = rho * seats / (mean * STEP)
    outputs = lengths(100_000)
    facts = queue(seats, rate, outputs)
    # A busy engine admits at the end of the step in flight: half a step more for those who find a free seat beside others.
    late = STEP / 2 * (seats > 1)
    exact = recursion(seats, facts["arrival"], outputs * STEP)
    assert (facts["admitted"] - facts["arrival"]).mean() == pytest.approx(exact + late, rel=0.002)

    services = lengths(3_000_000) * STEP
    arrivals = np.cumsum(-np.log1p(-strata(f"gaps {seats} {rate}", len(services))) / rate)
    load = len(services) / arrivals[-1] * services.mean()
    assert recursion(seats, arrivals, services) == pytest.approx(erlang_c(seats, load) * services.mean() / (seats - load), rel=0.02)


def recursion(servers: int, arrivals: np.ndarray, services: np.ndarray) -> float:
    """Mean wait of the same customers by Kiefer and Wolfowitz: each takes the server that is free first."""
    free, wait = [0.0] * servers, 0.0
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        start = max(arrival, free[0])
        wait += start - arrival
        heapq.heapreplace(free, start + service)
    return wait / len(arrivals)
