"""Programs at a gate, in orders that know them, with caches kept between their calls: the fast engine equals the plain one, audits hold."""
from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from tests.invariants.test_scenarios import both, equal

ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(2, 12), "max_num_batched_tokens": st.integers(64, 400), "num_gpu_blocks_override": st.integers(40, 120),
    "block_size": st.sampled_from([8, 16]), "max_model_len": st.just(600), "async_scheduling": st.booleans(),
})  # fmt: skip
ORDER = st.sampled_from([
    {"kind": "program_fcfs"}, {"kind": "ttl_priority"}, {"kind": "ttl_priority"}, {"kind": "shortest_program"}, {"kind": "fcfs"},
    {"kind": "least_attained", "half_life": "700ms"}, {"kind": "least_attained", "aging": 300, "by": "session"},
    {"kind": "least_attained", "quantum": 100, "aging": 2},
])  # fmt: skip
GATE = st.sampled_from([
    None, {"kind": "kv_capacity", "every": "200ms"}, {"kind": "kv_capacity", "every": "1s", "acting_token_weight": 0.1, "migrate": False},
    {"kind": "kv_capacity", "every": "300ms", "half_life": "100ms", "fill": 0.5}, {"kind": "kv_capacity", "every": "1s", "forget": "500ms"},
    {"kind": "kv_capacity", "every": "90ms", "fill": 0.1},
])  # fmt: skip
SPECIAL = st.sampled_from([
    {}, {"retention": {"kind": "ttl", "seconds": "300ms"}}, {"retention": {"kind": "ttl", "min_samples": 4}},
    {"retention": {"kind": "keep"}}, {"retention": {"kind": "ttl", "seconds": "300ms", "firm": True}},
    {"retention": {"kind": "ttl", "seconds": "2s", "firm": True}}, {"retention": {"kind": "ttl", "min_samples": 4, "firm": True}},
    {"kv_tiers": [{"kind": "host", "capacity": "1GB"}], "retention": {"kind": "offload", "after": "200ms"}},
    {"kv_tiers": [{"kind": "host", "capacity": "1GB"}], "retention": {"kind": "predictive"}}, {"preemption_mode": "swap"},
    {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "acceptance": 0.6, "sampling": "sampled"}},
])  # fmt: skip
ROUTER = st.sampled_from([
    {"kind": "session_affinity"}, {"kind": "session_affinity", "by": "program"}, {"kind": "prefix_aware"}, {"kind": "least_loaded"},
])  # fmt: skip
HASTE = {"first_token_timeout": "110ms", "retries": {"max": 1, "on": ["abandoned"]}, "hedge": {"after": "53ms"}}
CLIENT = st.sampled_from([None, None, {"timeout": "510ms"}, HASTE])
LENGTHS = {"kind": "uniform", "input": [20, 150], "output": [5, 60]}
FEW = {"mean": 30, "sigma": 0.5, "max": 60}
LEAD = {"system": 40, "task": FEW, "calls": 4, "output": FEW, "tools": {"run": 1}, "context": {"max": 500, "compact_at": None}}
AGENTS = {
    "kind": "agents", "rate": 4, "num_sessions": 5, "name": "four",
    "tools": {"run": {"time": {"median": "100ms", "p99": "1s"}, "observation": FEW}},
    "agents": {"lead": LEAD | {"spawns": [{"agent": "sub", "share": 0.4, "count": 2, "join": "all", "task": FEW, "result": FEW}]},
               "sub": LEAD | {"calls": 2}},
}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    engine=ENGINE, special=SPECIAL, order=ORDER, gate=GATE, router=ROUTER, client=CLIENT, seed=st.integers(0, 99),
    samples=st.sampled_from([1, 1, 2]), scaled=st.sampled_from([False, False, True]), duration=st.sampled_from([None, None, 1.7]),
)  # fmt: skip
def test_random_programs(engine, special, order, gate, router, client, seed, samples, scaled, duration):
    engine = engine | special | {"batcher": {"kind": "vllm_v1", "order": order}}
    pool = {"gpu": "l4", "replicas": 2, "engine": engine}
    if scaled:
        policy = {"kind": "hpa", "target": {"concurrency": 2}, "scale_down": {"stabilization_window": 0}}
        pool |= {"replicas": 0, "autoscale": {"min": 0, "max": 3, "every": "400ms", "policy": policy}}
        pool |= {"start": {"weights": "300ms", "init": "100ms", "capture": "100ms"}}
    turns = {"kind": "sessions", "rate": 12, "num_sessions": 14, "turns": 4, "think_time": "200ms", "think_sigma": 0.5, "max_context": 590}
    workloads = [
        turns | {"name": "one", "lengths": LENGTHS, "shared_prefix": 50, "samples": samples},
        turns | {"name": "two", "lengths": LENGTHS, "rate": 5, "num_sessions": 6},
        {"kind": "poisson", "rate": 20, "num_requests": 15, "lengths": LENGTHS, "name": "three"},
    ]
    workloads = [load | {"client": client} if client else load for load in workloads]
    cluster = {"pools": [pool], "router": router} | ({"gate": gate} if gate else {})
    if order["kind"] != "shortest_program":
        workloads.append(AGENTS)  # which do not foresee what is left of them
    scenario = {"seed": seed, "model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": workloads}
    fast, exact = both(scenario | ({"duration": duration} if duration else {}))
    equal(fast, exact)
    same_gate(fast, exact)
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed
        if duration is None:
            assert result.summary["requests"]["unfinished"] == 0


def same_gate(fast: sim.Result, exact: sim.Result) -> None:
    """The same calls were held, from when to when."""
    a, b = fast.tables["gate"], exact.tables["gate"]
    assert np.array_equal(a["request"], b["request"])
    assert np.array_equal(a["program"], b["program"])
    for name in ("paused", "start", "end"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-9, err_msg=name)
