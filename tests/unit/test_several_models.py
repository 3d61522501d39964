"""Several models in one fleet: each workload is served by its own pools, the summary tells them apart, and the report shows it."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import sim
from sim.cli import main
from sim.report.page import render
from sim.study.result import Result

STUDIES = Path(__file__).resolve().parents[2] / "configs" / "studies"
SMALL, LARGE = "Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-3B"
LENGTHS = {"kind": "uniform", "input": [10, 300], "output": [5, 60]}


def traffic(name, model, count=100, **rest):
    return {"kind": "poisson", "name": name, "model": model, "rate": 20, "num_requests": count, "lengths": LENGTHS, **rest}


def fleet(workloads, **rest):
    pools = [
        {"name": "a", "model": SMALL, "gpu": "h100_sxm", "replicas": 2},
        {"name": "b", "model": LARGE, "gpu": "a100_sxm_80gb"},
        {"name": "c", "model": LARGE, "gpu": "h100_sxm"},
    ]
    return {"seed": 1, "model": SMALL, "cluster": {"pools": pools}, "workloads": workloads, **rest}


def test_a_workload_names_a_pool_or_a_model():
    workloads = [traffic("one", "a"), traffic("two", LARGE), traffic("three", "c"), traffic("any", "")]
    frame = sim.run(fleet(workloads)).requests
    served = {name: set(rows["replica"]) for name, rows in frame.groupby("workload", observed=True)}
    assert served == {"one": {0, 1}, "two": {2, 3}, "three": {3}, "any": {0, 1, 2, 3}}


def test_pools_add_up_to_the_whole():
    result = sim.run(fleet([traffic("one", "a"), traffic("two", LARGE, 60)]))
    summary, frame = result.summary, result.requests
    pools = summary["pools"]
    assert [pool["requests"] for pool in pools.values()] == [100, *(int((frame["replica"] == replica).sum()) for replica in (2, 3))]
    for key in ("requests_per_s", "output_tokens_per_s"):
        assert sum(pool[key] for pool in pools.values()) == pytest.approx(summary["throughput"][key])
    assert sum(pool["gpus"] for pool in pools.values()) == summary["gpu"]["count"] == 4
    assert sum(pool["usd_total"] for pool in pools.values()) == pytest.approx(summary["cost"]["usd_total"])
    busy = sum(pool["gpus"] * pool["busy_fraction"] for pool in pools.values())
    assert busy == pytest.approx(4 * summary["gpu"]["busy_fraction"])
    small = frame[frame["replica"] < 2]
    for measure in ("ttft", "tpot", "e2e"):
        assert pools["a"][f"{measure}_s"]["p99"] == pytest.approx(np.nanpercentile(small[measure], 99), rel=2e-3)


def test_one_models_traffic_leaves_the_other_alone():
    alone, beside = (sim.run(fleet([traffic("one", "a"), *more])) for more in ([], [traffic("two", LARGE, 300)]))
    for column in ("arrival", "first_token", "last_token"):
        mine = beside.requests[beside.requests["workload"] == "one"]
        np.testing.assert_array_equal(alone.requests[column], mine[column])


def test_one_pool_has_no_figures_of_its_own():
    raw = fleet([traffic("one", "")])
    raw["cluster"]["pools"] = raw["cluster"]["pools"][:1]
    assert sim.run(raw).summary["pools"] is None


def test_a_pool_nobody_asks_for_is_a_remark():
    result = sim.run(fleet([traffic("one", "a")]))
    assert [text for text in result.meta["remarks"] if "no workload" in text] == [f"pool {name}: no workload asks for it" for name in "bc"]
    assert result.summary["pools"]["b"]["requests"] == 0
    assert result.summary["pools"]["b"]["ttft_s"] is None


def test_a_model_nobody_serves_is_an_error():
    with pytest.raises(sim.BadInput) as caught:
        sim.run(fleet([traffic("one", "meta-llama/Llama-3.2-3b")]))
    (problem,) = caught.value.problems
    assert problem.path == "workloads.0.model"
    assert problem.message.startswith("no pool serves 'meta-llama/Llama-3.2-3b'; did you mean meta-llama/Llama-3.2-3B?")


@pytest.mark.parametrize(
    ("study", "shown"),
    [
        ("two_models", ("Pool chat", "Pool code")),
        ("lora", ("Adapters", "Found on the GPU (%):")),
        ("cascade", ("Answered by student (%):", "Mean quality, as given by the user:")),
    ],
)
def test_studies_run_from_the_command_line(study, shown, tmp_path):
    outcome = CliRunner().invoke(main, ["run", str(STUDIES / f"{study}.yaml"), "-o", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    assert all(text in outcome.output for text in shown)
    result = Result.open(tmp_path / "out")
    assert all(check["ok"] for check in result.summary["audit"].values())
    page = render(result)
    assert page == (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("By pool" in page) == (study != "lora")
    assert ("By workload, through the cascade" in page) == (study == "cascade")
    assert ("Quality of teacher, as given by the user" in page) == (study == "cascade")
    assert ("Loaded from storage" in page) == (study == "lora")
