"""The stated intervals hold what they say: 500 studies of M/M/c, by an engine alone and by `sim.replicate`, each with 95 % intervals of
what is known, such as the mean wait.

Studies are of independent luck, whose coverage would be 95 % but for skewed means of short runs; by chance 500 of them come within 2 %.
"""
from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from test_queueing import STEP, Constant, erlang_c

import sim
from sim.core.request import Request
from sim.core.rng import stream
from sim.core.tables import tables
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.study.replicate.interval import correlated, share, student
from sim.study.replicate.replicate import seed
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


# -- by the front door ------------------------------------------------------------
RUNS, CUSTOMERS, TOKENS, STEP_SECONDS = 5, 2000, 200, 1.0
HALF = 0.5  # of what the seats can do; the busier they are, the more skewed are means of runs this short
WARMUP = 100 * TOKENS * STEP_SECONDS / (HALF * SEATS)  # of so many customers


def exponential() -> list[tuple[float, float]]:
    """Quantiles of answers of TOKENS in the mean, closer where the tail begins; the longest is that of one in a million."""
    shares = np.concatenate([np.linspace(0, 0.99, 100), 1 - np.geomspace(0.009, 1e-6, 40), [1.0]])
    lengths = np.maximum(-TOKENS * np.log1p(-np.minimum(shares, 1 - 1e-6)), 1.0)
    return list(zip(shares.tolist(), lengths.tolist(), strict=True))


def mmc(study: int, within: float) -> sim.Scenario:
    """M/M/SEATS as a user writes it: one engine of as many seats, whose host takes a second a step, beside which kernels do not show."""
    engine = {"max_num_seqs": SEATS, "host_overhead": STEP_SECONDS}
    lengths = {"kind": "empirical", "input": [(0, 1), (1, 1)], "output": exponential()}
    rate = HALF * SEATS / (TOKENS * STEP_SECONDS)
    return sim.loads({
        "name": "mmc", "seed": study, "model": "Qwen/Qwen2.5-0.5B",
        "cluster": {"pools": [{"gpu": "h100_sxm", "kernel_time": 0.1, "engine": engine}]},
        "workloads": [{"kind": "poisson", "rate": rate, "num_requests": CUSTOMERS, "lengths": lengths}], "slo": {"ttft_p90": within},
    })  # fmt: skip


@pytest.mark.study
def test_of_what_replicate_says():
    """The interval of a mean wait, a mean time in the system, and a share of requests in time, each of which is known; and of how often the
    SLO is met, which is seen over all runs. Of five runs Wilson's interval holds as often as five throws of a coin make it.
    """
    service, load = TOKENS * STEP_SECONDS, HALF * SEATS
    queued, drains = erlang_c(SEATS, load), (SEATS - load) / service
    late = STEP_SECONDS / 2
    within = math.log(queued / 0.1) / drains + STEP_SECONDS + late  # for nine of ten
    truth = {"queue_s.mean": queued / drains + late, "e2e_s.mean": queued / drains + late + service, "slo.attainment": 0.9}
    found = [sim.replicate(mmc(study, within), RUNS, warmup=WARMUP) for study in range(STUDIES)]
    held = {}
    for name, value in truth.items():
        every = [one.interval(name) for one in found]
        mean = float(np.mean([one.mean for one in every]))
        held[name] = float(np.mean([one.low <= value <= one.high for one in every]))
        print(f"{name}: {held[name]:.1%} of {STUDIES} intervals hold {value:.4g}; mean over all {mean:.4g}")
        assert mean == pytest.approx(value, rel=0.02)
    met = [one.interval("slo.met") for one in found]
    often = float(np.mean([one.mean for one in met]))
    told = np.array([one.low <= often <= one.high for one in map(share, ([True] * k + [False] * (RUNS - k) for k in range(RUNS + 1)))])
    wilson = float(binom.pmf(np.arange(RUNS + 1), RUNS, often) @ told)
    of_met = float(np.mean([one.low <= often <= one.high for one in met]))
    print(f"slo.met: {of_met:.1%} of {STUDIES} intervals hold {often:.3f}; Wilson's should hold it in {wilson:.1%}")
    assert all(0.93 <= value <= 0.97 for value in held.values())
    assert of_met == pytest.approx(wilson, abs=0.02)
