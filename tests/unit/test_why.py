"""What held requests back: each reason is given where a run was made to have it, with the figures of its tables, and not elsewhere."""
from __future__ import annotations

import numpy as np
import pytest
from synthetic import edit, put, queue, serve

import sim
from sim.core.request import FAILED
from sim.study.meanwhile import Union
from sim.study.metrics import Facts
from sim.study.why.why import SHARE, why

MODEL = "Qwen/Qwen2.5-0.5B"
FIXED = {"kind": "fixed", "input": 500, "output": 20}
START = {"image": "1s", "weights": "4s", "init": "1s", "capture": "1s"}
STAGE = {"wait": 0, "provision": 1, "image": 2, "weights": 3, "init": 4, "capture": 5}


def reasons(result):
    """By cause; every share is one that is worth saying, and none is more than all."""
    found = {reason["cause"]: reason for reason in result.summary["why"]}
    assert len(found) == len(result.summary["why"])
    assert all(SHARE <= reason["share"] <= 1 for name, reason in found.items() if name not in ("gpus", "attempts"))
    return found


def simulate(pool, traffic, **more):
    cluster = {"pools": [pool]} if isinstance(pool, dict) else {"pools": pool}
    cluster |= more.pop("cluster", {})
    return sim.run({"name": "small", "model": MODEL, "cluster": cluster, "workloads": traffic, **more})


def scaled(most, policy=None, **options):
    """A pool of one replica that may become several, each of which serves four requests at once."""
    autoscale = {"min": 1, "max": most, "every": "1s", "policy": policy or {"kind": "hpa", "target": {"concurrency": 2}}}
    return {"gpu": "h100_sxm", "engine": {"max_num_seqs": 4}, "autoscale": autoscale, "start": START} | options


def crowd(rate=150):
    calm = {"kind": "poisson", "name": "calm", "rate": 2, "duration": "60s", "lengths": FIXED}
    return [calm, {"kind": "poisson", "name": "crowd", "rate": rate, "start": "20s", "duration": "12s", "lengths": FIXED}]


# -- synthetic ----------------------------------------------------------------
def test_an_empty_run_has_no_reason():
    assert serve(np.empty(0), np.empty(0, dtype=int)).summary["why"] == []


def test_a_run_that_nothing_held_back_says_what_its_gpus_did():
    (reason,) = queue(0.02, 200).summary["why"]
    assert reason["cause"] == "gpus"
    assert "Nothing but the GPUs themselves" in reason["text"]


def test_queueing_is_of_all_requests_time():
    """At 0.8 a queue of one server: the wait is most of the time, and the synthetic engine takes one request at a time."""
    result = queue(0.8, 400)
    requests = result.requests
    assert "queue" not in reasons(result), "its stretches say that nobody waits"
    for row in range(len(result.tables["stretches"])):
        edit(result.tables["stretches"], "waiting", row, 3)
    spent = float((result.tables["stretches"]["seconds"] * 3).sum())
    found = why(Facts(result))[0]
    assert found["cause"] == "queue"
    assert found["share"] == pytest.approx(min(spent / requests["e2e"].sum(), 1), abs=1e-4)
    assert "prompts before them were being computed" in found["text"]


def _started(result, begin, end, stage="weights"):
    table = result.tables["starts"]
    put(table, (0, STAGE[stage], begin, end))
    return result


def slow_in_the_middle():
    """Requests a second apart; those of seconds 100 to 120 pile up behind one long answer."""
    arrivals, outputs = np.arange(200.0), np.full(200, 5)
    outputs[100] = 1500
    return serve(arrivals, outputs)


def test_a_start_beside_slow_requests_is_a_reason():
    result = _started(slow_in_the_middle(), 100.5, 121.0)
    ttft, arrival = result.requests["ttft"], result.requests["arrival"]
    during = (arrival >= 100.5) & (arrival < 121.0)
    found = reasons(result)["cold_start"]
    late = ttft[during].sum() - during.sum() * ttft[~during].mean()
    assert found["share"] == pytest.approx(late / ttft.sum(), abs=1e-4)
    assert f"{during.mean():.0%} of the requests" in found["text"]


def test_a_start_beside_requests_that_are_no_slower_is_none():
    assert "cold_start" not in reasons(_started(slow_in_the_middle(), 20.0, 50.0))


def test_those_who_gave_up_during_a_start_are_counted():
    result = _started(slow_in_the_middle(), 100.5, 130.0)
    requests = result.tables["requests"]
    for row in (30, 102, 103):
        edit(requests, "status", row, FAILED)
        for column in ("first_token", "last_token"):
            edit(requests, column, row, np.nan)
    text = why(Facts(result))[0]["text"]
    assert "2 of the 3 requests that were called off before a first token came then too" in text


def test_spans_neither_overlap_nor_touch():
    rng = np.random.Generator(np.random.PCG64(5))
    start = rng.uniform(0, 50, 40)
    end = start + rng.exponential(1.0, 40)
    first, last = Union(start, end).spans
    assert (last > first).all()
    assert (first[1:] > last[:-1]).all()
    points = np.linspace(-1, 60, 2000)
    inside = ((points[:, None] >= start) & (points[:, None] <= end)).any(axis=1)
    assert (inside == ((points[:, None] >= first) & (points[:, None] <= last)).any(axis=1)).all()
    assert Union(np.empty(0), np.empty(0)).spans[0].size == 0


# -- small runs ---------------------------------------------------------------
def test_a_crowd_that_waits_for_starts():
    found = reasons(simulate(scaled(6), crowd()))
    assert "of it 4 s for the weights" in found["cold_start"]["text"]
    assert "A start took 7 s on average" in found["cold_start"]["text"]


