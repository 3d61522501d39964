"""Replications: other luck and nothing else, the same however many run at a time, kept when interrupted, and refused when they are of
something else.
"""
from __future__ import annotations

import doctest
import json
import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scenarios import written

import sim
import sim.cli.replicate
import sim.report.intervals
import sim.study.replicate.replicate
from sim.cli import main
from sim.core.errors import BadInput
from sim.report.intervals import block, give_or_take, sure
from sim.spec.load import load
from sim.study.replicate.interval import student
from sim.study.replicate.replicate import Plan, prepare, replicate, replications, seed, seeded
from sim.study.replicate.replications import ABOUT, Replications, table_of
from sim.study.replicate.window import warmed
from sim.study.run import run

SCENARIO = """\
name: chat
seed: 5
model: meta-llama/Llama-3.1-8B
cluster: {pools: [{gpu: h100_sxm}]}
workloads: [{kind: poisson, rate: 5, num_requests: 60, lengths: {kind: uniform, input: [50, 200], output: [2, 60]}}]
slo: {ttft_p99: 500ms}
"""


@pytest.fixture
def path(tmp_path):
    return written(tmp_path, SCENARIO)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return load(written(tmp_path_factory.mktemp("chat"), SCENARIO))


@pytest.fixture(scope="module")
def four(scenario):
    return replicate(scenario, 4)


@pytest.fixture
def counted(monkeypatch):
    """The seeds that were run."""
    seeds = []

    def one(scenario, **more):
        seeds.append(scenario.seed)
        return run(scenario, **more)

    monkeypatch.setattr(sim.study.replicate.replicate, "run", one)
    return seeds


@pytest.mark.parametrize("module", [sim.study.replicate.replicate, sim.report.intervals, sim.cli.replicate])
def test_the_examples(module):
    assert doctest.testmod(module).failed == 0


def test_seeds_are_all_different():
    assert len({seed(base, number) for base in (0, 1, 2**40) for number in range(300)}) == 900
    assert all(0 <= seed(1, number) < 2**63 for number in range(100))


def test_each_is_the_scenario_with_another_seed(scenario, four):
    assert four.table["seed"].tolist() == [seed(5, number) for number in range(4)]
    for number in (0, 3):
        summary = run(seeded(scenario, number)).summary
        assert four.table["ttft_s.p99"][number] == summary["ttft_s"]["p99"]
        assert bool(four.table["slo.met"][number]) is summary["slo"]["met"]


def test_its_intervals(four):
    values = four.table["e2e_s.mean"].tolist()
    assert four.interval("e2e_s.mean") == student(values)
    assert four.interval("slo.met").high == 1.0
    assert four.intervals().keys() >= {"ttft_s.p99", "cost.usd_per_hour"}
    assert not [name for name in four.intervals() if name.startswith(("run.", "audit."))]
    shown = four.main()
    assert shown.loc["e2e_s.p50", "mean"] == pytest.approx(four.table["e2e_s.p50"].mean())
    assert shown.loc["gpu.mean", "half"] == 0.0
    assert "e2e_s.p50" in four._repr_html_()
    with pytest.raises(BadInput, match=r"did you mean e2e_s\.p99"):
        four.interval("e2e.p99")


def test_a_figure_that_some_lack_has_no_interval(four):
    table = four.table.assign(**{"slo.attainment": [1.0, np.nan, 1.0, np.nan]})
    some = Replications(four.scenario, table, 4)
    with pytest.raises(BadInput, match=r"slo.attainment is undefined in 2 of 4 replications \(1, 3\)"):
        some.interval("slo.attainment")
    assert "slo.attainment" not in some.intervals()
    assert some.missing["slo.attainment"] == 2
    assert some.report()["missing"]["slo.attainment"] == 2
    assert "slo.attainment" not in block(some)


def test_what_is_not_left_to_chance_is_said(tmp_path):
    text = SCENARIO.replace("kind: poisson", "kind: constant").replace("kind: uniform, input: [50, 200], output: [2, 60]",
                                                                       "kind: fixed, input: 50, output: 5")  # fmt: skip
    found = replicate(load(written(tmp_path, text)), 3)
    assert found.interval("e2e_s.p99").half == 0.0
    assert "nothing in the scenario is left to chance" in found.remarks[0]


def test_it_stops_at_a_wanted_precision(scenario, four):
    bound = 0.04
    *_, found = replications(scenario, Plan(3, (("e2e_s.p99", bound),), 40))
    assert 3 < len(found) < 40
    one = found.interval("e2e_s.p99")
    assert one.half <= bound / (1 + bound) * one.mean
    # No fewer would have done, whatever number was run at a time.
    for n in range(3, len(found)):
        fewer = student(found.table["e2e_s.p99"][:n])
        assert fewer.half > bound / (1 + bound) * fewer.mean
    *_, again = replications(scenario, Plan(len(found) - 1, (("e2e_s.p99", bound),), 40), jobs=1)
    pd.testing.assert_frame_equal(again.table.drop(columns="run.cpu_s"), found.table.drop(columns="run.cpu_s"))


