"""All traffic on one network: hand-ons, lower tiers, swapped caches, starts and weight syncs beside each other. One event per step shows it
the same as one per stretch, the audit holds (I7 too), and nobody is lost.
"""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.core.request import STATUSES
from tests.invariants.test_scenarios import both, equal

MODEL = "Qwen/Qwen2.5-0.5B"
START = {
    "image": {"size": "100MB", "store": "images"}, "weights": {"store": "weights"}, "init": {"median": "200ms", "p99": "600ms"},
    "capture": "50ms",
}  # fmt: skip
ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(2, 8),
    "max_num_batched_tokens": st.sampled_from([64, 500]),
    "num_gpu_blocks_override": st.integers(40, 90),
    "max_model_len": st.just(600),
    "async_scheduling": st.booleans(),
    "preemption_mode": st.sampled_from(["recompute", "swap"]),
    "kv_tiers": st.sampled_from([
        [], [{"kind": "host", "capacity": "20MB"}], [{"kind": "remote", "capacity": "30MB", "store": "cache"}],
        [{"kind": "host", "capacity": "5MB"},
         {"kind": "remote", "capacity": "50MB", "store": "cache", "bandwidth": "2GB/s", "latency": "1ms"}],
    ]),
    "kv_reload": st.just("always"),
})  # fmt: skip
LAYOUT = st.sampled_from([{"tp": 1}, {"tp": 2}, {"tp": 2}, {"tp": 1, "pp": 2}, {"tp": 1, "dp": 2}])
POOL = st.fixed_dictionaries({"gpu": st.just("l40s"), "engine": ENGINE, "parallel": LAYOUT, "replicas": st.integers(1, 3)})
SCALED = st.fixed_dictionaries({
    "every": st.just("400ms"), "min": st.just(1), "max": st.just(4),
    "policy": st.just({"kind": "hpa", "target": {"concurrency": 2}, "scale_down": {"stabilization_window": 0}}),
})  # fmt: skip
NETWORK = st.fixed_dictionaries({
    "fabric": st.sampled_from([{"kind": "flat"}, {"kind": "leaf_spine", "hosts_per_leaf": 1, "oversubscription": 6},
                               {"kind": "rails", "hosts_per_leaf": 2, "nic_latency": "1ms"}]),
    "hosts": st.just([{"gpu": "l40s", "count": 4}]),
    "stores": st.just([{"name": "weights", "bandwidth": "4GB/s"}, {"name": "cache", "bandwidth": "1GB/s", "latency": "200us"},
                       {"name": "images", "kind": "registry", "bandwidth": "2GB/s"}]),
    "placement": st.sampled_from([{"kind": "topology"}, {"kind": "spread"}, {"kind": "bin_pack"}]),
})  # fmt: skip
SENT = st.fixed_dictionaries({
    "kind": st.just("transfers"), "start": st.sampled_from([0, "50ms"]), "every": st.sampled_from(["130ms", "500ms"]),
    "times": st.integers(1, 12),
    "bytes": st.sampled_from(["30MB", "400MB", "weights"]), "algorithm": st.sampled_from(["direct", "tree", "binomial", "pipeline"]),
    "priority": st.integers(0, 1), "weight": st.sampled_from([1, 3]),
    "ends": st.sampled_from([("first", "last"), ("weights", "last"), ("first", "weights")]),
})  # fmt: skip
WAY = st.sampled_from([{}, {"layerwise": False, "priority": 1}, {"bandwidth": "1GB/s", "latency": "100us", "weight": 2}])
TRAFFIC = st.sampled_from([
    {"kind": "gamma", "rate": 12, "cv": 3, "num_requests": 50},
    {"kind": "poisson", "rate": 25, "num_requests": 50},
    {"kind": "closed", "concurrency": 7, "num_requests": 40},
])
LENGTHS = {"kind": "uniform", "input": [1, 400], "output": [1, 80]}


