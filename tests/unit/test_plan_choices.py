"""What a plan makes of choices that do not go together plainly: other pools, trainers on shared GPUs, lanes, caches, terms, CPU nodes."""
from __future__ import annotations

import pytest
from plans import exhaustive, layouts, problem

import sim
from sim.core.errors import BadInput
from sim.report.plan import losers, sentences
from sim.spec.prices import book
from sim.study.plan import bounds
from sim.study.run import run

ONE = {"gpu": ["h100_sxm"], "parallel": [{"tp": 1}]}
FEW = {"replicas": {"range": {"min": 1, "max": 6}}}


def split(**plan):
    """Prefill and decode apart, or together."""
    made = problem({"pool": "decode"} | FEW, {"rate": 60, "num_requests": 150})
    for word in ("gpu", "parallel"):
        del made["plan"][word]
    made["plan"] |= plan
    made["cluster"]["pools"] = [{"name": role, "role": role, "gpu": "h100_sxm"} for role in ("prefill", "decode")]
    made["plan"]["vary"] = {"cluster.pools.0.replicas": [1, 2]}
    whole = [{"name": "decode", "gpu": "h100_sxm"}]
    made["plan"]["alternatives"] = [{"name": "apart"}, {"name": "together", "set": {"cluster.pools": whole}}]
    return made


def test_an_alternative_may_have_other_pools():
    """The sized pool stands elsewhere in it, and how many the other one had is no choice of it."""
    made = split()
    able = [one for one in layouts(made) if not one.refused]
    assert [one.words for one in able] == ["prefill replicas 1, apart", "together", "prefill replicas 2, apart"]
    assert [one.pool for one in able] == [1, 0, 1]
    found = sim.plan(made, explain=False)
    assert found.best["usd_per_hour"] == exhaustive(sim.loads(made))[0]
    assert found.whole == 3 * 6


def test_choices_of_the_pool_hold_in_an_alternative_too():
    made = split(precision=["bf16", "fp8"], gpu=["h200_sxm"])
    together = [one for one in layouts(made) if not one.refused and "together" in one.words]
    assert [one.mine.precision.mlp for one in together] == ["bf16", "fp8"]
    assert {one.mine.gpu for one in together} == {"h200_sxm"}


def test_an_alternative_without_the_sized_pool_is_refused():
    made = split()
    made["plan"]["alternatives"][1]["set"] = {"cluster.pools": [{"name": "chat", "gpu": "h100_sxm"}]}
    refused = {one.refused for one in layouts(made) if "together" in one.words}
    assert refused == {"it has no pool named 'decode', which is the one that is sized"}


def test_a_trainer_with_the_gpus_of_the_pool_has_no_number_of_its_own():
    made = problem(ONE | {"vary": {"cluster.trainers.0.gpus": [2, 4]}})
    made["plan"]["alternatives"] = [
        {"name": "apart"}, {"name": "in turns", "set": {"workloads.0.mode": "sync_colocated", "cluster.trainers.0.shares": "serve"}},
    ]  # fmt: skip
    made["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": 1}]
    made["workloads"] = [{"kind": "rl", "mode": "sync_disaggregated", "steps": 2, "prompts": 4, "samples": 4, "prompt": 100,
                          "answers": {"mean": 50, "sigma": 0.5, "cap": 200}}]  # fmt: skip
    made["slo"] = {"rl_step_p50": "1h"}
    able = [one.words for one in layouts(made) if not one.refused]
    assert able == [f"h100_sxm, tp 1, {words}" for words in ("learner gpus 2, apart", "in turns", "learner gpus 4, apart")]


def scaled(**plan):
    made = problem(ONE | {"replicas": {"range": {"min": 1, "max": 4}}} | plan, {"rate": 10, "num_requests": 100})
    made["cluster"]["pools"][0]["autoscale"] = {"min": 1, "max": 6, "policy": {"kind": "concurrency", "target": 8}}
    return made


def test_a_pool_that_is_scaled_is_not_sized_below_what_it_keeps():
    made = scaled(vary={"cluster.pools.0.autoscale.min": [1, 3, 5]})
    one, three, five = layouts(made)
    assert (one.least, three.least) == (1, 3)
    assert three.sized(3).cluster.pools[0].replicas == 3
    assert five.refused == "it keeps at least 5 replicas, and plan.replicas ends at 4"
    made["plan"]["vary"] = {"cluster.pools.0.autoscale.min": [2]}
    found = sim.plan(made)
    assert found.best["layout"].endswith("serve autoscale min 2")
    assert found.best["replicas"] == 2
    assert {row["replicas"] for row in found.runs} <= {2, 3, 4}
    assert found.best["binds_text"].startswith("2 is the fewest there can be")


