"""All of the engine's features at once, in random scenarios: stretch equals oracle, and audits hold. Then each by itself."""
from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from tests.invariants.test_scenarios import ADMISSION, LENGTHS, POOL, ROUTER, WORKLOAD, both, equal

WHOLE = ("orca", "prefill_first", "static")
BATCHERS = [
    {"kind": "vllm_v1"}, {"kind": "sarathi", "chunk_size": 64}, *({"kind": kind} for kind in WHOLE),
    *({"kind": "vllm_v1", "order": {"kind": kind}} for kind in ("priority", "slo", "shortest_job", "fair_share", "least_attained")),
    {"kind": "sarathi", "order": {"kind": "fair_share"}},
]  # fmt: skip
DRAFTS = [
    None, None, {"method": "ngram", "num_speculative_tokens": 3, "acceptance": 0.6},
    {"method": "eagle", "num_speculative_tokens": 4, "acceptance": [0.7, 0.5, 0.3, 0.2], "sampling": "sampled"},
    {"method": "ngram", "num_speculative_tokens": 20, "acceptance": 0.9, "sampling": "sampled"},
]  # fmt: skip
CACHES = st.sampled_from(["shared", "shared", "plain", "max", "pow2", "oracle"])
HOST, SSD = {"kind": "host", "capacity": "20MB"}, {"kind": "ssd", "capacity": "60MB", "bandwidth": "2GB/s"}
KEPT = [
    {}, {}, {"kv_tiers": [HOST]}, {"kv_tiers": [SSD], "retention": {"kind": "predictive"}}, {"retention": {"kind": "keep"}},
    {"kv_tiers": [HOST, SSD], "kv_offload": "on_evict", "kv_reload": "always", "retention": {"kind": "offload"}},
    {"retention": {"kind": "ttl", "seconds": 0.1}},
]  # fmt: skip
LORA = [None, None, {"max_loras": 1, "max_cpu_loras": 2}, {"max_loras": 3, "max_cpu_loras": 3, "rank": 8}]
SESSIONS = st.fixed_dictionaries({
    "kind": st.just("sessions"), "num_sessions": st.integers(1, 6), "concurrency": st.integers(1, 4), "turns": st.integers(1, 4),
    "think_time": st.sampled_from(["0s", "200ms"]), "shared_prefix": st.sampled_from([0, 50]), "samples": st.sampled_from([1, 3]),
    "lengths": st.sampled_from([{"kind": "fixed", "input": 37, "output": 21}, {"kind": "uniform", "input": [1, 90], "output": [1, 60]}]),
})  # fmt: skip
MORE = st.tuples(st.sampled_from(DRAFTS), st.sampled_from([None, None, "1MB", "1GB"]), st.sampled_from(KEPT), st.sampled_from(LORA))
SHARING = st.fixed_dictionaries({
    "kind": st.just("poisson"), "rate": st.floats(1, 80), "num_requests": st.integers(1, 20), "lengths": LENGTHS,
    "prefixes": st.just({"tokens": 90, "count": 3, "zipf": 1.0}),
})  # fmt: skip


def engine(options: dict, batcher: dict, cache: str, more: tuple[dict | None, str | None, dict, dict | None]) -> dict:
    draft, swap, kept, lora = more
    options = options | {"batcher": batcher} | ({"lora": lora} if lora and batcher["kind"] != "static" else {})
    if batcher["kind"] in WHOLE:
        del options["enable_chunked_prefill"], options["long_prefill_token_threshold"]
    if batcher["kind"] == "sarathi":
        options = options | {"enable_chunked_prefill": True, "long_prefill_token_threshold": 0}
    if not options.get("enable_chunked_prefill"):
        options["max_num_batched_tokens"] = 1000
    if draft:
        options["speculative_config"] = draft
    if cache in ("max", "pow2", "oracle"):
        return options | {"paged": False, "kv_reservation": cache}
    if swap:
        options |= {"preemption_mode": "swap", "swap_space": swap}
    if batcher["kind"] == "static":
        return options
    return options | {"enable_prefix_caching": cache == "shared"} | (kept if cache == "shared" else {})


