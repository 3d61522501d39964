"""Random runs of reinforcement learning, over modes, gates, tails, interruptions, graders, ways of weights and agents: the fast engine
equals the plain one in every table of theirs, audits hold, and the same seed repeats to the byte.
"""
from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from tests.invariants.test_scenarios import equal

ENGINE = st.fixed_dictionaries({
    "max_num_seqs": st.integers(2, 16), "max_num_batched_tokens": st.integers(64, 400), "num_gpu_blocks_override": st.integers(60, 140),
    "block_size": st.sampled_from([8, 16]), "max_model_len": st.just(420), "async_scheduling": st.booleans(),
    "enable_prefix_caching": st.sampled_from([True, True, False]),
})  # fmt: skip
SPECIAL = st.sampled_from([
    {}, {}, {}, {"preemption_mode": "swap", "swap_space": "1GB"}, {"retention": {"kind": "keep"}},
    {"kv_tiers": [{"kind": "host", "capacity": "1GB"}]},
    {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "acceptance": 0.6, "sampling": "sampled"}},
])  # fmt: skip
ANSWERS = st.sampled_from([
    {"mean": 60, "sigma": 0.8, "cap": 200, "p_cap": 0.05, "difficulty": 0.4}, {"mean": 90, "sigma": 1.2, "cap": 200, "group_rho": 0.8},
    {"dist": "exponential", "mean": 60, "cap": 150, "drift_per_100_steps": 9.0}, {"value": 70, "cap": 90}, {"value": 1, "cap": 1},
])  # fmt: skip
PROMPT = st.sampled_from([40, 1, {"dist": "uniform", "min": 1, "max": 150}])
FEW = {"mean": 20, "sigma": 0.7, "max": 50}
LEAD = {"system": 40, "task": FEW, "calls": {"dist": "geometric", "mean": 2.5}, "output": FEW, "tools": {"run": 2, "look": 1},
        "context": {"max": 400, "compact_at": None}, "budget": {"calls": 5},
        "sandbox": {"pool": "swe"}}  # fmt: skip
SPAWNS = {"spawns": [{"agent": "sub", "share": 0.5, "count": 2, "join": "all", "task": FEW, "result": FEW}]}
TOOLS = {
    "run": {"time": {"median": "100ms", "p99": "1s"}, "observation": FEW, "timeout": "700ms"},
    "look": {"time": {"mean": "50ms"}, "observation": FEW, "sandbox": True},
}  # fmt: skip
ENVIRONMENT = st.sampled_from([None, None, {"reset": "100ms", "failure": 0.3, "time": "400ms"}])
BOXES = {"name": "swe", "nodes": 1, "node": {"cores": 8, "memory": "16GB", "disk": "100GB"}, "cores": 1, "memory": {"base": "1GB"},
         "boot": {"mean": "100ms"}, "crash": 100}  # fmt: skip
WITHIN = [
    {"kind": "divided", "chunk": 30}, {"kind": "divided", "chunk": 47, "probe": False, "migrate": False},
    {"kind": "divided", "chunk": 30, "rounds": {"kind": "partial", "over_issue": 1.5}},
    {"kind": "divided", "chunk": 19, "rounds": {"kind": "over_sample"}},
    {"kind": "consolidate", "interval": "90ms"}, {"kind": "consolidate", "interval": "33ms", "max_running": 4, "fill": 0.9},
]  # fmt: skip
OPEN = [
    {"kind": "wait_all"}, {"kind": "over_sample"}, {"kind": "over_sample", "eta_prompt": 2, "eta_response": 1, "rest": "restart"},
    {"kind": "over_sample", "rest": "resume"}, {"kind": "partial"}, {"kind": "partial", "over_issue": 1.3}, {"kind": "tail_batching"},
]  # fmt: skip
CUT = [{"kind": "truncate", "max_len": 60}, {"kind": "truncate", "max_len": 100, "overlong": "keep"}]
GATES = [
    {"kind": "areal", "eta": 0}, {"kind": "areal", "eta": 1}, {"kind": "areal", "eta": 2, "max_concurrent": 3},
    {"kind": "skyrl", "staleness": 1, "workers": 5}, {"kind": "verl", "staleness_threshold": 0, "monitor": "300ms"},
    {"kind": "verl", "staleness_threshold": 0.7, "monitor": "200ms", "per_server": 2}, {"kind": "prime_rl", "max_off_policy_steps": 1},
    {"kind": "prime_rl", "max_inflight": 12, "initial": 5, "low": 0.2, "target": 0.25, "soft": 0.3, "hard": 0.35},
    {"kind": "nemo_rl"}, {"kind": "nemo_rl", "max_trajectory_age_steps": 3}, {"kind": "rollart"}, {"kind": "rollart", "alpha": 0.5},
    {"kind": "slime"}, {"kind": "slime", "abort_policy": "resume", "max_concurrent": 7}, {"kind": "slime", "abort_policy": "drop"},
    {"kind": "unbounded", "max_concurrent": 6},
]  # fmt: skip
INTERRUPT = st.fixed_dictionaries({
    "wait": st.sampled_from(["none", "none", "calls", "drain"]), "kv": st.sampled_from(["keep", "recompute"]),
    "abort": st.sampled_from(["never", "never", "resume", "restart", "drop"]),
})  # fmt: skip
SAMPLING = st.sampled_from([None, None, {"style": "batch", "gen_batch_factor": 2}, {"style": "stream"},
                            {"style": "stream", "rest": "resume", "surplus": "keep"}])  # fmt: skip
