"""The parts of a page about a fleet: replicas that come and go, regions, links, money, and where the figures of the network come from."""
from __future__ import annotations

import re

import numpy as np
import pytest
from synthetic import pool, queue, serve

import sim
from sim.report import callers, economics, fleet, links
from sim.report.ladder import sentence, whole
from sim.report.page import render
from sim.report.words import seconds
from sim.spec.load import dump, loads
from sim.study.assumptions import site, starts
from sim.study.metrics import Facts
from sim.study.verdict import verdict

MODEL = "Qwen/Qwen2.5-0.5B"
LENGTHS = {"kind": "fixed", "input": 500, "output": 20}
STORES = [{"name": "models", "bandwidth": "500MB/s"}]


def crowd(region=""):
    where = {"region": region} if region else {}
    return [
        {"kind": "poisson", "name": "calm", "rate": 2, "duration": "60s", "lengths": LENGTHS} | where,
        {"kind": "poisson", "name": "crowd", "rate": 150, "start": "20s", "duration": "12s", "lengths": LENGTHS} | where,
    ]


@pytest.fixture(scope="module")
def grown():
    """A pool of one replica that grows to six, whose weights come over the network from a store."""
    autoscale = {"min": 1, "max": 6, "every": "1s", "lag": "500ms", "policy": {"kind": "hpa", "target": {"concurrency": 2}}}
    serving = {
        "name": "serve", "gpu": "h100_sxm", "engine": {"max_num_seqs": 4}, "autoscale": autoscale,
        "start": {"image": "1s", "weights": {"store": "models"}, "init": "2s"},
    }  # fmt: skip
    network = {"fabric": "hgx_leaf_spine", "hosts": [{"gpu": "h100_sxm", "count": 1}], "stores": STORES}
    prices = {"book": "neocloud", "commitment": {"serve": "reserved_1y"}, "reserved": {"serve": 1}}
    return sim.run({
        "name": "grown", "model": MODEL, "cluster": {"pools": [serving], "network": network}, "workloads": crowd(), "prices": prices,
    })  # fmt: skip


@pytest.fixture(scope="module")
def page(grown):
    return render(grown)


@pytest.fixture(scope="module")
def apart():
    """Two regions, one of which has all the traffic and spills over."""
    pools = [{"name": f"in_{region}", "region": region, "gpu": "h100_sxm", "engine": {"max_num_seqs": 4}} for region in ("us", "eu")]
    cluster = {
        "pools": pools, "regions": [{"between": ["us", "eu"], "latency": "40ms"}],
        "router": {"kind": "spill_over", "threshold": 4, "by": "in_flight"},
    }  # fmt: skip
    quiet = {"kind": "poisson", "name": "quiet", "region": "eu", "rate": 1, "duration": "60s", "lengths": LENGTHS}
    return sim.run({"name": "apart", "model": MODEL, "cluster": cluster, "workloads": [*crowd("us"), quiet]})


def by_title(parts):
    return {part.title: part for part in parts}


# -- replicas ------------------------------------------------------------------
def test_the_stages_of_a_start_add_up_to_it(grown):
    (sheet,) = fleet.sheets(Facts(grown), grown.summary)
    stages = grown.summary["scaling"]["stages"]
    assert [row[0] for row in sheet.rows] == ["weights", "engine", "CUDA graphs", "wanted to ready"], "the host has the image"
    total = grown.summary["scaling"]["wanted_to_ready"]["mean"]
    assert sum(stages[name]["mean"] for name in ("weights", "init", "capture")) == pytest.approx(total, rel=1e-9)
    assert sheet.rows[-1][2] == seconds(total)
    assert sum(float(row[-1].rstrip("%")) for row in sheet.rows[:-1]) == pytest.approx(100, abs=0.2)


def test_what_comes_before_a_start_is_said(grown):
    (sheet,) = fleet.sheets(Facts(grown), grown.summary)
    assert "it looks every 1 s and acts 500 ms later" in sheet.note


