"""Plans: the search finds what looking at everything finds, with few runs; answers come apart, and say why where there is none."""
from __future__ import annotations

import json
import math

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import BASE, TEN, exhaustive, layouts, problem
from scenarios import written

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.report.plan import block, render
from sim.study.plan import bounds
from sim.study.plan import plan as study
from sim.study.plan.cheapest import Offer, cheapest
from sim.study.plan.sensitivity import slowed
from sim.study.plan.traffic import busier, longer, scales, shorter
from sim.study.run import run

KINDS = st.tuples(st.integers(1, 40), st.integers(0, 3), st.sampled_from([1.0, 2.5, 4.0, 8.0]))


@settings(max_examples=100, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=12), st.floats(0, 1))
def test_the_search_finds_the_cheapest(layouts, tight):
    """Each is (fewest that hold, how many more it takes to be confirmed, price of one); `tight`: how near a lower bound comes."""
    offers = [Offer(range(1, 33), lambda count, price=price: count * price, int((need - 1) * tight)) for need, _, price in layouts]
    asked = []

    def holds(place, count):
        asked.append((place, count))
        return count >= layouts[place][0]

    found = cheapest([_capped(offer) for offer in offers], holds, lambda place, count: count >= sum(layouts[place][:2]))
    every = [((need + more) * price, place, need + more) for place, (need, more, price) in enumerate(layouts) if need + more <= 32]
    assert (found is None) == (not every)
    if found is not None:
        assert found[1] * layouts[found[0]][2] == min(every)[0]
    assert len(asked) == len(set(asked))


def _capped(offer):
    offer.low = min(offer.low, 32)
    return offer


@pytest.mark.parametrize("name", ["fixed", "fast"])
def test_a_plan_finds_what_looking_at_everything_finds(name):
    _found_by_a_fifth_of_the_runs(TEN[name])


@pytest.mark.study
@pytest.mark.parametrize("name", TEN)
def test_ten_plans_find_what_looking_at_everything_finds(name):
    _found_by_a_fifth_of_the_runs(TEN[name])


def _found_by_a_fifth_of_the_runs(made):
    found = sim.plan(made, explain=False)
    usd, layout, count = exhaustive(sim.loads(made))
    assert found.best["usd_per_hour"] == pytest.approx(usd)
    assert (found.best["layout"], found.best["replicas"]) == (layout, count)
    assert found.searched <= found.whole / 5


@pytest.mark.parametrize("name", ["fixed", "lognormal", "small GPUs"])
def test_no_fleet_smaller_than_its_bound_holds(name):
    asked = bounds.demand(run(sim.loads(TEN[name])))
    tried = 0
    for layout in layouts(TEN[name]):
        fewest = 1 if layout.refused else bounds.fewest(layout, asked)
        if fewest > 1:
            tried += 1
            summary = run(layout.sized(fewest - 1)).summary
            assert summary["verdict"] == "overloaded" or not summary["slo"]["met"]
    assert tried > 1


def test_an_answer_comes_apart(tmp_path):
    path = written(tmp_path, yaml.safe_dump(problem({"growth": [1.0, 2.0], "replications": 4}, {"rate": 120, "num_requests": 200})))
    folder = tmp_path / "out"
    outcome = CliRunner().invoke(main, ["plan", str(path), "-o", str(folder), "--jobs", "1"])
    assert outcome.exit_code == 0, outcome.output
    found = study.read(folder)
    best = found.best
    assert best["pool_gpus"] == best["replicas"] * best["gpus_per_replica"]
    assert best["pool_gpus"] + best["free_gpus"] == best["nodes"] * 8
    assert best["met"] >= 0.95
    assert best["runs"] == 4
    assert best["met_low"] < best["met"] <= best["met_high"]
    assert best["usd_per_hour"] == pytest.approx(best["run_usd_per_hour"])
    assert [row["growth"] for row in found.answers] == [1.0, 2.0]
    assert found.answers[1]["usd_per_hour"] > best["usd_per_hour"]
    assert found.head[0] >= 1.0
    assert {row["name"] for row in found.tornado} == {"kernel times", "traffic", "lengths", "price of the GPUs"}
    for row in found.tornado:
        assert row["low_usd_per_hour"] <= row["was_usd_per_hour"] <= (row["high_usd_per_hour"] or math.inf)
    assert len(found.layouts) == 6
    assert found.layouts[0]["state"] == "best"
    assert all(row["at_least"] >= best["usd_per_hour"] for row in found.layouts[1:] if row["at_least"])
    assert all(row["why"] for row in found.layouts[1:])
    assert found.assumed
    # The saved answer runs again, and holds.
    assert sim.run(folder / "best.yaml").summary["slo"]["met"]
    assert json.loads((folder / "best" / "summary.json").read_text())["slo"]["met"]
    text, page = block(found), (folder / "report.html").read_text()
    assert f"${best['usd_per_hour']:.2f} an hour" in text
    assert text.splitlines()[0] in page
    assert " src=" not in page
    assert "<link" not in page
    assert f"${best['usd_per_hour']:,.2f} an hour" in found._repr_html_()
    again = CliRunner().invoke(main, ["report", str(folder)])
    assert again.exit_code == 0, again.output
    assert (folder / "report.html").read_text() == page
    refused = CliRunner().invoke(main, ["plan", str(path), "-o", str(folder)])
    assert refused.exit_code == 2
    assert "--force" in refused.stderr


