"""The front door and the run's ends: who is let in, who is turned away and why, and when the clock stops."""
from __future__ import annotations

import json
import tracemalloc

import pytest

import sim
from sim.core.registry import WORKLOADS
from sim.spec.load import loads
from sim.world.cluster import World

FIXED = {"kind": "fixed", "input": 100, "output": 20}


def scenario(pools=None, workload=None, **rest):
    pools = pools or [{"gpu": "h100_sxm"}]
    workload = workload or {"kind": "poisson", "rate": 5, "num_requests": 50, "lengths": FIXED}
    cluster = {"pools": pools} | {key: rest.pop(key) for key in ("router", "admission") if key in rest}
    return {"model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": [workload], **rest}


def reasons(result) -> dict[str, int]:
    frame = result.requests
    return frame[frame["status"] == "rejected"]["reason"].astype(str).value_counts().to_dict()


def test_a_request_longer_than_max_model_len_is_rejected_and_counted():
    lengths = {"kind": "uniform", "input": [10, 1000], "output": [5, 5]}
    workload = {"kind": "poisson", "rate": 50, "num_requests": 300, "lengths": lengths}
    result = sim.run(scenario([{"gpu": "h100_sxm", "engine": {"max_model_len": 600}}], workload))
    frame = result.requests
    assert ((frame["status"] == "rejected") == (frame["input_tokens"] + frame["wanted_tokens"] > 600)).all()
    assert reasons(result) == {"max_model_len": result.summary["requests"]["rejected"]}
    assert result.summary["requests"]["rejected"] > 50
    assert "longer than any replica can hold" in result.summary["verdict_reason"]


def test_a_request_that_no_cache_could_hold_is_rejected():
    """10 blocks of 16 hold a request of 161 tokens: the last token's keys and values are never needed."""
    pool = {"gpu": "h100_sxm", "engine": {"num_gpu_blocks_override": 10}}
    for output, expected in ((61, {}), (62, {"kv_capacity": 5})):
        lengths = {"kind": "fixed", "input": 100, "output": output}
        result = sim.run(scenario([pool], {"kind": "poisson", "rate": 1, "num_requests": 5, "lengths": lengths}))
        assert reasons(result) == expected
        assert result.summary["kv"]["peak_fraction"] == (0.0 if expected else 1.0)


def test_long_requests_go_where_they_fit():
    pools = [
        {"name": "short", "gpu": "h100_sxm", "engine": {"max_model_len": 300}},
        {"name": "long", "gpu": "h100_sxm", "engine": {"max_model_len": 4000}},
    ]
    lengths = {"kind": "uniform", "input": [10, 1000], "output": [5, 5]}
    frame = sim.run(scenario(pools, {"kind": "poisson", "rate": 20, "num_requests": 200, "lengths": lengths})).requests
    assert set(frame[frame["input_tokens"] > 295]["replica"]) == {1}
    assert set(frame[frame["input_tokens"] <= 295]["replica"]) == {0, 1}


def test_admission_is_named_as_the_reason():
    workload = {"kind": "poisson", "rate": 200, "num_requests": 300, "lengths": {"kind": "fixed", "input": 500, "output": 200}}
    pool = {"gpu": "h100_sxm", "engine": {"max_num_seqs": 4}}
    result = sim.run(scenario([pool], workload, admission={"kind": "max_queue", "limit": 5}))
    assert set(reasons(result)) == {"max_queue"}
    assert result.requests["queue"].max() > 0


def test_a_closed_loop_keeps_its_concurrency():
    workload = {"kind": "closed", "concurrency": 8, "num_requests": 100, "lengths": FIXED}
    result = sim.run(scenario(workload=workload))
    assert result.meta["closed_loop"]
    assert result.tables["stretches"]["decoders"].max() == 8
    assert result.summary["requests"]["completed"] == 100


