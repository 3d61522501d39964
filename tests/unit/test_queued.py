"""Who queued at replicas, of stretches that say how many do at their end."""
from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.study.metrics import Facts
from sim.study.queued import Queued
from sim.study.why.why import why

LENGTHS = {"kind": "lognormal", "input": {"mean": 1150, "p99": 4100}, "output": {"mean": 210, "p99": 600}}


class Page(dict):
    """Columns of a page, by name."""


def page(replica, waiting, seconds, steps):
    return Page(replica=np.array(replica), waiting=np.array(waiting, dtype="i4"), seconds=np.array(seconds), steps=np.array(steps))


def test_those_before_stay_and_the_rest_come():
    queued = Queued(2)
    first = page([0, 1, 0], [2, 0, 3], [10.0, 5.0, 4.0], [5, 1, 2])
    # Two end the fifth step of the first stretch; one more comes behind them at any time of the last.
    assert queued.seconds(first).tolist() == [2 * 2.0 / 2, 0.0, 2 * 4.0 + 1 * 4.0 / 2]
    # The replicas go on where the page before ended; one left the queue.
    assert queued.seconds(page([1, 0], [1, 2], [6.0, 8.0], [3, 1])).tolist() == [1.0, 16.0]
    assert queued.before(page(np.empty(0, "i4"), [], [], [])).size == 0


@pytest.mark.parametrize(("rate", "seats"), [(8, 256), (12, 8)])
def test_it_is_what_requests_say(rate, seats):
    """Beside long stretches with nobody waiting, and beside a full batch; within two steps for each request."""
    found = sim.run({
        "seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm", "engine": {"max_num_seqs": seats}}]},
        "workloads": [{"kind": "poisson", "rate": rate, "num_requests": 200, "lengths": LENGTHS}],
    })  # fmt: skip
    facts = Facts(found)
    queued = Queued(len(facts.replicas))
    spent = sum(float(queued.seconds(one).sum()) for one in facts.stretches())
    assert spent == pytest.approx(found.requests["queue"].sum(), abs=0.02 * 200)
    causes = {reason["cause"]: reason["share"] for reason in why(facts)}
    if seats == 8:
        assert causes["queue"] == pytest.approx(found.requests["queue"].sum() / found.requests["e2e"].sum(), abs=0.02)
    else:
        assert "queue" not in causes