def test_what_nothing_can_meet_says_what_is_reachable_and_what_blocks_it(tmp_path):
    slo = {"tpot_p95": "1ms", "ttft_p95": "1s"}
    made = problem({"replicas": {"range": {"min": 1, "max": 4}}}, {"num_requests": 60, "rate": 5}, slo=slo)
    path = written(tmp_path, yaml.safe_dump(made))
    outcome = CliRunner().invoke(main, ["plan", str(path)])
    assert outcome.exit_code == 1
    assert "Nothing that may be chosen meets the SLO" in outcome.output
    assert "TPOT p95" in outcome.output
    assert "a step of one request alone takes" in outcome.output
    found = sim.plan(made)
    assert found.best is None
    assert {row["limit"]: row["ok"] for row in found.reachable} == {"tpot_p95": False, "ttft_p95": True}
    assert "Nothing" in render(found)


def test_too_little_for_the_traffic_is_said_to_be_throughput():
    found = sim.plan(problem({"gpu": ["l40s"], "parallel": [{"tp": 1}], "replicas": [1, 2]}, {"rate": 200}))
    assert found.best is None
    assert found.layouts[0]["state"] == "fails"
    assert "arrivals outrun service" in found.layouts[0]["why"]
    assert found.reachable[0]["verdict"] == "overloaded"


def test_layouts_that_cannot_be_are_refused_before_any_run():
    made = problem({"gpu": ["l4", "h100_sxm"], "parallel": [{"tp": 1}, {"tp": 3}]}, model="Qwen/Qwen2.5-32B")
    refused = {layout.words: layout.refused for layout in layouts(made)}
    assert "does not fit" in refused["l4, tp 1"]
    assert "do not split 3 ways" in refused["h100_sxm, tp 3"]
    assert refused["h100_sxm, tp 1"] == ""


def test_money_is_that_of_gpus_by_how_they_are_bought():
    ways = {"commitment": ["on_demand", "reserved_1y", "spot"]}
    made = problem({"gpu": ["h100_sxm"], "parallel": [{"tp": 2}], **ways}, prices={"book": "neocloud"})
    assert {layout.words: layout.hourly(3) for layout in layouts(made)} == pytest.approx(
        {"h100_sxm, tp 2, on_demand": 18.0, "h100_sxm, tp 2, reserved_1y": 14.4, "h100_sxm, tp 2, spot": 10.8}
    )


def test_nodes_are_counted_with_the_gpus_that_stay_free():
    [layout] = layouts(problem({"gpu": ["h100_sxm"], "parallel": [{"tp": 4}]}))
    assert (layout.nodes(2), layout.nodes(3), layout.gpus(3)) == ((1, 0), (2, 4), 12)
    made = problem({"parallel": [{"tp": 4}]})
    made["cluster"]["pools"].append({"name": "other", "gpu": "h100_sxm", "replicas": 3, "parallel": {"tp": 2}})
    beside = layouts(made | {"plan": made["plan"] | {"pool": made["cluster"]["pools"][0].setdefault("name", "serve")}})[0]
    assert (beside.nodes(1), beside.nodes(2), beside.gpus(2)) == ((2, 6), (2, 2), 14)


def test_a_pool_that_is_scaled_is_sized_by_its_bound():
    made = problem({"gpu": ["h100_sxm"], "parallel": [{"tp": 1}]})
    made["cluster"]["pools"][0]["autoscale"] = {"min": 1, "max": 2, "policy": {"kind": "concurrency", "target": 8}}
    [layout] = layouts(made)
    pool = layout.sized(5).cluster.pools[0]
    assert (pool.autoscale.min, pool.autoscale.max, pool.replicas) == (1, 5, 1)
    assert layout.hourly(5) == layout.hourly(1)
    assert layout.gpus(5) == 5
    made["plan"]["replicas"] = {"range": {"min": 1, "max": 4}}
    made["workloads"][0]["rate"] = 10
    found = sim.plan(made, explain=False).best
    # What it cost is known by the run alone.
    assert 0.999 * layout.hourly(1) <= found["usd_per_hour"] <= 1.001 * found["replicas"] * layout.hourly(1)


