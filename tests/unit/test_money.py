"""Money, energy by phase and carbon against numbers that can be worked out by hand; price books and grids; the sweep of speed and cost."""
from __future__ import annotations

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from synthetic import PROMPT_SECONDS, SLOPE, STEP, edit, pool, serve

from sim.cli import main
from sim.core.errors import BadInput
from sim.core.request import FAILED
from sim.physics.power import IDLE_HOST
from sim.spec.load import dump, load, loads
from sim.spec.power import HOURS, grid, grid_names
from sim.spec.prices import book, book_names
from sim.study import speed_cost
from sim.study.energy import prefill_share, site_joules
from sim.study.metrics import METRICS, Facts, summarise
from sim.study.money import paid, phases_usd
from sim.study.run import run

BASE = {
    "model": "meta-llama/Llama-3.1-8B",
    "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "closed", "concurrency": 2, "num_requests": 8, "lengths": {"kind": "fixed", "input": 100, "output": 20}}],
}
BUSY = 2 * PROMPT_SECONDS + 10 * (STEP + SLOPE * 9 / 2)
SPAN = 1 + PROMPT_SECONDS


def two(**changes):
    """Two requests of 11 and 1 tokens at 0 s and 1 s: PROMPT_SECONDS each for 100 prompt tokens, ten decode steps for the first."""
    return serve(np.array([0.0, 1.0]), np.array([11, 1]), **changes)


def with_(**changes):
    return BASE | changes


# -- money ------------------------------------------------------------
def test_prompts_and_answers_sum_to_the_whole():
    facts = Facts(two())
    assert phases_usd(facts).sum() == pytest.approx(3.6 * SPAN / 3600)
    assert phases_usd(facts)[0] / phases_usd(facts).sum() == pytest.approx(2 * PROMPT_SECONDS / BUSY)
    cost = summarise(two())["cost"]
    assert cost["input_usd_per_million"] == pytest.approx(phases_usd(facts)[0] / 200 * 1e6)
    assert cost["output_usd_per_million"] == pytest.approx(phases_usd(facts)[1] / 12 * 1e6)
    assert cost["usd_idle"] == pytest.approx(3.6 / 3600 * (SPAN - BUSY))
    assert cost["usd_per_hour_peak"] == pytest.approx(3.6)
    assert cost["usd_by_hour"] == pytest.approx([3.6 * SPAN / 3600])
    assert cost["gpu_hours_by_hour"] == pytest.approx([SPAN / 3600])
    assert cost["usd_wasted"] == cost["usd_storage"] == cost["usd_egress"] == 0


def test_a_mixed_step_is_divided_by_what_each_part_needs_alone():
    result = two()
    mixed = {"prefills": 1, "prefill_tokens": 1000, "prefill_pairs": 5e5, "steps": 1, "decoders": 8, "held": 8000, "tokens": 8.0}
    for column, value in mixed.items():
        edit(result.tables["stretches"], column, 0, value)
    (page,) = Facts(result).stretches()
    chunks = (1000 * 2e9 + 5e5 * 1e5) / 1e15
    weights = 2e9 / 3e12
    decoders = max((8 * 2e9 + 8008 * 1e5) / 1e15, weights + 8000 * 1e5 / 3e12)
    assert prefill_share(page) == pytest.approx([max(chunks, weights) / (max(chunks, weights) + decoders), 0, 1])


def replicas(*lives, **changes):
    """A run of 2 h with replicas that live from start to end, h."""
    result = serve(np.zeros(len(lives)), np.full(len(lives), 2), replicas=len(lives), **changes)
    for row, (start, end) in enumerate(lives):
        edit(result.tables["replicas"], "start", row, start * 3600.0)
        edit(result.tables["replicas"], "end", row, end * 3600.0)
    result.meta["sim_s"] = 7200.0
    return result


def test_every_bill_ends_with_the_run():
    """A replica's start and its lifetime may sum to just beyond the end; pools whose bills end apart have no dearest moment."""
    start, end = 0.042300000000000004, 12.709952539000001
    assert start + (end - start) > end
    result = replicas((0, 3))
    result.meta["sim_s"] = end
    edit(result.tables["replicas"], "start", 0, start)
    facts = Facts(result)
    assert paid(facts, "serve").times[-1] == facts.end


