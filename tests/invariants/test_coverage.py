"""The stated intervals hold what they say: 500 studies of M/M/c by an engine, each with a 95 % interval for the mean wait, which is known.

Studies are of independent luck, whose coverage would be 95 % but for skewed means of short runs; by chance 500 of them come within 2 %.
"""
from __future__ import annotations

import numpy as np
import pytest
from test_queueing import STEP, Constant, erlang_c

from sim.core.request import Request
from sim.core.rng import stream
from sim.core.tables import tables
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.study.interval import correlated, student
from sim.study.replicate import seed
from sim.world.clock import Clock
from sim.world.engine import Engine

SEATS, RHO, MEAN = 2, 0.6, 1000
STUDIES, EMPTY = 500, 200  # customers who find the queue filling


def waits(number: int, customers: int) -> np.ndarray:
    """Seconds that each customer of one run waited, those aside who came while the queue filled."""
    rng, env, out = stream(seed(11, number), "mmc"), Clock(), tables()
    ended: list[Request] = []
    limits = Limits(SEATS, SEATS + 8, True, 0)
    engine = Engine(env, 0, Constant(), Paged(1 << 40, 16), (VllmV1(), limits, None), (out["stretches"], out["stalls"], ended.append))
    arrivals = np.cumsum(rng.exponential(MEAN * STEP / (RHO * SEATS), EMPTY + customers))
    outputs = rng.geometric(1 / MEAN, EMPTY + customers)

    def drive():
        for name, (at, output) in enumerate(zip(arrivals.tolist(), outputs.tolist(), strict=True)):
            yield env.timeout(max(at - env.now, 0.0))
            engine.submit(Request(name, env.now, 1, output))

    env.process(drive())
    env.run()
    ended.sort(key=lambda request: request.id)
    return np.array([request.admitted - request.arrival for request in ended[EMPTY:]])


def theory() -> float:
    """Erlang C; a busy engine admits at the end of the step in flight, half a step later."""
    load = RHO * SEATS
    return erlang_c(SEATS, load) * MEAN * STEP / (SEATS - load) + STEP / 2


@pytest.mark.study
def test_of_intervals_by_replications():
    """Five runs each; a run is the mean of 2,000 customers."""
    held = 0
    for study in range(STUDIES):
        one = student([waits(study * 16 + number, 2000).mean() for number in range(5)])
        held += one.low <= theory() <= one.high
    print(f"5 replications: {held / STUDIES:.1%} of {STUDIES} intervals hold the mean wait of M/M/{SEATS}")
    assert 0.93 <= held / STUDIES <= 0.97


@pytest.mark.study
def test_of_intervals_by_batch_means():
    """Runs of 10,000 customers in five batches, which hang together in no more runs than chance allows; twice as many studies."""
    held = together = 0
    for study in range(2 * STUDIES):
        means = waits(10**6 + study, 10_000).reshape(5, -1).mean(axis=1)
        one = student(means)
        held, together = held + (one.low <= theory() <= one.high), together + correlated(means)
    held, together = held / (2 * STUDIES), together / (2 * STUDIES)
    print(f"5 batches: {held:.1%} of {2 * STUDIES} intervals, {together:.1%} of which are said to hang together")
    assert 0.93 <= held <= 0.97
    assert together <= 0.1
