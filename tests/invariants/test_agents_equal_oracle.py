"""Random programs of agents on random clusters: the fast engine equals the plain one, families are whole, and the same seed repeats."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.study.audit import audit
from tests.invariants.test_scenarios import both, equal

AMOUNT = st.sampled_from([1, 30, {"mean": 40, "cv": 1.0}, {"dist": "uniform", "min": 1, "max": 90}])
SMALL = "Qwen/Qwen2.5-0.5B"
COUNT = st.sampled_from([1, 2, 3, {"dist": "geometric", "mean": 2}])
# With one call in every turn nothing would be done with tools, which is refused.
CALLS = st.sampled_from([2, 3, {"dist": "geometric", "mean": 2}])
TOOLS = {
    "bash": {"time": {"mean": "120ms"}, "observation": {"mean": 40, "cv": 1.0, "max": 200}, "timeout": "300ms", "hang": 0.1, "fail": 0.2,
             "retries": 1},
    "search": {"time": "50ms", "observation": 25, "api": "web"},
    "ask": {"model": {"agent": "judge"}},
    "make": {"time": {"mean": "200ms"}, "observation": 10, "sandbox": True},
}  # fmt: skip
BUDGET = st.fixed_dictionaries({"depth": st.integers(0, 4), "agents": st.just(25)}, optional={
    "calls": st.integers(1, 6), "tokens": st.integers(200, 3000), "time": st.sampled_from(["400ms", "2s", "5s"]),
})  # fmt: skip
CONTEXT = st.sampled_from([
    {}, {"max": 400}, {"max": 500, "compact_at": 0.8, "summary": 30}, {"max": 350, "compact_at": 0.5, "summary": 20},
])  # fmt: skip


def kind(spawns):
    return st.fixed_dictionaries({
        "system": st.sampled_from([0, 20, 64]), "task": AMOUNT, "calls": CALLS, "output": AMOUNT, "parallel_tools": COUNT,
        "tools": st.sampled_from([{"bash": 1, "search": 1}, {"bash": 2, "ask": 1}, {"search": 1, "make": 2}]),
        "spawns": st.lists(spawns, max_size=2), "context": CONTEXT, "budget": BUDGET,
        "retries": st.sampled_from([{}, {"max": 2, "backoff": "30ms"}]),
    })  # fmt: skip


def spawn(names):
    return st.fixed_dictionaries({
        "agent": st.sampled_from(names), "count": COUNT, "join": st.sampled_from(["all", 1]), "share": st.sampled_from([0.2, 0.6]),
    })  # fmt: skip


LOAD = st.sampled_from([{"rate": 4}, {"rate": 40}, {"concurrency": 3}])
ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(2, 12), "max_num_batched_tokens": st.integers(24, 300), "num_gpu_blocks_override": st.integers(42, 90),
    "max_model_len": st.just(640), "async_scheduling": st.booleans(), "enable_prefix_caching": st.sampled_from([True, True, False]),
})  # fmt: skip
MOVING = st.sampled_from([
    {}, {}, {"preemption_mode": "swap", "swap_space": "4GB"}, {"retention": {"kind": "keep"}}, {"retention": {"kind": "ttl"}},
    {"kv_tiers": [{"kind": "ssd", "capacity": "2GB", "bandwidth": "500MB/s"}], "kv_reload": "always"},
])  # fmt: skip
ROUTER = st.sampled_from([{"kind": name} for name in ("round_robin", "least_loaded", "session_affinity")])
ADMISSION = st.sampled_from([{"kind": "always"}, {"kind": "always"}, {"kind": "max_queue", "limit": 2}])
BOXES = {"name": "swe", "nodes": 1, "node": {"cores": 4, "memory": "8GB", "disk": "100GB"}, "cores": 1, "memory": {"base": "1GB"},
         "boot": {"mean": "300ms"}, "crash": 1000}  # fmt: skip


def alike(fast, exact):
    """The same tables of agents, row by row."""
    equal(fast, exact)
    for name in ("agents", "turns", "tool_calls"):
        a, b = fast.tables[name], exact.tables[name]
        assert len(a) == len(b)
        for column in a.columns:
            if column.dtype == "f8":
                np.testing.assert_allclose(a[column.name], b[column.name], rtol=1e-9, atol=1e-9, err_msg=f"{name}.{column.name}")
            else:
                assert np.array_equal(a[column.name], b[column.name]), f"{name}.{column.name}"
    for result in (fast, exact):
        wrong = {name: entry for name, entry in audit(result).items() if not entry["ok"]}
        assert not wrong


@settings(max_examples=12, deadline=None)
@given(
    main=kind(spawn(["main", "sub"])), sub=kind(spawn(["sub"])), load=LOAD, turns=COUNT, engine=ENGINE, moving=MOVING, router=ROUTER,
    admission=ADMISSION, split=st.sampled_from([None, None, "1GB/s"]), seed=st.integers(0, 99), duration=st.sampled_from([None, None, 1.5]),
    replicas=st.integers(1, 3),
)  # fmt: skip
def test_random_programs(main, sub, load, turns, engine, moving, router, admission, split, seed, duration, replicas):
    if not engine["enable_prefix_caching"]:
        moving = {key: value for key, value in moving.items() if key == "preemption_mode"}
    used = {tool for one in (main, sub) for tool in one["tools"]}
    kinds = {"main": main, "sub": sub, "judge": {"task": 30, "output": 8}}
    # What nobody begins is refused, so that a first call which begins one of each makes all of them wanted.
    kinds["main"] = main | {"sandbox": {"pool": "swe"}, "tools": main["tools"] | {"ask": 0.1, "make": 0.1},
                            "spawns": [*main["spawns"], {"agent": "sub", "share": 0.05}]}  # fmt: skip
    used |= {"ask", "make"}
    workload = {"kind": "agents", "num_sessions": 6, "turns": turns, "agents": kinds, **load}
    workload |= {"think_time": {"mean": "200ms"}} if turns != 1 else {}
    workload |= {"tools": {name: tool for name, tool in TOOLS.items() if name in used}}
    workload |= {"apis": {"web": {"rate": 20, "burst": 2, "concurrency": 3}}} if "search" in used else {}
    pools = [{"name": "a", "gpu": "h100_sxm", "replicas": replicas, "engine": engine | moving}]
    cluster = {"pools": pools, "router": router, "admission": admission, "sandboxes": [BOXES]}
    if split is not None:
        cluster["pools"] = [pools[0] | {"role": "prefill"}, pools[0] | {"name": "b", "role": "decode"}]
        cluster["disaggregation"] = {"bandwidth": split}
    scenario = {"model": "meta-llama/Llama-3.1-8B", "seed": seed, "cluster": cluster, "workloads": [workload]}
    alike(*both(scenario | ({"duration": duration} if duration else {})))


def tight(**changes):
    """Agents whose contexts do not all fit, with families that race."""
    kinds = {
        "main": {"system": 300, "message": 200, "calls": 5, "output": 60, "tools": {"bash": 1},
                 "spawns": [{"agent": "sub", "share": 0.4, "count": 3, "join": 1}]},
        "sub": {"system": 100, "task": 80, "calls": 3, "output": {"mean": 60, "cv": 1.0}, "tools": {"bash": 1}},
    }  # fmt: skip
    tools = {"bash": {"time": {"mean": "500ms"}, "observation": {"mean": 150, "cv": 1.0}}}
    workload = {"kind": "agents", "rate": 20, "num_sessions": 60, "turns": 2, "think_time": "1s", "agents": kinds, "tools": tools}
    pool = {"gpu": "h100_sxm", "replicas": 2, "engine": {"num_gpu_blocks_override": 400, "max_model_len": 6000}}
    cluster = {"pools": [pool], "router": {"kind": "session_affinity"}}
    return {"model": "meta-llama/Llama-3.1-8B", "seed": 3, "cluster": cluster, "workloads": [workload | changes]}


def test_under_pressure_the_fast_engine_equals_the_plain_one():
    fast, exact = both(tight())
    alike(fast, exact)
    assert fast.summary["kv"]["preemptions"] > 10
    figures = fast.summary["agents"]
    assert figures["agents"]["ended"]["cancelled"] > 10
    assert fast.summary["requests"]["failed"] > 10
    assert sum(figures["share"].values()) == pytest.approx(1)
    assert figures["tasks"] == {"begun": 60, "completed": 60, "ended": {"completed": 60}}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name in ("one", "two"):
        sim.run(tight()).save(tmp_path / name)
    for table in ("requests", "stretches", "agents", "turns", "tool_calls"):
        assert (tmp_path / "one" / f"{table}.parquet").read_bytes() == (tmp_path / "two" / f"{table}.parquet").read_bytes()
    other = sim.run(tight() | {"seed": 4})
    assert not np.array_equal(other.tables["agents"]["start"][:20], sim.run(tight()).tables["agents"]["start"][:20])


def test_a_run_that_is_cut_off_knows_who_is_unfinished():
    result = sim.run(tight() | {"duration": 3})
    assert all(entry["ok"] for entry in audit(result).values())
    figures = result.summary["agents"]
    assert figures["tasks"]["ended"]["unfinished"] > 0
    assert figures["agents"]["begun"] == sum(figures["agents"]["ended"].values())


def test_with_room_for_all_only_what_is_new_is_computed():
    """In an endless cache the share found is 1 - new / all, up to the last, partly filled block of each prompt."""
    kind = {"system": 320, "message": 160, "calls": 10, "output": 64, "tools": {"bash": 1}}
    scenario = tight(rate=2, agents={"main": kind}, num_sessions=20)
    scenario["workloads"][0]["tools"] = {"bash": {"time": "1s", "observation": 96}}
    scenario["cluster"]["pools"][0]["engine"] = {}
    result = sim.run(scenario)
    turns, requests = result.tables["turns"], result.tables["requests"]
    new, replies = int(turns["new"].sum()), 0
    whole, found = int(requests["input_tokens"].sum()), int(requests["cached_tokens"].sum())
    # The answer's last token is never computed; a block of 16 that it is in has to be.
    replies = int(requests["output_tokens"].sum())
    sessions = 20
    best = 1 - (new - (sessions - 2) * 320) / whole
    lost = len(requests) * 16 / whole
    assert best - lost <= found / whole <= best
    assert replies == 2 * 20 * 10 * 64
    assert result.summary["agents"]["cache_hit"]["tool"] == pytest.approx(result.summary["agents"]["cache_hit"]["user"], abs=0.1)


def test_a_judge_has_a_model_of_its_own_and_workloads_do_not_mix():
    kinds = {"main": {"system": 64, "message": 50, "calls": 3, "output": 20, "tools": {"judge": 1}},
             "judge": {"system": 32, "output": 5, "model": "small"}}  # fmt: skip
    workload = {"kind": "agents", "rate": 5, "num_sessions": 10, "agents": kinds, "model": "large",
                "tools": {"judge": {"model": {"agent": "judge", "task": 200}}}}  # fmt: skip
    pools = [{"name": "large", "gpu": "h100_sxm", "engine": {}}, {"name": "small", "gpu": "l4", "model": SMALL, "engine": {}}]
    scenario = {"model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": pools}, "workloads": [workload, workload]}
    fast, exact = both(scenario)
    alike(fast, exact)
    requests, judged = fast.tables["requests"], fast.tables["requests"]["input_tokens"] == 32 + 200
    assert judged.sum() == 2 * 10 * 2
    assert np.array_equal(requests["replica"] == 1, judged)
    numbers = fast.tables["agents"]["agent"]
    assert len(set(numbers.tolist())) == len(numbers) == 2 * 10 * 3