def scenario(pools, network, sent, traffic, seed):
    names = {"first": pools[0]["name"], "last": pools[-1]["name"], "weights": "weights"}
    transfers = []
    for one in sent:
        source, target = (names[end] for end in one["ends"])
        chunk = {} if one["algorithm"] == "direct" else {"chunk": "40MB"}
        transfers.append({key: value for key, value in one.items() if key != "ends"} | {"source": source, "target": target, **chunk})
    return {
        "model": MODEL, "seed": seed, "cluster": {"pools": pools, "network": network},
        "workloads": [traffic | {"lengths": LENGTHS, "shared_prefix": 40}, *transfers],
    }  # fmt: skip


def checked(wanted, everybody=True):
    fast, exact = both(wanted)
    equal(fast, exact)
    for name, columns in (("flows", ("start", "end", "moved")), ("deliveries", ("start", "end")), ("transfers", ("start", "end", "bytes")),
                          ("replicas", ("start", "ready", "end"))):  # fmt: skip
        for column in columns:
            a, b = (result.tables[name][column] for result in (fast, exact))
            assert len(a) == len(b), name
            np.testing.assert_allclose(np.sort(a), np.sort(b), rtol=1e-9, atol=2e-9, err_msg=f"{name}.{column}")
    for result in (fast, exact):
        bad = {name: entry["detail"] for name, entry in result.summary["audit"].items() if not entry["ok"]}
        assert not bad
    assert not everybody or (fast.tables["requests"]["status"] == STATUSES.index("completed")).all()
    lost = [result.summary["network"]["collective_slowdown"] for result in (fast, exact)]
    assert lost[0]["seconds"] == pytest.approx(lost[1]["seconds"], rel=1e-9, abs=1e-9)
    return fast


@settings(max_examples=25, deadline=None)
@given(
    pool=POOL, scaled=st.one_of(st.none(), SCALED), network=NETWORK, sent=st.lists(SENT, max_size=2), traffic=TRAFFIC,
    seed=st.integers(0, 99),
)  # fmt: skip
def test_one_pool(pool, scaled, network, sent, traffic, seed):
    if scaled:
        pool |= {"autoscale": scaled, "start": START}
    if not pool["engine"]["kv_tiers"]:
        del pool["engine"]["kv_reload"]
    checked(scenario([pool | {"name": "serve"}], network, sent, traffic, seed))


@settings(max_examples=25, deadline=None)
@given(
    entry=POOL, decode=POOL, way=WAY, network=NETWORK, sent=st.lists(SENT, max_size=2), traffic=TRAFFIC, seed=st.integers(0, 99),
)  # fmt: skip
def test_prefill_and_decode(entry, decode, way, network, sent, traffic, seed):
    for pool, name in ((entry, "prefill"), (decode, "decode")):
        pool |= {"name": name, "role": name}
        if not pool["engine"]["kv_tiers"]:
            del pool["engine"]["kv_reload"]
    wanted = scenario([entry, decode], network, sent, traffic, seed)
    if way:
        wanted["cluster"]["disaggregation"] = way
    result = checked(wanted)
    handed = result.tables["transfers"]
    size = handed["bytes"][handed["kind"] == handed.labels["kind"].index("handoff")].sum()
    flows = result.tables["flows"]
    assert size > 0
    if not any(pool["engine"]["kv_tiers"] or pool["engine"]["preemption_mode"] == "swap" for pool in (entry, decode)):
        kinds = [flows.labels["kind"].index(name) for name in ("kv", "kv_early") if name in flows.labels["kind"]]
        assert flows["moved"][np.isin(flows["kind"], kinds)].sum() <= size * (1 + 1e-9)


