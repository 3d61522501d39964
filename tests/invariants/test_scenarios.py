"""Whole scenarios, through loader, front door and real physics: the fast engine equals the oracle, audits hold, the same seed repeats."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from sim.study.result import Result

TRACE = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces" / "azure2023_conv.csv.gz"
TIMES = ("arrival", "admitted", "first_token", "last_token")


def equal(fast: Result, exact: Result) -> None:
    a, b = fast.tables["requests"], exact.tables["requests"]
    i, j = np.argsort(a["request"]), np.argsort(b["request"])
    for column in ("request", "workload", "replica", "output_tokens", "preemptions", "status", "reason", "cached_tokens"):
        assert np.array_equal(a[column][i], b[column][j]), column
    for column in TIMES:
        np.testing.assert_allclose(a[column][i], b[column][j], rtol=1e-9, atol=1e-12, err_msg=column)
    for column in ("peak_blocks", "taken_blocks", "returned_blocks", "preemptions"):
        assert np.array_equal(fast.tables["replicas"][column], exact.tables["replicas"][column]), column


def both(scenario: dict) -> tuple[Result, Result]:
    def with_exact(exact: bool) -> dict:
        pools = [pool | {"engine": pool["engine"] | {"exact_steps": exact}} for pool in scenario["cluster"]["pools"]]
        return scenario | {"cluster": scenario["cluster"] | {"pools": pools}}

    return sim.run(with_exact(False)), sim.run(with_exact(True))


ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(1, 24),
    "max_num_batched_tokens": st.integers(24, 700),
    "num_gpu_blocks_override": st.integers(40, 200),
    "block_size": st.sampled_from([8, 16, 32]),
    "max_model_len": st.sampled_from([600, 1000]),
    "enable_chunked_prefill": st.booleans(),
    "cuda_graph": st.booleans(),
    "long_prefill_token_threshold": st.sampled_from([0, 40]),
    "async_scheduling": st.booleans(),
    "attention": st.sampled_from(["flash", "flash", "naive"]),
    "framework": st.sampled_from(["vllm", "vllm", "trtllm"]),
})  # fmt: skip
POOL = st.fixed_dictionaries({
    "gpu": st.sampled_from(["h100_sxm", "l40s", "b200"]),
    "replicas": st.integers(1, 3),
    "engine": ENGINE,
    "parallel": st.sampled_from([{"tp": 1}, {"tp": 2}, {"tp": 2, "pp": 2}, {"tp": 1, "dp": 2}, {"tp": 1, "pp": 2, "dp": 2}]),
    "model": st.sampled_from(["meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B"]),
    "precision": st.just({"attention": "bf16", "mlp": "fp8", "kv": "fp8"}),
})  # fmt: skip
LENGTHS = st.sampled_from([
    {"kind": "fixed", "input": 100, "output": 1},
    {"kind": "uniform", "input": [1, 800], "output": [1, 120]},
    {"kind": "lognormal", "input": {"mean": 200, "sigma": 1.0, "max": 900}, "output": {"mean": 60, "sigma": 1.0}},
])  # fmt: skip
COUNT, RATE, CACHED = st.integers(1, 40), st.floats(1, 80), st.sampled_from([0, 0, 64])
SENT = {"num_requests": COUNT, "shared_prefix": CACHED, "lengths": LENGTHS}
WORKLOAD = st.one_of(
    st.fixed_dictionaries({"kind": st.just("poisson"), "rate": RATE, **SENT}),
    st.fixed_dictionaries({"kind": st.just("gamma"), "rate": RATE, "cv": st.just(3), **SENT}),
    st.fixed_dictionaries({"kind": st.just("closed"), "concurrency": st.integers(1, 12), **SENT}),
)
ROUTER = st.sampled_from([{"kind": k} for k in ("round_robin", "random", "least_loaded", "power_of_two", "session_affinity")])
ADMISSION = st.sampled_from([{"kind": "always"}, {"kind": "max_queue", "limit": 2}, {"kind": "token_bucket", "rate": 20, "burst": 5}])


@settings(max_examples=150, deadline=None)
@given(
    pools=st.lists(POOL, min_size=1, max_size=2), workloads=st.lists(WORKLOAD, min_size=1, max_size=2), router=ROUTER, admission=ADMISSION,
    seed=st.integers(0, 99), duration=st.sampled_from([None, None, 0.7, 3.0]),
)  # fmt: skip
def test_random_scenarios(pools, workloads, router, admission, seed, duration):
    pools = [pool | {"name": f"pool{i}"} for i, pool in enumerate(pools)]
    for engine in (pool["engine"] for pool in pools):
        if not engine["enable_chunked_prefill"]:
            engine["max_num_batched_tokens"] = 1000
    scenario = {"model": pools[0]["model"], "seed": seed, "cluster": {"pools": pools, "router": router, "admission": admission}}
    scenario |= {"workloads": workloads} | ({"duration": duration} if duration else {})
    try:
        fast, exact = both(scenario)
    except sim.BadInput:
        # A horizon before the first arrival; both engines see the same traffic.
        assume(False)
    equal(fast, exact)
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed


def tight(seed: int = 5) -> dict:
    """A cache so small that it preempts, and a queue so short that it rejects."""
    engine = {"num_gpu_blocks_override": 300, "max_num_seqs": 64}
    pool = {"gpu": "h100_sxm", "replicas": 2, "engine": engine}
    lengths = {"kind": "lognormal", "input": {"mean": 300, "p99": 1500}, "output": {"mean": 200, "p99": 900}, "correlation": 0.3}
    cluster = {"pools": [pool], "router": {"kind": "power_of_two"}, "admission": {"kind": "max_queue", "limit": 20}}
    workloads = [{"kind": "gamma", "rate": 20, "cv": 3, "num_requests": 600, "lengths": lengths}]
    return {"name": "tight", "seed": seed, "model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": workloads}


def test_under_pressure_everything_still_holds():
    fast, exact = both(tight())
    equal(fast, exact)
    assert fast.summary["kv"]["preemptions"] > 100
    assert fast.summary["requests"]["rejected"] > 10
    assert all(check["ok"] for check in fast.summary["audit"].values())


def test_same_seed_same_bytes_other_seed_other_times(tmp_path):
    """I5, to the byte of the files."""
    for name in ("one", "two"):
        sim.run(tight()).save(tmp_path / name)
    for table in ("requests", "stretches", "stalls", "replicas"):
        assert (tmp_path / "one" / f"{table}.parquet").read_bytes() == (tmp_path / "two" / f"{table}.parquet").read_bytes()
    assert not np.array_equal(sim.run(tight(6)).tables["requests"]["arrival"], sim.run(tight()).tables["requests"]["arrival"])


def test_a_result_reruns_itself(tmp_path):
    first = sim.run(tight())
    first.save(tmp_path / "out")
    again = sim.run(tmp_path / "out" / "scenario.yaml")
    assert again.meta["digest"] == first.meta["digest"] == Result.open(tmp_path / "out").meta["digest"]
    assert np.array_equal(again.tables["requests"]["last_token"], first.tables["requests"]["last_token"], equal_nan=True)


def test_adding_a_workload_does_not_move_the_others():
    """Common random numbers: named streams keep what-ifs paired."""
    one = tight()
    more = {"kind": "poisson", "rate": 1, "num_requests": 5, "lengths": {"kind": "fixed", "input": 9, "output": 9}}
    two = one | {"workloads": [*one["workloads"], more]}
    a, b = sim.run(one).requests, sim.run(two).requests
    b = b[b["workload"] == "gamma"]
    np.testing.assert_array_equal(np.sort(a["arrival"]), np.sort(b["arrival"]))
    np.testing.assert_array_equal(np.sort(a["wanted_tokens"]), np.sort(b["wanted_tokens"]))


@pytest.mark.skipif(not TRACE.exists(), reason="the Azure trace is not in the data folder")
def test_the_whole_azure_hour_equals_the_oracle():
    """19,366 requests and 1.5 million steps, one event each in the oracle."""
    pool = {"gpu": "h100_sxm", "replicas": 4, "engine": {}}
    workload = {"kind": "trace", "path": str(TRACE)}
    fast, exact = both({"seed": 1, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [workload]})
    equal(fast, exact)
    assert fast.summary["requests"]["completed"] == 19_366
    assert all(check["ok"] for check in fast.summary["audit"].values())
    assert fast.meta["events"] < exact.meta["events"] / 10