def test_the_run_ends_with_its_last_request_however_long_its_duration():
    result = sim.run(scenario(duration=3600))
    assert result.meta["sim_s"] == result.requests["last_token"].max()


def test_a_duration_cuts_the_run_and_what_is_unfinished_is_counted():
    workload = {"kind": "constant", "rate": 10, "num_requests": 100, "lengths": {"kind": "fixed", "input": 50, "output": 200}}
    result = sim.run(scenario(workload=workload, duration=2.0))
    counts = result.summary["requests"]
    assert result.meta["sim_s"] == 2.0
    assert counts["arrived"] == 21
    assert counts["unfinished"] > 0
    assert counts["arrived"] == counts["completed"] + counts["unfinished"]
    cut = result.requests.query("status == 'unfinished'")
    assert cut["output_tokens"].between(0, 199).all()
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_an_open_workload_without_an_end_lasts_as_long_as_the_scenario():
    workload = {"kind": "constant", "rate": 10, "lengths": FIXED}
    result = sim.run(scenario(workload=workload, duration="3s"))
    assert result.summary["requests"]["arrived"] == 30


def test_without_chunked_prefill_the_budget_must_hold_the_longest_request():
    pool = {"gpu": "h100_sxm", "engine": {"enable_chunked_prefill": False}}
    with pytest.raises(sim.BadInput, match="could never be computed"):
        sim.run(scenario([pool]))


def test_nothing_arrives_is_an_error():
    workload = {"kind": "poisson", "rate": 1, "num_requests": 5, "start": 100, "lengths": FIXED}
    with pytest.raises(sim.BadInput, match="no request arrived"):
        sim.run(scenario(workload=workload, duration=1.0))


def test_a_model_that_does_not_fit_is_reported_with_its_line(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_text(
        "model: meta-llama/Llama-3.1-70B\n"
        "cluster:\n"
        "  pools:\n"
        "    - gpu: h100_sxm\n"
        "workloads:\n"
        "  - {kind: poisson, rate: 1, num_requests: 5, lengths: {kind: fixed, input: 10, output: 10}}\n"
    )
    with pytest.raises(sim.BadInput) as caught:
        sim.run(path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.file, problem.line) == ("cluster.pools.0", str(path), 4)
    assert "does not fit" in problem.message


@pytest.mark.parametrize("kind", WORKLOADS.names())
def test_every_workload_says_whether_it_is_a_closed_loop(kind):
    law = WORKLOADS.find(kind).closed_loop
    # Whether sessions, agents and traces wait for answers is the user's choice.
    choice = {"sessions", "trace", "agents", "agent_trace", "evals"}
    assert isinstance(law, property) if kind in choice else law is (kind in {"closed", "transfers", "train", "rl"})


def weight(workload: dict) -> float:
    """Bytes of each of 5,000 requests that wait at once."""
    world = World(loads(scenario([{"gpu": "h100_sxm", "engine": {"max_num_seqs": 1}}], workload)))
    world.start()
    world.env.run(until=1e-12)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        world.env.run(until=1.0)
        weight = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert sum(engine.in_flight for engine in world.engines) > 4500
    return weight / 5000


def test_a_live_request_weighs_less_than_a_kibibyte():
    """All of it: the request, its place in the queue, its numbers."""
    lengths = {"kind": "uniform", "input": [300, 900], "output": [300, 900]}
    assert weight({"kind": "constant", "rate": 1e9, "num_requests": 5000, "lengths": lengths}) < 1024


def test_with_the_names_of_its_blocks_it_weighs_less_than_two(tmp_path):
    """25 blocks of 512 tokens each, nobody's the same: as many as the Mooncake trace has on average."""
    rows = ({"timestamp": 0, "input_length": 12800, "output_length": 300, "hash_ids": [*range(25 * i, 25 * i + 25)]} for i in range(5000))
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert weight({"kind": "trace", "path": str(path), "format": "mooncake", "start": 1e-6}) < 2048