def test_replicas_are_drawn_against_requests(grown):
    drawn = by_title(fleet.plots(Facts(grown), grown.summary))
    assert set(drawn) == {"Replicas against requests", "From wanted to ready"}
    replicas, waterfall = drawn["Replicas against requests"], drawn["From wanted to ready"]
    assert "still starting while requests queued were wanted too late" in replicas.note
    assert all(word in replicas.svg for word in ("ready", "starting", "wanted", "in flight", "of them queued", "arrivals per second"))
    assert re.search(r"Longest: (CUDA graphs|weights), \d\d% of all starting time", waterfall.note)


def test_a_pool_that_is_never_late_is_not_called_late():
    autoscale = {"min": 1, "max": 3, "every": "1s", "policy": {"kind": "hpa", "target": {"concurrency": 50}}}
    result = sim.run({"name": "idle", "model": MODEL, "cluster": {"pools": [{"gpu": "h100_sxm", "autoscale": autoscale}]},
                      "workloads": [{"kind": "poisson", "rate": 2, "num_requests": 60, "lengths": LENGTHS}]})  # fmt: skip
    (replicas,) = fleet.plots(Facts(result), result.summary)
    assert "too late" not in replicas.note
    assert "of them queued" not in replicas.svg
    assert fleet.sheets(Facts(result), result.summary) == []


def test_a_fixed_fleet_has_none_of_it():
    result = queue(0.5, 60)
    assert fleet.panels(result.summary) == []
    assert fleet.sheets(Facts(result), result.summary) == []
    assert list(fleet.plots(Facts(result), result.summary)) == []
    assert by_title(callers.sheets(result.summary)) == {}
    assert list(callers.plots(Facts(result), result.summary)) == []
    assert links.sheets(result.summary) == []
    assert economics.sheets(Facts(result)) == []


def test_the_head_of_a_page_says_what_changes(page):
    assert "on up to 6 × h100_sxm. Traffic: 2 × poisson." in page
    assert "at most 6 GPUs; MFU" in page


# -- links, money ----------------------------------------------------------------
def test_the_store_is_the_busiest_link_and_what_held_transfers_back(grown):
    found = by_title(links.sheets(grown.summary))
    assert found["Busiest links"].rows[0][:2] == ["store.models.out", "store"]
    bound = found["What held transfers back"].rows[0]
    assert bound[:2] == ["store.models.out", str(grown.summary["network"]["transfers"]["weights"]["count"])]
    assert "store.models.out" in next(iter(links.plots(Facts(grown)))).svg


def test_money_by_pool_says_what_is_reserved(grown):
    (sheet,) = economics.sheets(Facts(grown))
    assert len(sheet.heads) == len(sheet.rows[0])
    assert sheet.rows[0][sheet.heads.index("Reserved")] == "1"
    assert "bought on demand" in sheet.note


def test_columns_without_a_figure_are_left_out():
    result = sim.run({"name": "plain", "model": MODEL, "cluster": {"pools": [{"gpu": "h100_sxm"}]}, "prices": {"book": "neocloud"},
                      "workloads": [{"kind": "poisson", "rate": 2, "num_requests": 20, "lengths": LENGTHS}]})  # fmt: skip
    (sheet,) = economics.sheets(Facts(result))
    assert len(sheet.heads) == len(sheet.rows[0])
    assert "Reserved" not in sheet.heads
    assert "" not in sheet.rows[0]


# -- regions -----------------------------------------------------------------------
def test_origins_against_regions(apart):
    sheet = by_title(callers.sheets(apart.summary))["Where requests were served"]
    requests = apart.requests
    home = {"in_us": "us", "in_eu": "eu"}
    pools = [home[name] for name in apart.tables["replicas"].to_pandas()["pool"]]
    at = np.array(pools)[requests["replica"]]
    names = apart.tables["requests"].labels["workload"]
    from_us = requests["workload"].isin([name for name in names if name != "quiet"]).to_numpy()
    assert sheet.rows[0][0] == "us"
    told = [int(cell.replace(",", "")) for cell in sheet.rows[0][1:4]]
    assert told == [from_us.sum(), (at[from_us] == "us").sum(), (at[from_us] == "eu").sum()]


def test_what_spilled_over_is_drawn_over_time(apart):
    (plot,) = callers.plots(Facts(apart), apart.summary)
    most = re.search(r"from us up to (\d+)% is served elsewhere, from eu up to (\d+)%", plot.note)
    assert most
    assert int(most[1]) > 20
    assert "of them served elsewhere" in plot.svg