@settings(max_examples=150, deadline=None)
@given(
    pools=st.lists(POOL, min_size=1, max_size=2), workloads=st.lists(st.one_of(WORKLOAD, SESSIONS, SHARING), min_size=1, max_size=3),
    batcher=st.sampled_from(BATCHERS), cache=CACHES, more=MORE,
    ways=st.tuples(ROUTER, ADMISSION), split=st.sampled_from([None, None, 0, 100]), priorities=st.tuples(*[st.integers(0, 3)] * 3),
    seed=st.integers(0, 99), duration=st.sampled_from([None, None, 0.7, 3.0]),
)  # fmt: skip
def test_random_scenarios(pools, workloads, batcher, cache, more, ways, split, priorities, seed, duration):
    pools = [pool | {"name": f"pool{i}", "engine": engine(pool["engine"], batcher, cache, more)} for i, pool in enumerate(pools)]
    workloads = [workload | {"priority": priority} for workload, priority in zip(workloads, priorities, strict=False)]
    if more[3] and batcher["kind"] != "static":
        workloads = [workload | {"adapters": {"count": 4, "share": 0.7}} for workload in workloads]
    cluster = {"router": ways[0], "admission": ways[1]}
    if split is not None and batcher["kind"] != "static":
        pools = [pools[0] | {"role": "prefill"}, pools[-1] | {"name": "decode", "role": "decode", "model": pools[0]["model"]}]
        cluster |= {"disaggregation": {"short_prompt": split, "bandwidth": "1GB/s", "latency": "1ms"}}
    scenario = {"model": pools[0]["model"], "seed": seed, "cluster": cluster | {"pools": pools}, "workloads": workloads}
    try:
        fast, exact = both(scenario | ({"duration": duration} if duration else {}))
    except sim.BadInput as error:
        # A horizon before the first arrival, or not one request that fits the decode pool; nothing else.
        assume("no request arrived" not in str(error) and "fewer than the smallest request" not in str(error))
        raise
    equal(fast, exact)
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed


def served(**options) -> sim.Result:
    """A load that fills the cache, so that requests are preempted."""
    pool = {"gpu": "h100_sxm", "engine": {"num_gpu_blocks_override": 300, "max_num_seqs": 64} | options}
    lengths = {"kind": "lognormal", "input": {"mean": 300, "p99": 1500}, "output": {"mean": 200, "p99": 900}}
    workload = {"kind": "gamma", "rate": 10, "cv": 3, "num_requests": 300, "lengths": lengths}
    return sim.run({"model": "meta-llama/Llama-3.1-8B", "seed": 5, "cluster": {"pools": [pool]}, "workloads": [workload]})


def test_preempted_requests_find_what_is_left_of_their_cache():
    cold, warm = served(enable_prefix_caching=False), served()
    assert min(run.summary["kv"]["preemptions"] for run in (cold, warm)) > 50
    recomputed = [int(run.tables["stretches"]["prefill_tokens"].sum()) - int(run.requests["input_tokens"].sum()) for run in (cold, warm)]
    assert 0 < recomputed[1] < 0.6 * recomputed[0]


def test_a_swapped_cache_is_not_computed_again():
    swapped = served(enable_prefix_caching=False, preemption_mode="swap", swap_space="100GB")
    assert swapped.summary["kv"]["preemptions"] > 50
    assert int(swapped.tables["stretches"]["prefill_tokens"].sum()) - int(swapped.requests["input_tokens"].sum()) < 300 * 16
    moved = swapped.tables["transfers"].to_pandas()
    assert set(moved["kind"]) == {"swap_in"}
    assert (moved["end"] > moved["start"]).all()


def test_every_sample_of_a_prompt_but_the_first_is_computed_from_the_cache():
    """A group of samples arrives at once: the first computes the prompt, the others find it in the same step."""
    pool = {"gpu": "h100_sxm", "engine": {"max_num_batched_tokens": 8192}}
    workload = {"kind": "poisson", "rate": 1, "num_requests": 3, "samples": 8, "lengths": {"kind": "fixed", "input": 1000, "output": 5}}
    run = sim.run({"model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [workload]})
    assert sorted(run.requests["cached_tokens"]) == [0] * 3 + [992] * 21
    assert int(run.tables["stretches"]["prefill_tokens"].sum()) == 3 * (1000 + 7 * 8)


def test_a_split_pool_hands_every_cache_on():
    """Prompts are computed once, on prefill replicas; each but those of one token is sent on, and the hand-over is a gap between tokens."""
    pools = [{"name": name, "gpu": "h100_sxm", "role": name, "replicas": 2} for name in ("prefill", "decode")]
    cluster = {"pools": pools, "disaggregation": {"bandwidth": "10GB/s", "layerwise": False, "short_prompt": 100}}
    workload = {"kind": "poisson", "rate": 5, "num_requests": 200, "lengths": {"kind": "uniform", "input": [50, 2000], "output": [1, 200]}}
    run = sim.run({"model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": [workload]})
    requests, moved = run.requests.set_index("request"), run.tables["transfers"].to_pandas().set_index("request")
    handed = (requests["input_tokens"] > 100) & (requests["output_tokens"] > 1)
    assert set(moved.index) == set(requests.index[handed])
    assert set(moved["source"]) <= {0, 1}
    assert set(moved["target"]) <= {2, 3}
    assert (requests.loc[moved.index, "replica"] == moved["target"]).all()
    tokens = 2 * 8 * 128 * 2 * 32
    assert moved["bytes"].to_numpy() == pytest.approx(moved["tokens"].to_numpy() * tokens)
    assert ((moved["end"] - moved["start"]) >= moved["bytes"] / 10e9).all()
    assert all(check["ok"] for check in run.summary["audit"].values())
    assert set(moved["tokens"]) <= set(requests["input_tokens"])