def test_on_demand_replicas_are_paid_for_their_lives():
    cost = summarise(replicas((0, 2), (0.5, 1.5)))["cost"]
    assert cost["usd_total"] == pytest.approx(3.6 * 3)
    assert cost["usd_per_hour_peak"] == pytest.approx(7.2)
    assert cost["usd_by_hour"] == pytest.approx([5.4, 5.4])
    assert cost["gpu_hours_by_hour"] == pytest.approx([1.5, 1.5])


def test_reserved_replicas_are_paid_all_the_time_and_the_rest_on_demand():
    terms = pool(price_per_hour=2.0, beyond_price_per_hour=5.0, reserved=2)
    facts = Facts(replicas((0, 1), (0, 2), (0, 0.5), pools=[terms]))
    bill = paid(facts, "serve")
    assert bill.usd == pytest.approx(2 * 2 * 2.0 + 0.5 * 5.0)
    assert bill.rates.max() == pytest.approx(2 * 2.0 + 5.0)


def test_bytes_between_regions_are_charged_by_the_book():
    result = two()
    result.meta["other_prices"] = {"egress_gb": 0.09}
    links = result.tables["links"]
    for name, kind, size in (("a", "wan", 5e9), ("b", "wan", 1e9), ("c", "nic", 7e9)):
        links.append((links.label("link", name), links.label("kind", kind), 1e9, 0.0, size, 1.0, 0.0))
    cost = summarise(result)["cost"]
    assert cost["usd_egress"] == pytest.approx(0.54)
    assert cost["usd_total"] == pytest.approx(3.6 * SPAN / 3600 + 0.54)


def test_answers_that_failed_are_waste():
    result = two()
    edit(result.tables["requests"], "status", 0, FAILED)
    result.tables["losses"].append((0, 0, 0.1, np.nan, 111))
    facts = Facts(result)
    prefill, decode = phases_usd(facts)
    assert METRICS["cost.usd_wasted"].of(facts) == pytest.approx(prefill * 100 / 200 + decode)


# -- energy and carbon ------------------------------------------------------------
def test_site_energy_is_gpus_and_hosts_times_the_pue():
    result = two(power={"pue": 1.5})
    energy = summarise(result)["energy"]
    host = 300 * (IDLE_HOST * SPAN + (1 - IDLE_HOST) * BUSY) / 3.6e6
    assert energy["node_kwh"] == pytest.approx(energy["kwh"] + host)
    assert energy["site_kwh"] == pytest.approx(1.5 * energy["node_kwh"])
    assert energy["idle_share"] == pytest.approx(70 * (SPAN - BUSY) / 3.6e6 / energy["kwh"])


def test_energy_by_phase_and_between_steps_sum_to_all_of_it():
    energy = summarise(two())["energy"]
    parts = energy["prefill_joules_per_token"] * 200 + energy["decode_joules_per_token"] * 10 + 70 * (SPAN - BUSY)
    assert parts == pytest.approx(energy["kwh"] * 3.6e6)


def test_carbon_goes_by_the_hour_of_the_day():
    hours = [100.0 * hour for hour in range(20)] + [0.0] * 4
    result = replicas((0, 2), carbon={"grid": hours, "start_hour": 5, "embodied": {"kg_per_gpu": 365.25, "years": 1}})
    result.meta["grids"] = {"serve": {"grid": "own", "hours": hours, "kind": "judgement", "source": ""}}
    joules = site_joules(Facts(result))[0]
    carbon = summarise(result)["carbon"]
    assert carbon["grams_by_hour"] == pytest.approx([joules[0] / 3.6e6 * 500, joules[1] / 3.6e6 * 600])
    assert carbon["embodied_grams"] == pytest.approx(1000 / 24 * 2)
    assert carbon["grams"] == pytest.approx(sum(carbon["grams_by_hour"]) + carbon["embodied_grams"])


def test_no_grid_no_carbon():
    assert set(summarise(two())["carbon"].values()) == {None}


# -- books and grids ------------------------------------------------------------
def test_catalogue_reads():
    for name in book_names():
        known = book(name)
        assert set(known.others) == {"vcpu_hour", "ram_gb_hour", "storage_gb_month", "egress_gb"}
        assert all(prices["reserved_3y"] < prices["reserved_1y"] < prices["on_demand"] for prices in known.gpus.values())
    for name in grid_names():
        assert len(grid(name).hours) == HOURS
    # The dip of the afternoon in California is at night in UTC.
    assert np.argmin(grid("us_california").hours) in (20, 21)
    assert grid(55).hours == (55.0,) * HOURS


def test_prices_of_the_book_reach_the_bill():
    said = {"book": "neocloud", "commitment": {"serve": "reserved_1y"}}
    result = run(with_(prices=said, carbon={"grid": "france"}))
    (facts,) = result.meta["pools"]
    assert (facts["price_per_hour"], facts["beyond_price_per_hour"], facts["reserved"]) == (2.4, 3.0, 1)
    assert result.summary["cost"]["usd_per_hour"] == pytest.approx(2.4)
    assert result.summary["carbon"]["grams_per_kwh"] == pytest.approx(60, abs=6)
    assert {"price_per_hour.reserved_1y", "price_per_hour.on_demand"} <= {row["name"] for row in facts["provenance"]}
    assert run(BASE).summary["cost"]["usd_per_hour"] == pytest.approx(3.0)


def test_a_scenario_with_prices_is_written_and_read_back():
    scenario = loads(with_(prices={"book": "neocloud"}, carbon={"grid": [1.0] * 24}, power={"pue": 1.1}))
    assert loads(yaml.safe_load(dump(scenario))) == scenario


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prices": {"book": "neoclod"}}, "did you mean neocloud"),
        ({"prices": {"book": "hyperscaler"}, "cluster": {"pools": [{"gpu": "h20"}]}}, "no on_demand price of h20, which pool serve uses"),
        ({"prices": {"book": "neocloud", "commitment": {"serv": "spot"}}}, "did you mean serve"),
        ({"prices": {"book": "neocloud", "reserved": {"serve": 2}}}, "commitment: {serve: reserved_1y}"),
        ({"carbon": {"grid": "frankreich"}}, "unknown grid 'frankreich'"),
        ({"carbon": {"grid": [1.0, 2.0]}}, "24 are wanted"),
        ({"carbon": {"pools": {"other": 5}}}, "no pool has this name"),
        ({"carbon": {"grid": 5, "regions": {"west": 5}}}, "no pool has this region"),
        ({"carbon": {"start_hour": 3}}, "pool serve has no grid, and none is taken for it"),
    ],
)  # fmt: skip
def test_what_is_missing_is_asked_for(changes, words):
    with pytest.raises(BadInput) as caught:
        loads(with_(**changes))
    assert words in str(caught.value)


def test_a_wrong_book_says_all_that_is_wrong(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: mine\nsources: {a: {kind: judgement, date: 2025, what: x}}\n"
                    "gpus: {h100_sxm: {on_demnd: {value: 1, source: a}, spot: {value: -1, source: b}}}\nvcpu: 1\n", "utf-8")  # fmt: skip
    with pytest.raises(BadInput) as caught:
        loads(with_(prices={"book": str(path)}))
    for words in ("did you mean on_demand", "found -1", "vcpu: unknown key"):
        assert words in str(caught.value)


def test_storage_of_tiers_is_charged_or_asked_for(tmp_path):
    tiers = {"kv_tiers": [{"kind": "remote", "capacity": "1TB", "bandwidth": "10GB/s"}]}
    cluster = {"pools": [{"gpu": "h100_sxm", "engine": tiers}]}
    result = run(with_(cluster=cluster, prices={"book": "neocloud"}))
    seconds = Facts(result).span
    assert result.summary["cost"]["usd_storage"] == pytest.approx(0.05 * 1000 * seconds / (365.25 / 12 * 86400))
    bare = tmp_path / "bare.yaml"
    gpus = "gpus: {h100_sxm: {on_demand: {value: 1, source: a}}}"
    bare.write_text(f"title: t\nsources: {{a: {{kind: judgement, date: 2025, what: x}}}}\n{gpus}\n", "utf-8")
    with pytest.raises(BadInput, match=r"keeps KV in remote, and book .*bare.yaml has no storage_gb_month"):
        loads(with_(cluster=cluster, prices={"book": str(bare)}))


def test_a_cap_slows_a_run_and_says_where_it_is_wrong():
    free, capped = run(BASE), run(with_(cluster={"pools": [{"gpu": "h100_sxm", "power_cap": 300}]}))
    assert capped.meta["sim_s"] > free.meta["sim_s"]
    assert capped.summary["energy"]["gpu_watts"] < 300
    with pytest.raises(BadInput) as caught:
        run(with_(cluster={"pools": [{"gpu": "h100_sxm", "power_cap": 5000}]}))
    assert caught.value.problems[0].path == "cluster.pools.0.power_cap"


def test_both_engines_agree_under_a_cap():
    cap = {"gpu": "h100_sxm", "power_cap": 300}
    fast, plain = (run(with_(cluster={"pools": [cap | {"engine": {"exact_steps": exact}}]})) for exact in (False, True))
    assert fast.meta["sim_s"] == pytest.approx(plain.meta["sim_s"], rel=1e-9)


# -- speed against cost ------------------------------------------------------------
CURVE = {"concurrency": [1, 4], "vary": {"cluster.pools.0.parallel.tp": [1, 2]}, "rounds": 2}


def test_the_sweep_runs_every_point_and_goes_on_where_it_stopped(tmp_path):
    scenario = loads(with_(curve=CURVE))
    speed_cost.prepare(scenario, tmp_path, False)
    steps = list(speed_cost.sweep(scenario, tmp_path))
    assert [len(step.rows) for step in steps] == [1, 2, 3, 4]
    rows = steps[-1].rows
    assert [(row["layout"], row["concurrency"]) for row in rows] == [("tp 1", 1), ("tp 1", 4), ("tp 2", 1), ("tp 2", 4)]
    assert rows[1]["output_tokens_per_s_per_gpu"] > rows[0]["output_tokens_per_s_per_gpu"]
    assert rows[2]["tokens_per_s_per_user"] == pytest.approx(1 / rows[2]["tpot_mean"])
    (again,) = speed_cost.sweep(scenario, tmp_path)
    assert again.rows == rows == speed_cost.read(tmp_path).rows
    speed_cost.prepare(scenario, tmp_path, False)
    with pytest.raises(BadInput, match="another scenario"):
        speed_cost.prepare(loads(with_(curve=CURVE | {"rounds": 3})), tmp_path, False)


def test_the_frontier_is_what_nothing_beats():
    rows = [{"tokens_per_s_per_user": x, "output_tokens_per_s_per_gpu": y} for x, y in ((10, 1), (5, 5), (4, 5), (1, 9), (None, None))]
    assert [row["frontier"] for row in speed_cost.marked(rows)] == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workloads": [BASE["workloads"][0], BASE["workloads"][0]]}, "kind closed"),
        ({"curve": CURVE | {"vary": {"cluster.pools.0.paralel.tp": [1]}}}, "tp 1: cluster.pools.0.paralel"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        speed_cost.points(loads(with_(curve=CURVE, **changes) if "curve" not in changes else with_(**changes)))


def test_a_ladder_and_a_curve_are_two_studies():
    with pytest.raises(BadInput, match="a ladder and a curve"):
        loads(with_(curve=CURVE, ladder=[{"name": "a", "set": {}}, {"name": "b", "set": {"seed": 1}}]))


def test_it_runs_from_the_command_line(tmp_path):
    path, out = tmp_path / "curve.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(with_(curve=CURVE | {"vary": {}})), "utf-8")
    done = CliRunner().invoke(main, ["run", str(path), "-o", str(out)])
    assert (done.exit_code, "tok/s/user" in done.output) == (0, True)
    assert {"curve.json", "curve.csv", "report.html", "scenario.yaml"} <= {entry.name for entry in out.iterdir()}
    (out / "report.html").unlink()
    assert CliRunner().invoke(main, ["report", str(out)]).exit_code == 0
    assert "speed against cost" in (out / "report.html").read_text("utf-8")


def test_the_page_shows_the_frontier(tmp_path):
    from sim.report.curve import block, render

    (*_, found) = speed_cost.sweep(loads(with_(curve=CURVE, name="curve & co", carbon={"grid": "world"})))
    page = render(found)
    assert "curve &amp; co" in page
    assert page.count("<svg") == 2
    assert "gCO2e/Mtok" in block(found)
    assert "is the fastest for a user" in page


def test_the_study_loads():
    assert len(speed_cost.points(load("configs/studies/speed_vs_cost.yaml"))) == 27