LANES = {
    "lanes": problem({"gpu": ["h100_sxm"], "parallel": [{"dp": 2}, {"pp": 2}, {"dp": 4}]}, {"rate": 180, "num_requests": 700}),
    "experts": problem({"gpu": ["h100_sxm", "b200"], "parallel": [{"tp": 1}, {"dp": 4, "ep": 4}]},
                       {"rate": 120, "num_requests": 400, "lengths": {"kind": "fixed", "input": 1100, "output": 20}},
                       model="Qwen/Qwen3-30B-A3B", slo={"ttft_p95": "1s"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LANES)
def test_no_fleet_with_lanes_is_smaller_than_its_bound(name):
    """Lanes compute prompts at the same time, and steps are filled with parts of prompts."""
    asked = bounds.demand(run(sim.loads(LANES[name])))
    for layout in layouts(LANES[name]):
        held = next((count for count in range(1, 9) if run(layout.sized(count)).summary["verdict"] != "overloaded"), None)
        assert held is not None
        assert bounds.fewest(layout, asked) <= held


def test_a_bound_is_of_the_traffic_of_its_own_layout():
    """Prompts that are found in the cache, and requests that are turned away, ask for less than the first layout says."""
    prefix = {"shared_prefix": 3000, "lengths": {"kind": "fixed", "input": 3300, "output": 30}, "rate": 30, "num_requests": 300}
    made = problem(ONE | FEW | {"engine": {"enable_prefix_caching": [False, True]}}, prefix)
    found = sim.plan(made, explain=False)
    assert found.best["usd_per_hour"] == exhaustive(sim.loads(made))[0]
    assert found.best["layout"].endswith("enable_prefix_caching True")
    turned = problem(ONE | FEW, slo={"ttft_p50": "500ms"})
    asked = bounds.demand(run(sim.loads(turned)))
    turned["cluster"]["admission"] = {"kind": "max_queue", "limit": 4}
    assert bounds.fewest(layouts(turned)[0], asked) == 1


def test_a_dearer_gpu_makes_rivals_on_the_same_gpu_dearer_too():
    small = {"rate": 60, "num_requests": 60}, {"replicas": [1, 2, 4, 6]}
    found = sim.plan(problem({"gpu": ["h100_sxm", "a100_sxm_80gb"], "parallel": [{"tp": 1}]} | small[1], small[0]))
    [price] = [row for row in found.tornado if row["name"] == "price of the GPUs"]
    assert price["rival"] == "a100_sxm_80gb, tp 1"
    assert price["until"] * found.best["usd_per_hour"] == pytest.approx(price["rival_usd_per_hour"])
    alone = sim.plan(problem({"gpu": ["h100_sxm"]} | small[1], small[0]))
    assert any(row["state"] == "loses" for row in alone.layouts)
    assert all(row["until"] is None for row in alone.tornado)
    assert not any("wins once" in text for text in sentences(alone))


def test_what_costs_the_same_is_not_called_dearer():
    engine = {"max_num_seqs": [128, 256]}
    made = problem(ONE | FEW | {"engine": engine}, {"rate": 10, "num_requests": 100})
    found = sim.plan(made)
    assert [row[:2] for row in losers(found).rows] == [
        ["h100_sxm, tp 1, max_num_seqs 128", "the answer"], ["h100_sxm, tp 1, max_num_seqs 256", "as dear"],
    ]  # fmt: skip
    assert "Next is h100_sxm, tp 1, max_num_seqs 256 for $3.00 an hour, the same." in sentences(found)


def test_nodes_of_sandboxes_are_paid():
    made = problem(ONE | {"vary": {"cluster.sandboxes.0.nodes": [4, 2]}, "replicas": [1]})
    made["cluster"]["sandboxes"] = [{"name": "swe", "nodes": 4, "node": "general_64", "memory": "1GB", "boot": "1s", "price_per_hour": 3.0}]
    made["workloads"] = [{"kind": "evals", "tasks": 1, "samples": 1, "preset": "swe_agent"}]
    made["slo"] = {"task_p95": "5h"}
    four, two = layouts(made)
    gpu = four.bill(1)["h100_sxm"]
    assert (four.hourly(1), two.hourly(1)) == (gpu + 12.0, gpu + 6.0)
    found = sim.plan(made, explain=False)
    assert found.best["layout"].endswith("nodes 2")
    assert found.best["usd_per_hour"] == pytest.approx(found.best["run_usd_per_hour"])


def test_a_source_that_is_no_name_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    source = "{kind: datasheet, what: an offer, date: 2026-03}"
    gpus = f"{{h100_sxm: {{on_demand: {{value: 2, source: {source}}}}}}}"
    path.write_text(f"title: own\nsources:\n  offer: {source}\ngpus: {gpus}\n", "utf-8")
    with pytest.raises(BadInput, match=r"gpus.h100_sxm.on_demand: found a mapping as source; the name of an entry of sources is wanted"):
        book(str(path))


def test_what_has_no_price_is_not_said_not_to_fit(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("title: own\nsources: {a: {kind: datasheet, what: an offer, date: 2026-03}}\n"
                    "gpus: {h100_sxm: {on_demand: {value: 2, source: a}}}\n", "utf-8")  # fmt: skip
    made = problem({"gpu": ["h100_sxm", "l40s"], "parallel": [{"tp": 1}]} | FEW, prices={"book": str(path)})
    rows = {row[0]: row[1] for row in losers(sim.plan(made, explain=False)).rows}
    assert rows["l40s, tp 1"] == "refused"