def test_these_loads_slow_collectives_down():
    """The properties above would be worth little if no stretch were ever slowed: weights come in over the PCIe ports that carry them."""
    pool = {"name": "serve", "gpu": "l40s", "replicas": 2, "parallel": {"tp": 2}, "engine": {"max_num_seqs": 16}}
    sent = [{"kind": "transfers", "every": "150ms", "times": 20, "bytes": "1GB", "algorithm": "direct", "ends": ("weights", "last")}]
    network = {"fabric": {"kind": "flat"}, "hosts": [{"gpu": "l40s", "count": 2}], "stores": [{"name": "weights", "bandwidth": "100GB/s"}]}
    traffic = {"kind": "poisson", "rate": 20, "num_requests": 50}
    loaded = checked(scenario([pool], network, sent, traffic, 1))
    slow = loaded.summary["network"]["collective_slowdown"]
    assert slow["replicas"] == 2
    assert slow["seconds"] > 0.01
    quiet = sim.run(scenario([pool], network, [], traffic, 1))
    assert quiet.summary["network"]["collective_slowdown"]["seconds"] == 0
    assert loaded.summary["tpot_s"]["mean"] > quiet.summary["tpot_s"]["mean"]


def test_without_collectives_nothing_is_slowed():
    pool = {"name": "serve", "gpu": "l40s", "replicas": 2, "engine": {"max_num_seqs": 16}}
    sent = [{"kind": "transfers", "every": "150ms", "times": 20, "bytes": "1GB", "algorithm": "direct", "ends": ("weights", "last")}]
    network = {"fabric": {"kind": "flat"}, "hosts": [{"gpu": "l40s", "count": 2}], "stores": [{"name": "weights", "bandwidth": "100GB/s"}]}
    traffic = {"kind": "poisson", "rate": 20, "num_requests": 50}
    wanted = scenario([pool], network, sent, traffic, 1)
    loaded, quiet = sim.run(wanted), sim.run(wanted | {"workloads": wanted["workloads"][:1]})
    assert not len(loaded.tables["slowdowns"])
    for name in ("first_token", "last_token"):
        assert np.array_equal(loaded.tables["requests"][name], quiet.tables["requests"][name])


def test_an_engine_that_waits_for_a_tier_at_the_end_of_a_run_is_not_idle():
    """A copy of higher priority has the store to itself until the run is cut off, and what is brought back from there never comes."""
    network = {"fabric": {"kind": "flat"}, "hosts": [{"gpu": "l40s"}], "stores": [{"name": "cache", "bandwidth": "20GB/s"}]}
    tiers = {"kv_tiers": [{"kind": "remote", "capacity": "50MB", "store": "cache"}], "kv_reload": "always"}
    engine = {"max_num_seqs": 1, "num_gpu_blocks_override": 22, "max_model_len": 300, **tiers}
    entry = {"name": "entry", "role": "prefill", "gpu": "l40s", "engine": engine}
    decode = {"name": "decode", "role": "decode", "gpu": "l40s", "engine": {}}
    lengths = {"kind": "fixed", "input": 282, "output": 2}
    work = {"kind": "closed", "concurrency": 3, "num_requests": 40, "lengths": lengths, "prefixes": {"tokens": 32, "count": 2, "zipf": 1.0}}
    sent = {"kind": "transfers", "source": "cache", "target": "entry", "bytes": "50GB", "priority": 1, "start": "60ms"}
    wanted = {"model": MODEL, "duration": 0.4, "cluster": {"pools": [entry, decode], "network": network}, "workloads": [work, sent]}
    result = checked(wanted, everybody=False)
    waiting = result.requests.query("status == 'unfinished' and admitted == admitted and first_token != first_token")
    assert len(waiting) > 0


def test_looking_at_a_result_changes_nothing():
    """A pool whose autoscaler had no time to look at it is in no row of `scaling`."""
    policy = {"kind": "hpa", "target": {"concurrency": 2}}
    pools = [{"name": name, "gpu": "l40s", "autoscale": {"max": 2, "every": every, "policy": policy}}
             for name, every in (("one", "100ms"), ("two", "1h"))]  # fmt: skip
    work = {"kind": "poisson", "rate": 20, "num_requests": 20, "lengths": LENGTHS}
    result = sim.run({"model": MODEL, "cluster": {"pools": pools}, "workloads": [work]})
    assert result.tables["scaling"].labels["pool"] == ["one"]
    assert result.summary["audit"]["I1"]["ok"]
    assert result.tables["scaling"].labels["pool"] == ["one"]
