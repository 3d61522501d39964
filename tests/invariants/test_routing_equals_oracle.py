"""Routers that look at more, old views and regions: they see the same of the fast engine as of the plain one, so that all is equal."""
from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import ROUTERS
from tests.invariants.test_scenarios import both, equal

SMALL = "Qwen/Qwen2.5-0.5B"
ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(2, 12),
    "max_num_batched_tokens": st.integers(64, 400),
    "num_gpu_blocks_override": st.integers(40, 120),
    "block_size": st.sampled_from([8, 16]),
    "max_model_len": st.just(600),
    "async_scheduling": st.booleans(),
})  # fmt: skip
SPECIAL = st.sampled_from([
    {}, {}, {}, {"enable_prefix_caching": False}, {"kv_tiers": [{"kind": "host", "capacity": "1GB"}], "kv_offload": "on_evict"},
    {"retention": {"kind": "ttl", "seconds": 2}}, {"preemption_mode": "swap"},
    {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "acceptance": 0.6, "sampling": "sampled"}},
])  # fmt: skip
HEEDS = [{"kind": kind, "index": "events"} for kind in ("prefix_aware", "cache_aware", "kv_aware", "lmetric")]
ROUTER = st.sampled_from([
    *HEEDS, *HEEDS, *({"kind": kind} for kind in ROUTERS.names() if kind != "spill_over"), {"kind": "weighted", "by": "turns"},
    {"kind": "spill_over", "threshold": 2}, {"kind": "spill_over", "threshold": 3, "by": "in_flight", "then": HEEDS[0]},
    {"kind": "cache_aware", "index": "events", "threshold": 0.1, "balance_abs": 2}, {"kind": "lmetric", "capacity": 500},
])  # fmt: skip
VIEWS = st.sampled_from([
    None, None, {"period": "50ms"}, {"period": "50ms", "delay": "330ms", "own_count": False}, {"period": "700ms", "delay": "10ms"},
    {"period": "0.3s", "delay": "0.3s", "own_count": False},
])  # fmt: skip
SHED = {"kind": "shed", "limits": [{"priority": 0, "queue": 2, "kv": 0.8}, {"priority": 1, "queue": 6}]}
ADMISSION = st.sampled_from([{"kind": "always"}, {"kind": "max_queue", "limit": 3}, SHED])
TRAFFIC = st.sampled_from([
    {"kind": "poisson", "rate": 60, "num_requests": 40, "prefixes": {"tokens": 90, "count": 6, "zipf": 1}, "samples": 1},
    {"kind": "poisson", "rate": 30, "num_requests": 20, "samples": 2},
    {"kind": "sessions", "rate": 8, "num_sessions": 12, "turns": 4, "think_time": 0.2},
    {"kind": "closed", "concurrency": 8, "num_requests": 40, "shared_prefix": 50},
])  # fmt: skip
HASTE = {"first_token_timeout": 0.11, "retries": {"max": 1}, "hedge": {"after": 0.053}}
CLIENT = st.sampled_from([None, None, {"timeout": 0.31}, HASTE])
LENGTHS = {"kind": "uniform", "input": [100, 300], "output": [5, 80]}


@settings(max_examples=40, deadline=None)
@given(
    engine=ENGINE, special=SPECIAL, router=ROUTER, views=VIEWS, admission=ADMISSION, traffic=TRAFFIC, client=CLIENT,
    seed=st.integers(0, 99), layout=st.sampled_from(["one", "two", "apart", "regions", "regions"]),
)  # fmt: skip
def test_random_routing(engine, special, router, views, admission, traffic, client, seed, layout):
    engine = engine | special
    first = {"name": "a", "gpu": "l4", "replicas": 2, "engine": engine}
    second = {"name": "b", "gpu": "l40s", "replicas": 2, "engine": engine | {"block_size": 16}}
    workload = {"name": "one", "lengths": LENGTHS, **traffic}
    other = {"kind": "poisson", "rate": 20, "num_requests": 15, "lengths": LENGTHS, "name": "two", "priority": 1}
    workload, other = (load | {"client": client} if client else load for load in (workload, other))
    if layout == "apart":
        first, second = first | {"role": "prefill"}, second | {"role": "decode", "engine": engine}
    if layout == "regions":
        first, workload = first | {"region": "x"}, workload | {"region": "x"}
        second, other = second | {"region": "y"}, other | {"region": "y"}
    else:
        router = router["then"] if "then" in router else {"kind": "least_loaded"} if router["kind"] == "spill_over" else router
    cluster = {"pools": [first] if layout == "one" else [first, second], "router": router, "admission": admission}
    looked_at = admission["kind"] != "always" or router["kind"] not in ("random", "round_robin")
    cluster |= {"views": views} if views and looked_at else {}
    cluster |= {"regions": [{"between": ["x", "y"], "latency": "37ms"}]} if layout == "regions" else {}
    fast, exact = both({"seed": seed, "model": SMALL, "cluster": cluster, "workloads": [workload, other]})
    equal(fast, exact)
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed
