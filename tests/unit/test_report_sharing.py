"""The parts of a page about shared GPUs, and the figures behind them: what was lent, and what a trainer and engines have in turn."""
from __future__ import annotations

import re

import pytest
from lent import MODEL, driven, poisson
from lent import scenario as lending

import sim
from sim.report import fleet, sharing
from sim.report.inventory import inventory, text
from sim.report.page import CHECKS, render
from sim.report.text import block
from sim.spec.load import loads
from sim.study.metrics import Facts
from tests.unit.hybrid_runs import plugged
from tests.unit.hybrid_runs import scenario as hybrid


@pytest.fixture(scope="module")
def lent():
    """Twice to and once fro; requests to the model of both pools go wherever there is a replica."""
    def drive(world, controls):
        share = world.sharings[0]
        for at, move in ((1.0, share.lend), (3.0, share.take_back), (12.0, share.lend)):
            yield world.env.timeout(at - world.env.now)
            yield move()

    how = {"pool": "serve", "lend": {"how": "preempt"}, "take_back": {"how": "preempt"}}
    base = lending(how, loads=((30, 150), None))
    base["workloads"].append(poisson("night", 20, 100, model=MODEL, name="both"))
    return driven(base, drive)


@pytest.fixture(scope="module")
def shared():
    with plugged():
        return sim.run(hybrid())


def by_title(parts):
    return {part.title: part for part in parts}


# -- figures ------------------------------------------------------------------
def test_what_the_gpus_of_a_lender_did_is_their_time(lent):
    found, end = lent.summary["lending"]["night"], lent.meta["sim_s"]
    seconds = found["gpu_seconds"]
    assert sum(sum(of.values()) for of in seconds.values()) == pytest.approx(3 * end, rel=1e-9)
    both = found["lend"], found["take_back"]
    moved = sum(one["served"] * (one["out_s"]["mean"] + one["in_s"]["mean"]) for one in both)
    assert sum(of["switch"] for of in seconds.values()) == pytest.approx(moved, rel=1e-9)
    for one in both:
        assert one["out_s"]["mean"] + one["in_s"]["mean"] == pytest.approx(one["switch_s"]["mean"], rel=1e-9)
    assert found["share"] == pytest.approx(sum(seconds["night"].values()) / (3 * end), rel=1e-9)


def test_traffic_is_of_the_workloads_that_the_borrower_served(lent):
    requests, found = lent.requests, lent.summary["lending"]["night"]["traffic"]
    ours = requests[requests["workload"] == "both"]
    there = ours[ours["replica"].isin([number for number, pool in enumerate(Facts(lent).pool_of_replica) if pool == "night"])]
    assert 0 < len(there) < len(ours) == 100
    assert found == {
        "requests": len(there), "output_tokens": there["output_tokens"].sum(), "of_requests": len(there) / 100,
        "of_output_tokens": there["output_tokens"].sum() / ours["output_tokens"].sum(),
    }  # fmt: skip


def test_gpus_in_passes_of_a_trainer_are_busy_and_no_time_of_engines(shared):
    gpu, spent, facts = shared.summary["gpu"], shared.summary["shared_gpus"]["train"], Facts(shared)
    passes = spent["update"] + spent["logprob"]
    assert passes > 0
    assert gpu["busy_fraction"] == pytest.approx((spent["generating"] + passes) / (8 * facts.span), rel=1e-9)
    engines = 8 * facts.span - sum(spent[state] for state in spent if state not in ("generating", "idle", "paused"))
    peak = shared.meta["pools"][0]["peak_flops"] / 2
    assert gpu["mfu"] == pytest.approx(facts.work.flops / (peak * engines), rel=1e-6)


def test_who_waits_for_gpus_that_others_have_is_told_so():
    """Ten requests a second for ten seconds, of which none can begin before the night does, after eight."""
    when = {"between": ["22h", "6h"], "offset": "79192s"}
    result = sim.run(lending({"pool": "serve", "when": when, "lend": {"how": "preempt"}}, loads=((5, 50), (10, 100))))
    held = result.tables["held"]
    [reason] = [reason for reason in result.summary["why"] if reason["cause"] == "lent"]
    requests = result.requests
    waited = float((held["end"] - held["start"]).sum())
    assert reason["share"] == pytest.approx(waited / requests["e2e"].sum(), abs=1e-4)
    assert f"{len(held)} requests were held for night, {waited / len(held):.3g} s on average, until serve gave up" in reason["text"]