# -- provenance ----------------------------------------------------------------------
def test_the_page_says_where_figures_of_the_network_come_from(grown, page):
    figures = grown.scenario.cluster.network.figures()
    section = page[page.index("Figures of the network") :]
    assert {row["name"] for row in grown.meta["provenance"]["the network"]} == set(figures)
    for figure in figures.values():
        assert figure.source.replace("&", "&amp;") in section
    assert "50 GB/s" in section
    assert "900 ns" in section
    assert "Figures of starts" in page


def test_what_a_scenario_gives_itself_is_no_assumption(grown):
    """The weights come from a store and the image takes a time given; the engine's start is given too."""
    assert [row["name"] for row in grown.meta["provenance"]["starts"]] == ["capture_seconds"]
    assert starts(grown.scenario.cluster.pools[0].start)["capture_seconds"].kind == "judgement"


def test_a_saved_scenario_assumes_the_same(grown, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(dump(grown.scenario), encoding="utf-8")
    assert site(sim.load(path))["provenance"] == grown.meta["provenance"]


def test_the_weakest_figure_counts_that_of_the_network(grown):
    assert grown.summary["provenance"]["worst"] == "judgement"
    result = queue(0.5, 60, pools=[pool(provenance=[{"name": "tdp", "value": 1.0, "kind": "measured", "source": "", "date": ""}])])
    assert result.summary["provenance"]["worst"] == "measured"
    result = queue(0.5, 60, pools=result.meta["pools"])
    result.meta["provenance"] = {"the network": [{"name": "a", "value": 1.0, "kind": "datasheet", "source": "", "date": ""}]}
    assert result.summary["provenance"]["worst"] == "datasheet"


def test_no_network_no_figures_of_it():
    scenario = loads({"name": "plain", "model": MODEL, "cluster": {"pools": [{"gpu": "h100_sxm"}]},
                      "workloads": [{"kind": "poisson", "rate": 1, "num_requests": 1, "lengths": LENGTHS}]})  # fmt: skip
    assert site(scenario)["provenance"] == {}


def test_pools_that_are_alike_are_said_once():
    result = queue(0.5, 60, pools=[pool(name, extrapolated=["fp8 was never measured"]) for name in ("serve", "spare")])
    assert result.summary["provenance"]["extrapolations"] == ["serve, spare: fp8 was never measured"]


# -- verdicts ------------------------------------------------------------------------
def test_a_rate_that_rises_is_no_filling():
    """Requests in the system grow with the rate at which they come: that is the traffic, and not a run that is too short."""
    rng = np.random.Generator(np.random.PCG64(2))
    arrivals = np.sort(600 * np.sqrt(rng.uniform(0.05, 1, 3000)))
    judged = verdict(serve(arrivals, np.full(3000, 20), replicas=12))
    assert judged.word == "stable"
    assert "run longer" not in judged.reason


def test_few_is_not_none():
    arrivals = np.concatenate([np.arange(2000.0), [1000.0] * 8])
    judged = verdict(serve(np.sort(arrivals), np.full(2008, 20)))
    assert re.search(r"0\.\d\d?% of the requests queued for longer than 1 s", judged.reason)


# -- ladders that change latency alone ---------------------------------------------------
def step(name, **changes):
    return {
        "name": name, "kept": True, "needed_gpus": 24, "needed_usd_per_million_output_tokens": 9.0, "audit_ok": True, "cost_factor": 1.0,
        "needed_output_tokens_per_s_per_gpu": 8.0, "throughput_factor": 1.0, "ttft_p95": 1.0, "tpot_p95": 0.02,
    } | changes  # fmt: skip


def test_a_ladder_that_saves_no_gpu_says_what_it_changes():
    rows = [step("first"), step("second", tpot_p95=0.01)]
    assert whole(rows) == (
        "From first to second: the GPUs needed (24) and the price of a token do not change; on the fleet as written TPOT p95 falls from "
        "20 ms to 10 ms."
    )
    assert whole([step("first"), step("second")]).endswith("and neither does latency.")
    assert sentence(rows[1], rows).startswith("Needs 24 GPUs too: no difference to throughput or money. On the fleet as written TPOT p95")