RULE = {"kind": "rule", "time": {"mean": "20ms"}, "p_timeout": 0.1, "timeout": "300ms"}
REWARDS = st.lists(st.sampled_from([
    RULE, RULE | {"workers": 2}, {"kind": "judge", "time": {"mean": "80ms"}, "concurrency": 3, "cold_start": "200ms", "agreement": 0.9},
    {"kind": "judge", "model": "judges", "rubric": 30, "output": 5, "timeout": "900ms", "retries": 1},
    {"kind": "code", "pool": "swe", "tests": 5, "time": {"mean": "20ms"}, "timeout": "300ms", "p_timeout_wrong": 0.5, "failure": 0.05},
    {"kind": "tests", "pool": "swe", "time": {"mean": "200ms"}, "timeout": "900ms", "failure": 0.1, "retries": 1},
]), min_size=1, max_size=2, unique_by=lambda one: one["kind"])  # fmt: skip
SYNC = st.sampled_from([
    {"kind": "bucketed"}, {"kind": "bucketed", "blocking": "in_flight"}, {"kind": "bucketed", "blocking": "pull"}, {"kind": "per_tensor"},
    {"kind": "checkpoint_engine", "blocking": "in_flight"}, {"kind": "rdma_p2p"}, {"kind": "rdma_p2p", "blocking": "pull"},
    {"kind": "object_store", "blocking": "in_flight"}, {"kind": "object_store", "up": "5GB/s", "down": "9GB/s"}, {"kind": "delta"},
])  # fmt: skip
UPDATES = st.sampled_from([{}, {}, {"trigger": 2}, {"stream": 1}, {"stream": 2}, {"epochs": 2, "mini_batches": 2}])
TIMES = st.sampled_from([{}, {"update": "300ms", "logprob": "50ms"}, {"update": {"mean": 0.5, "cv": 1}}, {"update": "2s"}])
MORE = st.fixed_dictionaries({}, optional={
    "data": st.just({"mean": "200ms"}), "reference": st.just(True), "old_logprob": st.just(False), "data_prompts": st.just(5),
    "checkpoint": st.sampled_from([{"every": 2, "time": "100ms"}, {"every": 1, "time": "400ms"}]),
    "validation": st.just({"every": 2, "time": "300ms"}), "solving": st.just({"solve_rate_beta": [0.6, 0.6]}),
})  # fmt: skip
ROUTER = st.sampled_from([{"kind": kind} for kind in ("least_loaded", "least_loaded", "round_robin", "session_affinity", "prefix_aware")])
BESIDE = {"kind": "poisson", "rate": 8, "num_requests": 12, "lengths": {"kind": "uniform", "input": [10, 200], "output": [5, 60]}}
# What may come of what is drawn: nothing that could be trained on.
REFUSED = (
    "gave up", "never hold", "would wait for ever", "no group of a round could be trained on", "none could be trained on",
    "lets no other begin", "do not make",
)  # fmt: skip