def test_processes_give_the_same(scenario, four, monkeypatch):
    monkeypatch.setattr(sim.study.replicate.replicate, "SOON", 0.0)
    *_, found = replications(scenario, Plan(4), jobs=2)
    pd.testing.assert_frame_equal(found.table.drop(columns="run.cpu_s"), four.table.drop(columns="run.cpu_s"))


def test_it_says_when_the_precision_is_not_reached(scenario):
    found = replicate(scenario, 2, precision={"ttft_s.p99": 0.0001}, most=5)
    assert len(found) == 5
    assert found.remarks[0].startswith("ttft_s.p99 is known to")
    assert found.remarks[0].endswith("after 5 replications, not to the 0.01% asked for.")


@pytest.mark.parametrize(("change", "said"), [
    ({"n": 1}, "needs 2 or more"), ({"n": 0}, "needs 2 or more"), ({"precision": {"ttft_s.p98": 0.1}}, "unknown figure 'ttft_s.p98'"),
    ({"precision": {"ttft_s.p99": 5.0}}, "between 0 and 1"), ({"most": 9}, "none is given"),
    ({"precision": {"ttft_s.p99": 0.1}, "most": 1}, "--most 1 is below"), ({"warmup": 1e9}, "longer than requests arrive"),
])  # fmt: skip
def test_bad_plans(scenario, change, said):
    with pytest.raises(BadInput, match=said):
        replicate(scenario, **({"n": 3} | change))


def test_a_failing_replication_is_named(scenario, monkeypatch):
    def one(scenario, **more):
        if scenario.seed == seed(5, 2):
            raise BadInput("nothing arrived")
        return run(scenario, **more)

    monkeypatch.setattr(sim.study.replicate.replicate, "run", one)
    with pytest.raises(BadInput, match=rf"replication 2 \(seed {seed(5, 2)}\): nothing arrived"):
        list(replications(scenario, Plan(4)))


def test_an_interrupt_keeps_what_is_done(scenario, tmp_path, monkeypatch, counted):
    def stop(scenario, **more):
        if scenario.seed == seed(5, 3):
            raise KeyboardInterrupt
        return run(scenario, **more)

    folder = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(sim.study.replicate.replicate, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            list(replications(scenario, Plan(5), folder))
    assert len(Replications.open(folder)) == 3
    assert sim.Result.open(folder).meta["seed"] == 5
    prepare(scenario, None, folder, False)
    found = replicate(scenario, 5, folder=folder)
    assert counted == [seed(5, 3), seed(5, 4)]
    pd.testing.assert_series_equal(found.table["e2e_s.p99"], replicate(scenario, 5).table["e2e_s.p99"])
    counted.clear()
    assert len(replicate(scenario, 2, folder=folder)) == 2
    assert counted == []


def test_what_is_saved_opens_again(four, scenario, tmp_path):
    found = replicate(scenario, 3, folder=tmp_path / "out", warmup=2.0)
    first, again = sim.Result.open(tmp_path / "out").summary, warmed(run(scenario), 2.0).summary
    assert first | {"run": 0} == again | {"run": 0}
    assert first["warmup"]["seconds"] == 2.0
    opened = Replications.open(tmp_path / "out")
    assert opened.report() == found.report()
    assert opened.scenario == scenario
    assert opened.warmup == 2.0
    said = json.loads((tmp_path / "out" / "replications.json").read_text())
    assert said["intervals"]["ttft_s.p99"]["mean"] == found.interval("ttft_s.p99").mean
    assert "of 2 s left out" in opened.words


@pytest.mark.parametrize("spoil", ["missing", "cut", "rows", "version", "json"])
def test_damaged_folders(four, scenario, tmp_path, spoil):
    folder = tmp_path / "out"
    replicate(scenario, 2, folder=folder)
    saved, table = folder / "replications.json", folder / "replications.parquet"
    said = json.loads(saved.read_text())
    if spoil == "missing":
        table.unlink()
    elif spoil == "cut":
        table.write_bytes(table.read_bytes()[:100])
    elif spoil == "rows":
        pd.read_parquet(table)[:1].to_parquet(table)
    else:
        saved.write_text(json.dumps(said | {"version": "9.0.0"}) if spoil == "version" else json.dumps({"n": 2}))
    said = {"version": "by burstsim 9.0.0", "missing": r"parquet: no such file", "json": "holds no replications of"}
    with pytest.raises(BadInput, match=said.get(spoil, "damaged replications")):
        Replications.open(folder)


def test_folders_of_something_else(scenario, tmp_path):
    folder = tmp_path / "out"
    replicate(scenario, 2, folder=folder)
    for other, warmup, said in ((seeded(scenario, 1), None, "another scenario or seed"), (scenario, 1.0, "another warm-up")):
        with pytest.raises(BadInput, match=said):
            prepare(other, warmup, folder, False)
    report = json.loads((folder / "replications.json").read_text())
    (folder / "replications.json").write_text(json.dumps(report | {"program": "0"}))
    with pytest.raises(BadInput, match="another state of the program"):
        prepare(scenario, None, folder, False)
    prepare(seeded(scenario, 1), None, folder, True)
    assert not folder.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds no result"):
        prepare(scenario, None, tmp_path / "mine", True)


def test_one_seat_is_a_queue_with_a_known_wait(tmp_path):
    """M/D/1 (Pollaczek-Khinchine): service is what one request takes alone, half of it the load."""
    fixed = "kind: fixed, input: 100, output: 20"
    text = SCENARIO.replace("kind: uniform, input: [50, 200], output: [2, 60]", fixed)
    text = text.replace("h100_sxm", "h100_sxm, engine: {max_num_seqs: 1}")
    alone = replicate(load(written(tmp_path, text), ["workloads.0.rate=0.01", "workloads.0.num_requests=2"]), 2)
    service = alone.interval("e2e_s.p50").mean - alone.interval("ttft_s.p50").mean
    service += alone.interval("ttft_s.p50").mean - float(run(load(tmp_path / "x.yaml")).tables["requests"]["overhead"][0])
    rho = 0.5
    busy = load(tmp_path / "x.yaml", [f"workloads.0.rate={rho / service}", "workloads.0.num_requests=800"])
    found = replicate(busy, 8, warmup=20 * service)
    one = found.interval("queue_s.mean", 0.999)
    assert one.low < rho * service / (2 * (1 - rho)) < one.high
    assert one.relative < 0.5


def burstsim(*args):
    return CliRunner().invoke(main, list(map(str, args)))


def test_the_command(path, tmp_path):
    done = burstsim("run", path, "--replications", 3, "--warmup", "mser", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "3 replications of chat, seeds of 5, a warm-up by MSER-5 left out; 95% intervals (Student's t)."
    assert "Verdict, of 3 replications: 3 stable. SLO met in 3 of 3." in done.stdout
    assert "n = 3, replications." in done.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How sure the figures are" in page
    assert '<p class="answer">Verdict, of 3 replications: 3 stable. SLO met in 3 of 3. Means with 95 % intervals: ttft_s.p50 ' in page
    (tmp_path / "out" / "report.html").unlink()
    assert burstsim("report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").read_text() == page
    more = burstsim("run", path, "--replications", 4, "--warmup", "mser", "-o", tmp_path / "out", "--json", "-q", "--no-report")
    assert json.loads(more.stdout)["n"] == 4
    refused = burstsim("run", path, "--replications", 4, "--warmup", "1s", "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "another warm-up" in refused.stderr
    assert burstsim("run", path, "--replications", 2, "-o", tmp_path / "out", "--force", "-q", "--no-report").exit_code == 0
    assert not (tmp_path / "out" / "report.html").exists()


def test_the_command_on_one_run(path, tmp_path):
    done = burstsim("run", path, "--batches", 3, "--warmup", "1s", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "Warm-up left out: the first 1 s (given), " in done.stdout
    assert "n = 3, batch means." in done.stdout
    assert "of the whole run" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["warmup"]["seconds"] == 1.0
    said = json.loads(burstsim("run", path, "--batches", 3, "--json").stdout)
    assert said["batches"]["method"] == "batch means"
    assert burstsim("run", path, "--replications", 3, "-o", tmp_path / "out").exit_code == 2
    missed = burstsim("run", path, "--replications", 2, "--set", "slo.ttft_p99=1ms", "-q")
    assert missed.exit_code == 1


@pytest.mark.parametrize(("args", "said"), [
    (["--replications", "1"], "needs 2 or more"), (["--precision", "ttft_s.p99=5%"], "are of replications"),
    (["--batches", "3", "--replications", "3"], "give one or the other"), (["--warmup", "soon"], "mser, none or a time such as 30s"),
    (["--warmup=-3"], "0 or more"), (["--replications", "3", "--precision", "ttft_s.p99"], "such as ttft_s.p99=5%"),
    (["--replications", "3", "--precision", "ttft_s.p99=ten"], "such as ttft_s.p99=5%"), (["--batches", "1"], "needs 2 or more"),
])  # fmt: skip
def test_bad_flags(path, args, said):
    done = burstsim("run", path, *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_sheet_says_what_it_is_of(four):
    lead, made = sure(four)
    assert [row[0] for row in made.rows][:2] == ["ttft_s.p50", "ttft_s.p99"]
    assert "of the first replication" in made.note
    assert lead.startswith("Verdict, of 4 replications: ")
    assert f"ttft_s.p99 {give_or_take('ttft_s.p99', four.interval('ttft_s.p99'))}" in lead
    assert lead.endswith("What follows is of the first replication.")
    rows = [dict.fromkeys(ABOUT, 0) | {"replication": 0, "verdict": "stable", "audit_ok": False, "figures": {"ttft_s.p50": 1.0}}]
    broken = Replications(four.scenario, table_of(rows), 1)
    assert "AUDIT FAILED in 1 of 1" in block(broken)
    assert math.isinf(student([1.0, -1.0]).relative)
