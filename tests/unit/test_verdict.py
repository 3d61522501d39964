"""The verdict on queues whose behaviour is known."""
from __future__ import annotations

import numpy as np
import pytest
from synthetic import edit, queue, serve

from sim.core.request import REJECTED, UNFINISHED
from sim.study.verdict import verdict


@pytest.mark.parametrize("seed", range(5))
def test_half_load_is_not_overloaded(seed):
    assert verdict(queue(0.15, seed=seed)).word == "stable"
    assert verdict(queue(0.5, seed=seed)).word != "overloaded"


@pytest.mark.parametrize("seed", range(10))
def test_ninety_percent_queues_and_is_not_overloaded(seed):
    judged = verdict(queue(0.9, seed=seed))
    assert judged.word == "backlogged"
    assert "queued for longer" in judged.reason


@pytest.mark.parametrize("seed", range(10))
def test_above_capacity_is_overloaded(seed):
    judged = verdict(queue(1.2, seed=seed))
    assert judged.word == "overloaded"
    assert "still waited" in judged.reason


def test_overload_cut_off_by_the_end_of_the_run():
    whole = queue(1.3, seed=3)
    horizon = float(whole.tables["requests"]["arrival"].max())
    judged = verdict(queue(1.3, seed=3, horizon=horizon))
    assert judged.word == "overloaded"


def test_a_light_load_cut_off_is_not_overloaded():
    whole = queue(0.15, seed=3)
    assert verdict(queue(0.15, seed=3, horizon=float(whole.tables["requests"]["arrival"].max()) + 1e-3)).word == "stable"


def test_a_burst_that_drains_is_backlogged():
    arrivals = np.concatenate([np.linspace(0, 100, 50), np.full(100, 100.5), np.linspace(200, 400, 100)])
    judged = verdict(serve(arrivals, np.full(250, 30)))
    assert judged.word == "backlogged"
    assert "drained" in judged.reason


def test_a_batch_that_arrives_at_once_is_backlogged():
    judged = verdict(serve(np.zeros(100), np.full(100, 30)))
    assert judged.word == "backlogged"
    assert "at once" in judged.reason


def test_a_closed_loop_is_never_overloaded():
    assert verdict(queue(1.2, closed_loop=True)).word == "backlogged"
    assert verdict(queue(0.2, closed_loop=True)).word == "stable"


def _reject(result, reason):
    requests = result.tables["requests"]
    code = requests.label("reason", reason)
    for row in range(len(requests)):
        edit(requests, "status", row, REJECTED)
        edit(requests, "reason", row, code)
        for column in ("admitted", "first_token", "last_token"):
            edit(requests, column, row, np.nan)
    return result


def test_everything_rejected_is_overloaded():
    judged = verdict(_reject(queue(0.3, 100), "queue_limit"))
    assert judged.word == "overloaded"
    assert "100% of the requests were turned away, most of them by queue_limit" in judged.reason


def test_requests_too_long_for_any_replica_are_no_overload():
    assert verdict(_reject(queue(0.3, 100), "max_model_len")).word == "stable"


def test_a_generous_ttft_limit_allows_the_wait():
    assert verdict(queue(0.9, seed=1, slo={"ttft_p99": "10min"})).word == "stable"


def test_nothing_arrived():
    assert verdict(serve(np.empty(0), np.empty(0, dtype=int))) == ("stable", "Nothing arrived.")


def test_one_request():
    assert verdict(serve(np.zeros(1), np.array([5]))).word == "stable"


def test_a_run_too_short_to_fill_the_engines_says_so():
    """Requests are admitted at once and none ends: nothing queues, and yet nothing is known about capacity."""
    result = queue(0.15, 400, horizon=1e6)
    requests = result.tables["requests"]
    for row in range(len(requests)):
        edit(requests, "admitted", row, requests["arrival"][row])
        edit(requests, "last_token", row, np.nan)
        edit(requests, "status", row, UNFINISHED)
    result.meta["sim_s"] = float(requests["arrival"].max())
    judged = verdict(result)
    assert judged.word == "stable"
    assert "run longer" in judged.reason