def test_an_autoscaler_at_its_bound():
    result = simulate(scaled(2), crowd())
    looks = result.tables["scaling"].to_pandas()
    found = reasons(result)["autoscaler_max"]
    assert "had all of its 2 replicas ready" in found["text"]
    assert found["share"] == pytest.approx(((looks["ready"] == 2) & (looks["wanted"] == 2)).mean(), abs=0.05)


def test_an_autoscaler_that_is_at_its_bound_without_a_queue_is_no_reason():
    policy = {"kind": "scheduled", "table": [{"at": "00:00", "replicas": 2}]}
    result = simulate(scaled(2, policy, replicas=2), crowd(rate=3))
    assert result.tables["scaling"]["wanted"].min() == 2
    assert "autoscaler_max" not in reasons(result)


STORES = [{"name": "models", "bandwidth": "500MB/s"}]
NETWORK = {"network": {"fabric": "hgx_leaf_spine", "hosts": [{"gpu": "h100_sxm", "count": 1}], "stores": STORES}}


def test_replicas_without_a_place():
    pool = scaled(12, parallel={"tp": 2}, start=START | {"weights": "1s"})
    found = reasons(simulate(pool, crowd(rate=200), cluster=NETWORK))
    assert "replicas waited for GPUs" in found["placement"]["text"]
    assert "none free" in found["placement"]["text"]


def test_a_warm_pool_that_cannot_be_filled_holds_nobody_back():
    result = simulate(scaled(4, warm=6, replicas=2, engine={}), crowd(rate=100), cluster=NETWORK)
    starts = result.tables["starts"].to_pandas()
    waits = starts[starts["stage"] == "wait"]
    assert (waits["end"].fillna(result.meta["sim_s"]) - waits["start"]).sum() > SHARE * result.meta["sim_s"]
    assert "placement" not in reasons(result)


def test_a_store_that_starts_wait_for():
    pool = scaled(6, start=START | {"weights": {"store": "models"}})
    found = reasons(simulate(pool, crowd(), cluster=NETWORK))
    assert found["cold_start"]
    assert "store.models.out (store) carried all it can" in found["link"]["text"]
    assert "for weights" in found["link"]["text"]


def narrow(ratio, **more):
    """Two hosts below a leaf each, and little between them."""
    fabric = {"preset": "hgx_leaf_spine", "hosts_per_leaf": 1, "oversubscription": ratio}
    return {"fabric": fabric, "hosts": [{"gpu": "h100_sxm", "count": 2}]} | more


def handed(rate):
    pools = [{"name": role, "role": role, "gpu": "h100_sxm", "parallel": {"tp": 8}} for role in ("prefill", "decode")]
    lengths = {"kind": "fixed", "input": 3000, "output": 20}
    traffic = [{"kind": "poisson", "rate": rate, "num_requests": 200, "lengths": lengths}]
    cluster = {"pools": pools, "network": narrow(200)}
    return sim.run({"name": "handed", "model": "Qwen/Qwen3-32B", "workloads": traffic, "cluster": cluster})


def test_keys_and_values_on_a_narrow_spine():
    result = handed(2.0)
    found = reasons(result)
    assert "of that time for kv" in found["link"]["text"]
    took = result.tables["transfers"]
    assert found["handoff"]["share"] == pytest.approx((took["end"] - took["start"]).sum() / result.requests["e2e"].sum(), abs=1e-4)


def test_deliveries_alone_hold_nobody_back():
    """A link full of weights for replicas that hand nothing over it."""
    trainer = {"name": "trainer", "gpu": "h100_sxm", "parallel": {"tp": 2}, "model": "Qwen/Qwen2.5-0.5B-Instruct"}
    pools = [{"name": "serve", "gpu": "h100_sxm"}, trainer]
    traffic = [
        {"kind": "poisson", "model": MODEL, "rate": 5, "num_requests": 50, "lengths": FIXED},
        {"kind": "transfers", "name": "sync", "source": "trainer", "target": "serve", "every": "2s", "times": 4, "algorithm": "direct"},
    ]
    result = sim.run({"name": "sync", "model": MODEL, "workloads": traffic,
                      "cluster": {"pools": pools, "network": narrow(500, placement={"kind": "spread"})}})  # fmt: skip
    assert max(link["full_s"] for link in result.summary["network"]["busiest"]) > SHARE * result.meta["sim_s"]
    assert "link" not in reasons(result)


def test_a_way_between_regions():
    pool = {"name": "far", "region": "eu", "gpu": "h100_sxm"}
    traffic = [{"kind": "poisson", "region": "us", "rate": 5, "num_requests": 100, "lengths": FIXED}]
    found = reasons(simulate([pool], traffic, cluster={"regions": [{"between": ["us", "eu"], "latency": "40ms"}]}))
    assert found["regions"]["share"] > 0.5


def test_callers_who_ask_again():
    client = {"timeout": "1s", "retries": {"max": 3, "backoff": {"first": "100ms"}}}
    lengths = {"kind": "fixed", "input": 500, "output": 200}
    traffic = [{"kind": "poisson", "rate": 60, "duration": "15s", "lengths": lengths, "client": client}]
    result = simulate({"gpu": "h100_sxm", "engine": {"max_num_seqs": 8}}, traffic)
    found, counts = reasons(result)["attempts"], result.summary["calls"]
    assert found["share"] == pytest.approx(counts["attempts_per_call"] - 1, abs=1e-4)
    assert "retries" in found["text"]
