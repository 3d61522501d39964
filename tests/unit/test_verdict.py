"""The verdict on queues whose behaviour is known."""
from __future__ import annotations

import numpy as np
import pytest
from synthetic import edit, put, queue, serve

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


# -- what says nothing about load ------------------------------------------------------------
def _shared(owner, borrower):
    pools = [{"name": name, "gpu": "h100_sxm"} for name in (owner, borrower)]
    pools[1]["shares"] = {"pool": owner, "when": {"between": ["1h", "6h"]}}
    return {"pools": pools}


LENT, LENDS = _shared("day", "serve"), _shared("serve", "night")


def _hold(result, rows, since):
    """These requests came before, at `since`, and were held until the times at which they came."""
    requests = result.tables["requests"]
    for row, start in zip(rows, since, strict=True):
        put(result.tables["held"], (int(requests["request"][row]), start, float(requests["arrival"][row])))
        edit(requests, "arrival", row, start)
    return result


@pytest.mark.parametrize(("cluster", "word"), [(LENT, "stable"), (LENDS, "backlogged"), (None, "backlogged")], ids=["lent", "lends", "own"])
def test_who_waits_for_lent_gpus_is_no_backlog_and_is_told(cluster, word):
    """A hundred of four hundred come within the hour before GPUs are lent, and are sent on one by one."""
    result = serve(np.arange(400) * 2.0 + 3600, np.full(400, 30), **({"cluster": cluster} if cluster else {}))
    judged = verdict(_hold(result, range(100), np.linspace(0, 3500, 100)))
    assert judged.word == word
    told = "no request queued for longer than 1 s. Apart from that, 100 requests waited for GPUs to be lent, 32.5 min on average."
    assert (told in judged.reason) == (word == "stable")


def test_lent_gpus_that_do_not_suffice_are_overloaded():
    judged = verdict(_hold(queue(1.3, seed=3, cluster=LENT), range(300), np.zeros(300)))
    assert judged.word == "overloaded"
    assert "Apart from that, " in judged.reason


def test_requests_that_wait_for_the_last_gpus_to_be_lent_took_no_time_to_drain():
    """All that the run ends with came before GPUs were lent, and none of them queued once they were."""
    result = serve(np.arange(200) * 2.0 + 3600, np.full(200, 30), cluster=LENT)
    assert verdict(_hold(result, range(200), np.linspace(0, 300, 200))).word == "stable"


def test_what_was_never_lent_is_a_backlog():
    result = serve(np.arange(400) * 2.0, np.full(400, 30), horizon=900.0, cluster=LENT)
    requests = result.tables["requests"]
    for row in range(300, 400):
        put(result.tables["held"], (int(requests["request"][row]), float(requests["arrival"][row]), np.nan))
        for column in ("admitted", "first_token", "last_token"):
            edit(requests, column, row, np.nan)
        edit(requests, "replica", row, -1)
        edit(requests, "status", row, UNFINISHED)
    assert verdict(result).word != "stable"


def test_beside_other_traffic_training_is_not_judged():
    """Half of the requests are of training, and queue; the others are served at once."""
    arrivals = np.sort(np.concatenate([np.arange(100) * 4.0, np.arange(100) * 4.0 + 1e-3]))
    result = serve(arrivals, np.full(200, 120))
    assert verdict(result).word == "backlogged"
    requests = result.tables["requests"]
    code = requests.label("workload", "grpo")
    for row in range(1, 200, 2):
        edit(requests, "workload", row, code)
    result.meta["rl"] = [{"name": "grpo"}]
    judged = verdict(result)
    assert judged.word == "stable"
    assert "no request queued for longer than 1 s." in judged.reason
    assert judged.reason.endswith(" Training waits for what it asks: its 100 requests are not judged.")