def test_prefill_and_decode_are_split():
    made = problem({"pool": "decode", "vary": {"cluster.pools.0.replicas": [1, 2, 3]}}, {"rate": 60, "num_requests": 300})
    for word in ("gpu", "parallel"):
        del made["plan"][word]
    made["cluster"]["pools"] = [{"name": role, "role": role, "gpu": "h100_sxm"} for role in ("prefill", "decode")]
    found = sim.plan(made, explain=False)
    assert {row["layout"] for row in found.layouts} == {f"prefill replicas {count}" for count in (1, 2, 3)}
    prefill = found.answer.cluster.pools[0].replicas
    assert found.best["gpus"] == prefill + found.best["replicas"]
    usd, _, _ = exhaustive(sim.loads(made))
    assert found.best["usd_per_hour"] == usd


def test_a_trainer_on_the_gpus_of_the_pool_grows_with_it():
    made = problem({"parallel": [{"tp": 2}], "gpu": ["h100_sxm"]})
    made["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": 1, "shares": "serve"}]
    made["workloads"] = [{"kind": "rl", "mode": "sync_colocated", "steps": 2, "prompts": 4, "samples": 4, "prompt": 100,
                          "answers": {"mean": 50, "sigma": 0.5, "cap": 200}}]  # fmt: skip
    made["slo"] = {"rl_step_p50": "1h"}
    [layout] = layouts(made)
    assert [layout.sized(count).cluster.trainers[0].gpus for count in (1, 3)] == [2, 6]
    assert layout.gpus(3) == 6
    found = sim.plan(made, explain=False)
    assert found.best["gpus"] == found.best["pool_gpus"]


def test_of_many_layouts_optuna_looks_at_some():
    pytest.importorskip("optuna", reason="Optuna chooses among many layouts, and is not installed")
    engine = {"max_num_seqs": [64, 128, 256], "max_num_batched_tokens": [512, 1024, 2048, 4096], "gpu_memory_utilization": [0.7, 0.8, 0.9]}
    made = problem({"engine": engine, "trials": 12, "replicas": {"range": {"min": 1, "max": 4}}}, {"num_requests": 100})
    found = sim.plan(made, explain=False)
    assert len(found.layouts) == 12
    assert found.best is not None
    assert sim.plan(made, explain=False).best == found.best


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"plan": None}, "has no plan"),
        ({"slo": {"attainment": 0.9}}, "has no limits"),
        ({"plan.replicas": {"range": {"min": 8, "max": 4}}}, "min is the smaller one"),
        ({"plan.replicas": [0, 1]}, "whole numbers from 1 on"),
        ({"plan.gpu": []}, "at least 1 is wanted"),
        ({"plan.gpu": ["h100_sxm", "h100_sxm"]}, "twice"),
        ({"plan.gpus": ["h100_sxm"]}, "unknown key of plan"),
        ({"plan.growth": [2.0, 1.0]}, "growth has to rise"),
        ({"plan.pool": "server"}, "no pool is named 'server'"),
        ({"plan.vary": {"cluster.pools.0.gpuu": [1]}}, "unknown key 'gpuu'"),
        ({"plan.vary": {"cluster.pools.0.replicas": [1, 2]}}, "what is searched"),
        ({"plan.vary": {"cluster.pools.0.gpu": ["l4"]}}, "plan.gpu chooses it already"),
        ({"plan.alternatives": [{"name": "a", "set": {"workloads.0.ratee": 3}}]}, "unknown key 'ratee'"),
        ({"plan.commitment": ["spot"]}, "only with a price book"),
        ({"cluster.pools.0.price_per_hour": 2}, "name a price book"),
        ({"plan.meets": 2}, "at most 1"),
    ],
)
def test_searches_that_cannot_be_are_refused(tmp_path, sets, said):
    made = yaml.safe_load(sim.dump(sim.loads(problem())))
    for key, value in sets.items():
        *way, last = key.split(".")
        here = made
        for name in way:
            here = here[int(name)] if isinstance(here, list) else here[name]
        here[last] = value
    path = written(tmp_path, yaml.safe_dump(made))
    outcome = CliRunner().invoke(main, ["plan", str(path)])
    assert outcome.exit_code == 2, outcome.output
    assert said in outcome.stderr
    if "plan" not in sets:
        assert f"{path}:" in outcome.stderr


def test_a_folder_with_a_damaged_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(BadInput, match="holds no plan of this version"):
        study.read(tmp_path)


def test_traffic_grows_and_shrinks_in_the_same_time():
    scenario = sim.loads(BASE)
    twice, half = busier(scenario, 2.0).workloads[0], shorter(scenario, 0.5).workloads[0]
    assert (twice["rate"], twice["num_requests"]) == (120.0, 800)
    assert (half["rate"], half["num_requests"]) == (60.0, 200)
    assert scales(scenario, longer)
    assert set(run(longer(scenario, 1.5)).tables["requests"]["input_tokens"]) == {1200}


def test_slower_kernels_make_longer_steps():
    scenario = sim.loads(problem(work={"rate": 2, "num_requests": 40}))
    tpot = [run(slowed(scenario, times)).summary["tpot_s"]["mean"] for times in (0.8, 1.0, 1.25)]
    assert tpot[0] < tpot[1] < tpot[2]
    assert tpot[2] / tpot[1] == pytest.approx(1.25, rel=0.05)