@st.composite
def runs(draw) -> dict:
    """A scenario with one run of reinforcement learning, as YAML would give it."""
    mode = draw(st.sampled_from(["sync_colocated", "sync_disaggregated", "sync_disaggregated", "one_step_off", "async", "async", "async"]))
    agents, rounds, rewards = draw(st.sampled_from([False, False, True])), mode.startswith("sync"), draw(REWARDS)
    run = {"kind": "rl", "name": "run", "rollout": "rollouts", "mode": mode, "steps": 3, "prompts": 4, "samples": 3, "rewards": rewards}
    run |= {"updates": draw(UPDATES), "times": draw(TIMES)} | draw(MORE)
    sampling = draw(SAMPLING)
    if sampling:
        run["dynamic_sampling"] = sampling
    if agents:
        run |= {"agents": draw(st.sampled_from([{"lead": LEAD}, {"lead": LEAD | SPAWNS, "sub": LEAD}])), "tools": TOOLS}
        run["stepping"] = draw(st.sampled_from(["trajectory", "batch"])) if "sub" not in run["agents"] else "trajectory"
        environment = draw(ENVIRONMENT)
        if environment:
            run["environment"] = environment
    else:
        run |= {"prompt": draw(PROMPT), "answers": draw(ANSWERS)}
    if rounds:
        tails = ([{"kind": "wait_all"}] if sampling else OPEN) + ([] if agents else CUT)
        run["tail"] = draw(st.sampled_from(tails + ([] if agents or sampling else WITHIN)))
        stream = sampling is not None and sampling["style"] == "stream"
        run["reward_at"] = "trajectory" if stream else draw(st.sampled_from(["trajectory", "trajectory", "batch"]))
    else:
        run |= {"interrupt": draw(INTERRUPT), "redundant": draw(st.sampled_from([0, 0, 2])), "buffer": draw(st.sampled_from([
            {}, {"order": "fresh"}, {"cap": 5},
        ]))}  # fmt: skip
        if not agents:
            run |= draw(st.sampled_from([{}, {}, {"tail": CUT[0]}, {"tail": WITHIN[-1]}]))
        if mode == "async":
            run["staleness"] = draw(st.sampled_from(GATES))
            if run["staleness"]["kind"] == "nemo_rl":
                del run["buffer"]
    if mode == "sync_colocated":
        run["switch"] = draw(st.sampled_from([{}, {"to_train": "200ms", "to_rollout": "70ms"}]))
    else:
        run["sync"] = draw(SYNC)
    if rounds and run.get("sync", {}).get("blocking", "blocking") != "blocking":
        run["sync"] = {"kind": run["sync"]["kind"], "blocking": "blocking"}
    if run.get("reward_at") == "batch":
        run["updates"] = {}
    if rounds and "stream" in run["updates"] and mode == "sync_colocated":
        run["updates"] = {"trigger": 2}
    engine = draw(ENGINE) | draw(SPECIAL)
    if not engine["enable_prefix_caching"]:
        engine = {key: value for key, value in engine.items() if key not in ("retention", "kv_tiers")}
    replicas = draw(st.integers(1, 3))
    pools = [{"name": "rollouts", "gpu": "h100_sxm", "replicas": replicas, "engine": engine}]
    pools += [{"name": "judges", "gpu": "h100_sxm", "engine": {"max_num_seqs": 4}}] if any("model" in one for one in rewards) else []
    trainer = {"name": "learner", "gpu": "h100_sxm", "gpus": 2}
    if mode == "sync_colocated":
        trainer |= {"gpus": replicas, "shares": "rollouts"}
    boxes = [BOXES] if agents or any("pool" in one for one in rewards) else []
    cluster = {"pools": pools, "trainers": [trainer], "router": draw(ROUTER)} | ({"sandboxes": boxes} if boxes else {})
    if draw(st.sampled_from([False, False, False, True])):
        cluster["network"] = {"fabric": "one_switch", "hosts": [{"gpu": "h100_sxm", "count": 2}]}
    workloads = [run] + ([BESIDE | {"model": "rollouts"}] if draw(st.sampled_from([False, False, True])) else [])
    scenario = {"seed": draw(st.integers(0, 99)), "model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": workloads}
    duration = draw(st.sampled_from([None, None, None, 1.7, 4.0]))
    return scenario | ({"duration": duration} if duration else {})


def exactly(scenario: dict, exact: bool) -> sim.Result:
    pools = [pool | {"engine": pool["engine"] | {"exact_steps": exact}} for pool in scenario["cluster"]["pools"]]
    return sim.run(scenario | {"cluster": scenario["cluster"] | {"pools": pools}})


def ran(scenario: dict, exact: bool = False) -> sim.Result:
    """The result; what makes no sense is drawn again."""
    try:
        return exactly(scenario, exact)
    except sim.BadInput as error:
        assume(not all(any(text in problem.message for text in REFUSED) for problem in error.problems))
        raise


def agree(fast: sim.Result, exact: sim.Result) -> None:
    """The same tables, and books that add up."""
    equal(fast, exact)
    for name in ("rl_steps", "rl_groups", "rl_samples", "rl_waste", "rl_syncs", "rl_grades", "train_steps", "train_states"):
        a, b = fast.tables[name], exact.tables[name]
        assert len(a) == len(b), name
        assert a.labels == b.labels, name
        for column in a.columns:
            one, two = a[column.name], b[column.name]
            if column.dtype == "f8":
                np.testing.assert_allclose(one, two, rtol=1e-9, atol=2e-9, err_msg=f"{name}.{column.name}")
            else:
                assert np.array_equal(one, two), f"{name}.{column.name}"
    for result in (fast, exact):
        failed = {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
        assert not failed


def same_bytes(one: sim.Result, two: sim.Result) -> None:
    for name, table in one.tables.items():
        for column in table.columns:
            assert table[column.name].tobytes() == two.tables[name][column.name].tobytes(), f"{name}.{column.name}"


@settings(max_examples=36, deadline=None)
@given(scenario=runs())
def test_random_runs(scenario):
    agree(ran(scenario), ran(scenario, True))


@settings(max_examples=8, deadline=None)
@given(scenario=runs())
def test_the_same_again(scenario):
    same_bytes(ran(scenario), ran(scenario))
