"""Replicas that come and go: whatever an autoscaler does, no request is lost, and one event per step shows the same as one per stretch."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.core.request import STATUSES
from sim.world.autoscaler import Scaler
from tests.invariants.test_scenarios import both, equal

MODEL = "Qwen/Qwen2.5-0.5B"
# Starts and scrapes of seconds, so that a short run sees many of both.
START = {"image": "300ms", "weights": "200ms", "init": {"median": "300ms", "p99": "900ms"}, "capture": "100ms"}
FAST = {"stabilization_window": 0}
POLICIES = st.sampled_from([
    {"kind": "hpa", "target": {"concurrency": 2}, "scale_down": FAST},
    {"kind": "hpa", "target": {"queue": 0.5, "kv": 0.3}, "scale_down": FAST},
    {"kind": "hpa", "target": {"busy": 0.4, "rate": 3}, "scale_down": FAST},
    {"kind": "concurrency", "target": 3, "stable_window": "6s", "panic_window": "1s", "scale_to_zero_grace": "1s"},
    {"kind": "kv_threshold", "kv_cache_threshold": 0.3, "queue_length_threshold": 2, "queue_spare_trigger": 1},
    {"kind": "slo", "ttft": "30ms", "tpot": "3ms", "window": "1s", "patience": "1s"},
])
ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(1, 8),
    "max_num_batched_tokens": st.sampled_from([64, 500]),
    "num_gpu_blocks_override": st.integers(40, 90),
    "max_model_len": st.just(600),
    "async_scheduling": st.booleans(),
    "enable_prefix_caching": st.booleans(),
    "preemption_mode": st.sampled_from(["recompute", "recompute", "swap"]),
    "retention": st.sampled_from([{"kind": "lru"}, {"kind": "ttl", "seconds": "1s"}]),
})  # fmt: skip


def _used(scaled):
    """The grace of the last replica is for pools that may have none."""
    policy = {key: value for key, value in scaled["policy"].items() if key != "scale_to_zero_grace" or not scaled["min"]}
    return scaled | {"policy": policy}


AUTOSCALE = st.fixed_dictionaries({
    "every": st.sampled_from(["500ms", "1s", "1700ms"]), "lag": st.sampled_from([0, 0, "600ms"]), "policy": POLICIES,
    "min": st.sampled_from([0, 0, 1]), "max": st.just(4),
}).map(_used)  # fmt: skip
POOL = st.fixed_dictionaries({
    "gpu": st.just("l40s"), "engine": ENGINE, "autoscale": AUTOSCALE, "replicas": st.integers(1, 2), "warm": st.sampled_from([0, 0, 1]),
    "start": st.booleans().map(lambda cold: {**START, "cold": cold}),
})  # fmt: skip
TRAFFIC = st.sampled_from([
    {"kind": "gamma", "rate": 8, "cv": 3, "num_requests": 60},
    {"kind": "poisson", "rate": 15, "num_requests": 60},
    {"kind": "closed", "concurrency": 7, "num_requests": 50},
])
LENGTHS = {"kind": "uniform", "input": [1, 400], "output": [1, 80]}
SCALING = ("pool", "ready", "starting", "draining", "wanted", "in_flight", "queued")


def same_scaling(fast, exact):
    for name in SCALING:
        assert np.array_equal(fast.tables["scaling"][name], exact.tables["scaling"][name]), name
    times = {"scaling": ("time",), "starts": ("start", "end"), "replicas": ("start", "ready", "end"), "held": ("start", "end")}
    for name, columns in times.items():
        for column in columns:
            np.testing.assert_allclose(fast.tables[name][column], exact.tables[name][column], rtol=1e-9, atol=1e-9, err_msg=column)


def checked(scenario, monkeypatch, all_answered=True):
    """Both engines agree on everything, scrapes included; the audit holds and everybody is answered."""
    seen = []
    look = Scaler.look

    def spy(self):
        seen.append(look(self))
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Scaler, "look", spy)
        fast, exact = both(scenario)
    half = len(seen) // 2
    for a, b in zip(seen[:half], seen[half:], strict=True):
        np.testing.assert_allclose(np.hstack([*a]), np.hstack([*b]), rtol=1e-9, atol=1e-9, err_msg=f"{a} {b}")
    equal(fast, exact)
    same_scaling(fast, exact)
    bad = {name: entry["detail"] for name, entry in fast.summary["audit"].items() if not entry["ok"]}
    assert not bad
    assert not all_answered or (fast.tables["requests"]["status"] == STATUSES.index("completed")).all()
    return fast


@settings(max_examples=15, deadline=None)
@given(pool=POOL, traffic=TRAFFIC, seed=st.integers(0, 99), router=st.sampled_from(["least_loaded", "power_of_two", "session_affinity"]))
def test_one_pool(pool, traffic, seed, router):
    scenario = {
        "model": MODEL, "seed": seed, "cluster": {"pools": [pool], "router": {"kind": router}},
        "workloads": [traffic | {"lengths": LENGTHS, "shared_prefix": 40 if pool["engine"]["enable_prefix_caching"] else 0}],
        "slo": {"ttft_p99": "50ms", "e2e_p90": "1s"},
    }  # fmt: skip
    if not pool["engine"]["enable_prefix_caching"]:
        pool["engine"]["retention"] = {"kind": "lru"}
    checked(scenario, pytest.MonkeyPatch())


@settings(max_examples=8, deadline=None)
@given(entry=POOL, decode=POOL, fixed=st.booleans(), traffic=TRAFFIC, seed=st.integers(0, 99))
def test_prefill_and_decode(entry, decode, fixed, traffic, seed):
    """Pools of both roles scale by themselves; a third may be there all the time."""
    for pool, name in ((entry, "prefill"), (decode, "decode")):
        pool |= {"name": name, "role": name}
        pool["engine"] |= {"retention": {"kind": "lru"}, "preemption_mode": "recompute"}
    third = [{"name": "fixed", "gpu": "l40s", "role": "prefill", "engine": entry["engine"]}] if fixed else []
    scenario = {
        "model": MODEL, "seed": seed, "cluster": {"pools": [entry, decode, *third], "disaggregation": {"bandwidth": "200MB/s"}},
        "workloads": [traffic | {"lengths": LENGTHS}],
    }  # fmt: skip
    checked(scenario, pytest.MonkeyPatch())


@settings(max_examples=8, deadline=None)
@given(pool=POOL, split=st.booleans(), seed=st.integers(0, 99), client=st.sampled_from([
    {"timeout": "1500ms", "retries": {"max": 2, "on": ["timeout", "rejected"]}, "hedge": {"after": "300ms"}},
    {"first_token_timeout": {"median": "400ms", "p99": "2s"}},
]))  # fmt: skip
def test_callers_who_give_up(pool, split, seed, client):
    """Also while they are held, at the front door or between prefill and decode."""
    pool["engine"] |= {"retention": {"kind": "lru"}, "preemption_mode": "recompute"}
    pools = [pool | {"role": "prefill", "name": "p"}, pool | {"role": "decode", "name": "d"}] if split else [pool]
    work = {"kind": "gamma", "rate": 6, "cv": 5, "num_requests": 50, "lengths": LENGTHS, "client": client}
    checked({"model": MODEL, "seed": seed, "cluster": {"pools": pools}, "workloads": [work]}, pytest.MonkeyPatch(), all_answered=False)


@settings(max_examples=8, deadline=None)
@given(pool=POOL, seed=st.integers(0, 99), views=st.sampled_from([None, {"period": "300ms", "delay": "50ms"}]))
def test_requests_from_far_away(pool, seed, views):
    """A replica is not gone while a request is on its way to it, and reports of the past are of those that were there."""
    pool["engine"] |= {"retention": {"kind": "lru"}}
    cluster = {"pools": [pool | {"region": "eu"}], "regions": [{"between": ["us", "eu"], "latency": "150ms"}]}
    cluster |= {"views": views} if views else {}
    work = {"kind": "gamma", "rate": 6, "cv": 5, "num_requests": 50, "lengths": LENGTHS, "region": "us"}
    checked({"model": MODEL, "seed": seed, "cluster": cluster, "workloads": [work]}, pytest.MonkeyPatch())


def test_scrapes_between_two_steps_of_a_stretch():
    """These scrapes fall into long stretches: blocks and busy time are those of the steps made so far."""
    pool = {
        "gpu": "l40s", "engine": {"num_gpu_blocks_override": 400, "max_model_len": 3000}, "replicas": 2,
        "autoscale": {"max": 4, "every": "130ms", "policy": {"kind": "hpa", "target": {"kv": 0.99}}},
    }
    work = {"kind": "closed", "concurrency": 3, "num_requests": 9, "lengths": {"kind": "fixed", "input": 50, "output": 900}}
    scenario = {"model": MODEL, "cluster": {"pools": [pool]}, "workloads": [work]}
    result = checked(scenario, pytest.MonkeyPatch())
    assert len(result.tables["scaling"]) > 30
    assert result.tables["stretches"]["steps"].max() > 100


def test_without_autoscale_nothing_of_it_is_written():
    result = sim.run({"model": MODEL, "cluster": {"pools": [{"gpu": "l40s", "replicas": 2}]},
                      "workloads": [{"kind": "poisson", "rate": 5, "num_requests": 10, "lengths": LENGTHS}]})
    assert result.summary["scaling"] is None
    assert all(not len(result.tables[name]) for name in ("scaling", "starts", "held", "places"))
    assert math.isclose(result.summary["gpu"]["mean"], 2.0)
    assert result.summary["gpu"]["count"] == 2