# -- pages ------------------------------------------------------------------
def test_who_lent_what_is_said(lent):
    summary, facts = lent.summary, Facts(lent)
    found = summary["lending"]["night"]
    (panel,) = sharing.panels(summary)
    rows = dict(panel.rows)
    assert panel.title == "GPUs of serve lent to night"
    assert rows["Replicas lent, taken back"] == "4, 2"
    sent = found["lend"]["sent_on"] + found["take_back"]["sent_on"]
    assert rows["Requests sent on to other replicas"] == f"{sent}"
    assert sent > 0
    turns, did = sharing.sheets(summary)
    assert [row[:2] for row in turns.rows] == [["serve to night", "4"], ["night to serve", "2"]]
    assert all(len(row) == len(turns.heads) for row in turns.rows)
    assert sum(float(row[-1].rstrip("%")) for row in did.rows) == pytest.approx(100, abs=0.2)
    drawn = by_title(sharing.plots(facts, summary))
    assert set(drawn) == {"What the GPUs of serve did", "Who had the GPUs of serve"}
    assert "night had up to 2 of the GPUs of serve" in drawn["Who had the GPUs of serve"].note
    # Replicas that wake do not come from nothing.
    assert not list(fleet.plots(facts, summary)) + fleet.sheets(facts, summary)


def test_what_shared_gpus_did_is_one_bar_and_a_table(shared):
    summary, facts = shared.summary, Facts(shared)
    sheet = sharing.sheets(summary)[-1]
    assert sheet.title == "What the GPUs that train shares did"
    assert {"engines in steps", "updates", "changing hands"} <= {row[0] for row in sheet.rows}
    assert sum(float(row[-1].rstrip("%")) for row in sheet.rows) == pytest.approx(100, abs=0.2)
    (bar,) = sharing.plots(facts, summary)
    assert "engines in steps" in bar.svg
    assert "trainer" in render(shared)


@pytest.mark.parametrize("which", ["lent", "shared"])
def test_the_whole_page_stands(which, request):
    result = request.getfixturevalue(which)
    page = render(result)
    assert set(result.summary["audit"]) <= set(CHECKS)
    words = re.sub(r"<[^>]*>", " ", page)
    assert "nan" not in words.lower().split()
    said = {"lent": ("GPUs of serve lent to night", "the GPUs of serve, in turn (2 replicas of 1)", "as serve", "Shared GPUs are one pool"),
            "shared": ("passes count", "What the GPUs that train shares did", "in passes of a trainer")}  # fmt: skip
    assert [text for text in said[which] if text not in words] == []
    lines = block(result.summary)
    assert {"lent": "GPUs of serve lent to night", "shared": "GPUs that train shares"}[which] in lines


def test_gpus_of_a_trainers_own_are_not_those_of_the_figures():
    with plugged():
        assert "GPUs of engines, busy" not in render(sim.run(hybrid(workload={"rounds": 1})))
        base = lending()
        base["cluster"]["pools"] = base["cluster"]["pools"][:1]
        base["workloads"] = base["workloads"][:1]
        base["cluster"]["trainers"] = [{"name": "train", "gpu": "h100_sxm", "gpus": 8}]
        base["workloads"].append({"kind": "train", "steps": 1, "batch": 8, "lengths": {"kind": "fixed", "input": 1, "output": 900}})
        assert "GPUs of engines, busy" in render(sim.run(base))


def test_the_inventory_says_whose_gpus_they_are():
    base = lending({"pool": "serve", "when": {"between": ["22h", "6h"]}})
    lines = text(inventory(loads(base))).splitlines()
    assert any(line.startswith("  night: ") and line.endswith(": on the GPUs of serve, in turn") for line in lines)
    assert any(line.startswith("  serve: ") and line.endswith(": 3 GPUs") for line in lines)
