"""Sessions on engines with lower tiers and with every retention: the fast engine equals the oracle, and audits hold."""
from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from tests.invariants.test_scenarios import both, equal

# A block of 16 tokens of Llama-3.1-8B takes 2 MiB.
MODEL, BLOCK = "meta-llama/Llama-3.1-8B", 2 * 2**20

HOST = st.fixed_dictionaries({
    "kind": st.just("host"), "capacity": st.integers(1, 150).map(lambda n: n * BLOCK),
    "bandwidth": st.sampled_from([None, 1e9, 20e9]), "latency": st.sampled_from([0, 0, 0.001]),
})  # fmt: skip
SSD = st.fixed_dictionaries({
    "kind": st.just("ssd"), "capacity": st.integers(1, 400).map(lambda n: n * BLOCK), "bandwidth": st.sampled_from([1e9, 6e9]),
})  # fmt: skip
TIERS = st.one_of(st.just([]), HOST.map(lambda host: [host]), SSD.map(lambda ssd: [ssd]), st.tuples(HOST, SSD).map(list))
RETENTION = st.sampled_from([
    {"kind": "lru"}, {"kind": "keep"}, {"kind": "ttl", "seconds": 0.05}, {"kind": "ttl", "seconds": 2},
    {"kind": "ttl", "min_samples": 3}, {"kind": "predictive"}, {"kind": "offload"}, {"kind": "offload", "after": 0.3},
])  # fmt: skip
ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(1, 12), "max_num_batched_tokens": st.integers(24, 500), "num_gpu_blocks_override": st.integers(70, 150),
    "max_model_len": st.just(1000), "async_scheduling": st.booleans(),
    "preemption_mode": st.sampled_from(["recompute", "recompute", "swap"]),
})  # fmt: skip
SESSIONS = st.fixed_dictionaries({
    "kind": st.just("sessions"), "turns": st.sampled_from([2, 5]), "turns_law": st.sampled_from(["fixed", "geometric"]),
    "think_time": st.sampled_from([0.03, 0.5]), "think_sigma": st.sampled_from([0, 1.0]), "num_sessions": st.integers(1, 14),
    "shared_prefix": st.sampled_from([0, 40]), "max_context": st.just(900), "samples": st.sampled_from([1, 1, 2]),
    "lengths": st.just({"kind": "uniform", "input": [1, 200], "output": [1, 90]}),
})  # fmt: skip


def rows_of(result: sim.Result) -> np.ndarray:
    """Transfers, a column each, in an order that does not depend on which of one instant came first."""
    table = result.tables["transfers"]
    rows = np.array([table[name].astype(float) for name in ("request", "kind", "tier", "tokens", "end")])
    return rows[:, np.lexsort(rows[::-1])]


@settings(max_examples=60, deadline=None)
@given(
    engine=ENGINE, tiers=TIERS, retention=RETENTION, sessions=SESSIONS, replicas=st.integers(1, 2), seed=st.integers(0, 99),
    load=st.one_of(st.floats(0.5, 30), st.integers(1, 6)), offload=st.sampled_from(["write_through", "on_evict"]),
    reload=st.sampled_from(["faster", "always"]), duration=st.sampled_from([None, None, 1.5]),
)  # fmt: skip
def test_random_sessions(engine, tiers, retention, sessions, replicas, seed, load, offload, reload, duration):
    if retention["kind"] == "offload" and [tier["kind"] for tier in tiers][:1] != ["host"]:
        retention = {"kind": "keep"}
    engine = engine | {"kv_tiers": [{key: v for key, v in tier.items() if v is not None} for tier in tiers], "retention": retention}
    if tiers:
        engine |= {"kv_offload": offload, "kv_reload": reload}
    sessions = sessions | ({"concurrency": load} if isinstance(load, int) else {"rate": load})
    cluster = {"pools": [{"gpu": "h100_sxm", "replicas": replicas, "engine": engine}], "router": {"kind": "round_robin"}}
    scenario = {"model": MODEL, "seed": seed, "cluster": cluster, "workloads": [sessions]} | ({"duration": duration} if duration else {})
    try:
        fast, exact = both(scenario)
    except sim.BadInput:
        return
    equal(fast, exact)
    for column in ("kept_peak_blocks", "kept_block_seconds"):
        np.testing.assert_allclose(fast.tables["replicas"][column], exact.tables["replicas"][column], rtol=1e-6)
    a, b = rows_of(fast), rows_of(exact)
    assert np.array_equal(a[:4], b[:4])
    np.testing.assert_allclose(a[4], b[4], rtol=1e-9, atol=2e-9)
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed
