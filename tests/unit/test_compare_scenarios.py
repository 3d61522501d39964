"""Comparisons: pairs that share their luck, what is more than chance, which keys differ, and which of them did it."""
from __future__ import annotations

import doctest
import importlib
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scenarios import written
from test_replicate import SCENARIO

import sim
import sim.study.replicate.replicate
from sim.cli import main
from sim.core.errors import BadInput
from sim.report.compare import block, plots, render
from sim.spec.load import load, loads
from sim.study.compare.change import NOTHING, Change, changes, switched
from sim.study.compare.compare import Asked, changed, compare, compared, open_all, what_if
from sim.study.compare.comparison import read
from sim.study.compare.waterfall import waterfall
from sim.study.replicate.interval import LEVEL, p_value, student
from sim.study.replicate.replicate import replicate

FASTER = {"cluster.pools.0.gpu": "h200_sxm", "cluster.pools.0.parallel.tp": 2}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return load(written(tmp_path_factory.mktemp("chat"), SCENARIO))


@pytest.fixture(scope="module")
def found(scenario):
    return what_if(scenario, FASTER, n=5, figure="tpot_s.p50")


@pytest.mark.parametrize("module", ["sim.study.compare.compare", "sim.cli.compare"])
def test_the_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_pairs_share_their_luck(scenario, found):
    one, other = found.runs.values()
    assert one.table["seed"].tolist() == other.table["seed"].tolist()
    # The same prompts and answers, so that what is computed of them differs in nothing.
    assert one.table["requests.completed"].tolist() == other.table["requests.completed"].tolist()
    far = other.table["tpot_s.p50"] - one.table["tpot_s.p50"]
    assert found.difference("tpot_s.p50") == student(far.to_numpy(), method="pairs")
    spread = one.table["tpot_s.p50"].std() + other.table["tpot_s.p50"].std()
    assert far.std() < spread
    assert found.paired


def test_what_is_compared_says_in_a_line_what_it_is(found):
    first, *others = found.runs
    assert repr(found) == f"Comparison({', '.join(others)} against {first})"
    assert repr(found.runs[first]).startswith(f"Replications({len(found.runs[first])} replications of ")


def test_the_table(found):
    table = found.table.set_index("figure")
    assert table.index[0] == "tpot_s.p50"
    row = table.loc["tpot_s.p50"]
    assert row["mean"] - row["base"] == pytest.approx(row["difference"])
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["relative"] == pytest.approx(row["difference"] / row["base"])
    assert (table["p_holm"] >= table["p"]).all()
    assert (table["significant"] == (table["p_holm"] < 1 - LEVEL)).all()
    assert table.loc["tpot_s.p50", "significant"]
    assert not table.loc["kv.prefix_hit_rate", "significant"]
    # Without doubt: two GPUs in place of one, at their prices.
    assert table.loc["gpu.mean", ["difference", "p"]].tolist() == [1.0, 0.0]
    assert "tpot_s.p50" in found._repr_html_()


def test_a_scenario_against_itself(scenario):
    same = compare(scenario, scenario, n=3)
    assert not same.table["significant"].any()
    assert (same.table["difference"] == 0).all()
    assert list(same.changes.values()) == [[]]
    assert list(same.runs) == ["chat (1)", "chat (2)"]


def test_another_seed_is_no_difference(scenario):
    other = scenario.model_copy(update={"seed": 99, "name": "later"})
    found = compare(scenario, other, n=2)
    assert found.paired
    assert found.remarks == ("later: run with the seed 5 of the others, so that they share their luck.",)
    assert (found.table["difference"] == 0).all()


def test_the_keys_that_differ(scenario, tmp_path):
    assert changes(scenario, changed(scenario, FASTER)) == [
        Change("cluster.pools.0.gpu", "h100_sxm", "h200_sxm"), Change("cluster.pools.0.parallel.tp", 1, 2),
    ]  # fmt: skip
    # A kind that changes, and a list that grows, change as a whole; what is left to its default is no difference.
    text = SCENARIO.replace("{gpu: h100_sxm}", "{name: a, gpu: h100_sxm, replicas: 1}, {name: b, gpu: h100_sxm}").replace(
        "slo: {ttft_p99: 500ms}", "power: {pue: 1.1}") + "duration: 20m\n"  # fmt: skip
    other = load(written(tmp_path, text.replace("kind: poisson, rate: 5", "kind: gamma, cv: 2, rate: 5")))
    some = changes(scenario, other)
    assert [one.key for one in some] == ["cluster.pools", "workloads.0", "slo.ttft_p99", "duration", "power"]
    assert some[2] == Change("slo.ttft_p99", 0.5, NOTHING)
    assert str(some[1]) == "workloads.0: poisson → gamma"
    everything = switched(scenario, some)
    assert changes(everything, other) == []
    assert switched(scenario, []) == scenario


def test_a_kind_takes_its_options_with_it(scenario):
    sticky = changed(scenario, {"cluster.router.kind": "session_affinity", "cluster.router.by": "program"})
    other = changed(sticky, {"cluster.router.kind": "round_robin"})
    assert [one.key for one in changes(sticky, other)] == ["cluster.router"]
    assert changes(switched(sticky, changes(sticky, other)), other) == []


def test_the_parts_of_a_waterfall_sum_to_the_whole(found):
    fall = found.waterfalls["gpu=h200_sxm, tp=2"]
    whole = found.difference("tpot_s.p50").mean
    assert fall.after - fall.before == pytest.approx(whole)
    assert sum(part.added.mean for part in fall.parts) == pytest.approx(whole)
    assert sum(part.average.mean for part in fall.parts) == pytest.approx(whole)
    assert [part.changes[0].key for part in fall.parts] == list(FASTER)
    assert fall.remark == ""


def product(which):
    """A figure in which each of three changes multiplies what is there: 2, 3 and 5 times 1 and 2."""
    return np.prod([value for value, on in zip((2.0, 3.0, 5.0), which, strict=True) if on]) * np.array([1.0, 2.0])


def steps(scenario, count):
    """So many changes, of a scenario that nobody runs, and the figure of any of their combinations."""
    some = [Change(f"workloads.0.lengths.{key}", None, [1, number + 2]) for number, key in enumerate(("input", "output"))]
    some.append(Change("seed", 5, 6))

    def values(one):
        lengths = one.workloads[0]["lengths"]
        which = [tuple(lengths["input"]) == (1, 2), tuple(lengths["output"]) == (1, 3), one.seed == 6]
        return product(which)

    return some[:count], values


def test_averages_over_orders_are_shapleys(scenario):
    some, values = steps(scenario, 3)
    fall = waterfall(scenario, some, "made.up", (product([0, 0, 0]), product([1, 1, 1])), values)
    assert [part.added.mean for part in fall.parts] == [1.5, 6.0, 36.0]
    # Of 2 alone, by hand: over the six orders it adds 1, 1, 3, 5, 15 and 15 times the mean of 1 and 2.
    assert fall.parts[0].average.mean == pytest.approx(1.5 * (1 + 1 + 3 + 5 + 15 + 15) / 6)
    assert sum(part.average.mean for part in fall.parts) == pytest.approx(43.5)
    assert fall.parts[0].p == pytest.approx(p_value(np.array([1.0, 2.0])))


def test_changes_that_only_go_together(scenario):
    some, values = steps(scenario, 3)

    def refusing(one):
        lengths = one.workloads[0]["lengths"]
        if (tuple(lengths["input"]) == (1, 2)) != (tuple(lengths["output"]) == (1, 3)):
            raise BadInput("one needs the other")
        return values(one)

    fall = waterfall(scenario, some, "made.up", (product([0, 0, 0]), product([1, 1, 1])), refusing)
    assert [len(part.changes) for part in fall.parts] == [2, 1]
    assert [part.added.mean for part in fall.parts] == [7.5, 36.0]
    assert fall.parts[1].average.mean == pytest.approx((36.0 + 6.0) / 2)

    def ordered(one):
        if one.seed == 6 and tuple(one.workloads[0]["lengths"]["input"]) != (1, 2):
            raise BadInput("not alone")
        return values(one)

    fall = waterfall(scenario, some, "made.up", (product([0, 0, 0]), product([1, 1, 1])), ordered)
    assert [part.average for part in fall.parts] == [None, None, None]
    assert "Not every combination of the changes can be run (not alone)" in fall.remark


def test_folders_are_compared_as_they_are(scenario, tmp_path, monkeypatch):
    replicate(scenario, 4, folder=tmp_path / "a")
    replicate(changed(scenario, FASTER), 3, folder=tmp_path / "b")
    monkeypatch.setattr(sim.study.replicate.replicate, "run", lambda scenario: pytest.fail("nothing is to be run"))
    found = compare(tmp_path / "a", tmp_path / "b", names=("a", "b"))
    assert found.paired
    assert found.difference("tpot_s.p50").n == 3
    assert found.remarks == ("The folders hold 3, 4 replications; as many pairs are made as there can be.",)
    monkeypatch.undo()
    mixed = compare(tmp_path / "b", scenario, names=("b", "chat"))
    assert len(mixed.runs["chat"]) == 3
    with pytest.raises(BadInput, match=r"the folder of chat \(1\) holds 3 replications, fewer than the 9"):
        compare(tmp_path / "b", scenario, n=9)


def test_folders_without_common_luck(scenario, tmp_path):
    replicate(scenario, 3, folder=tmp_path / "a")
    replicate(changed(scenario, {"seed": 77}), 4, folder=tmp_path / "b")
    found = compare(tmp_path / "a", tmp_path / "b", names=("a", "b"))
    assert not found.paired
    assert found.difference("e2e_s.p99").method == "Welch"
    assert "without pairs" in found.remarks[0]
    with pytest.raises(BadInput, match="a waterfall needs"):
        compare(tmp_path / "a", tmp_path / "b", names=("a", "b"), figure="e2e_s.p99")


def test_single_runs_have_no_intervals(scenario, tmp_path):
    for name, one in (("a", scenario), ("b", changed(scenario, FASTER))):
        sim.run(one).save(tmp_path / name)
    found = compare(tmp_path / "a", tmp_path / "b", names=("a", "b"))
    assert found.table["significant"].isna().all()
    assert "One run each" in found.remarks[0]
    assert "One run each" in block(found.report())
    render(found.report())
    with pytest.raises(BadInput, match="2 replications or more"):
        found.difference("e2e_s.p99")
    with pytest.raises(BadInput, match="holds one run"):
        compare(tmp_path / "a", scenario)


def test_bad_folders(scenario, tmp_path):
    for name in ("a", "b"):
        replicate(scenario, 2, folder=tmp_path / name)
    saved = tmp_path / "b" / "replications.json"
    said = json.loads(saved.read_text())
    saved.write_text(json.dumps(said | {"program": "other"}))
    with pytest.raises(BadInput, match="different states of the program"):
        open_all([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(BadInput, match="this burstsim"):
        open_all([tmp_path / "b", scenario])
    saved.write_text(json.dumps(said | {"version": "9"}))
    with pytest.raises(BadInput, match="by burstsim 9"):
        open_all([tmp_path / "b"])
    saved.write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        open_all([tmp_path / "b"])
    saved.unlink()
    meta = tmp_path / "b" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"version": "0.0.9"}))
    with pytest.raises(BadInput, match=r"a result of burstsim 0\.0\.9"):
        open_all([tmp_path / "b"])
    replicate(scenario, 2, folder=tmp_path / "c", warmup=1.0)
    with pytest.raises(BadInput, match="the warm-ups left out differ"):
        compare(tmp_path / "a", tmp_path / "c", names=("a", "c"))


@pytest.mark.parametrize(("asked", "said"), [
    (Asked(1), "needs 2 or more"), (Asked(2, None, "tpot.p50"), r"did you mean tpot_s\.p50"),
    (Asked(2, 1e9), "longer than requests arrive"),
])  # fmt: skip
def test_bad_questions(scenario, asked, said):
    with pytest.raises(BadInput, match=said):
        compared({"a": scenario, "b": changed(scenario, FASTER)}, asked)


def test_one_scenario_is_no_comparison(scenario, found):
    with pytest.raises(BadInput, match="two or more"):
        compare(scenario)
    with pytest.raises(BadInput, match="is wanted"):
        found.difference("tpot_s.p50", "chat")


class Balance(HTMLParser):
    """Every element that opens closes, in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use"):
            assert self.open.pop() == tag


def test_the_page(found):
    said = json.loads(json.dumps(found.report()))
    page = render(said)
    assert page == render(said)
    assert not any(part in page for part in ("<script ", "<link", "<img", "@import", "NaN"))
    checked = Balance()
    checked.feed(page)
    assert checked.open == []
    assert "cluster.pools.0.gpu: h100_sxm → h200_sxm" in page
    assert "What changed tpot_s.p50 in gpu=h200_sxm, tp=2" in page
    assert [plot.title for plot in plots(said)] == ["Differences to chat, %", "tpot_s.p50: from first to gpu=h200_sxm, tp=2"]


def burstsim(*args):
    return CliRunner().invoke(main, list(map(str, args)))


def test_the_command(tmp_path):
    path = written(tmp_path, SCENARIO)
    again = ("compare", path, "--what-if", "cluster.pools.0.gpu=h200_sxm,cluster.pools.0.parallel={tp: 2, pp: 1}", "--replications", 3,
             "--warmup", "1s", "-o", tmp_path / "out")  # fmt: skip
    done = burstsim(*again)
    assert done.exit_code == 0
    assert "gpu=h200_sxm, parallel={tp: 2, pp: 1} against x" in done.stdout
    assert "cluster.pools.0.gpu: h100_sxm → h200_sxm; cluster.pools.0.parallel.tp: 1 → 2" in done.stdout
    assert "3 pairs, paired Student intervals of 95%." in done.stdout
    assert sorted(place.name for place in (tmp_path / "out").iterdir()) == [
        "1-x", "2-gpu-h200-sxm-parallel-tp-2-pp-1", "comparison.json", "comparison.parquet", "report.html",
    ]  # fmt: skip
    assert len(pd.read_parquet(tmp_path / "out" / "comparison.parquet")) == len(read(tmp_path / "out")["differences"])
    page = (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "out" / "report.html").unlink()
    assert burstsim("report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").read_text() == page
    said = json.loads(burstsim("compare", tmp_path / "out" / "1-x", path, "--set", "workloads.0.rate=6", "--json").stdout)
    assert said["paired"]
    assert [one["n"] for one in said["scenarios"]] == [3, 3]
    assert said["changes"][0]["keys"][0]["key"] == "workloads.0.rate"
    refused = burstsim(*again[:-4], "--seed", 6, "-o", tmp_path / "out")
    assert refused.exit_code == 2


@pytest.mark.parametrize(("args", "said"), [
    (["x.yaml"], "two or more"), (["x.yaml", "--what-if", "cluster.pools.0.gpu=h200_sx"], "did you mean h200_sxm"),
    (["x.yaml", "--what-if", "nonsense"], "KEY=VALUE is wanted"), (["x.yaml", "none.yaml"], "none.yaml"), (["empty"], "holds no result"),
    (["empty", "--what-if", "seed=1"], "is a folder"), (["empty", "--seed", "1"], "there are only folders"),
    (["x.yaml", "x.yaml", "--replications", "1"], "needs 2 or more"), (["x.yaml", "x.yaml", "-o", "filled"], "holds no comparison"),
])  # fmt: skip
def test_bad_commands(tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, SCENARIO)
    (tmp_path / "empty").mkdir()
    written(tmp_path, "mine", "filled/thesis.txt")
    done = burstsim("compare", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert (tmp_path / "filled" / "thesis.txt").read_text() == "mine"


def test_changes_of_a_scenario_with_hours_and_small_figures(tmp_path):
    """A time of day and a figure such as 1e-05 are what they are in the scenario between two, whatever YAML would make of them."""
    told = {
        "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm", "engine": {"frontend_per_token": 1e-5}}]},
        "workloads": [{"kind": "diurnal", "rate": 2, "preset": "burstgpt", "begin": "14:00", "duration": "20s",
                       "lengths": {"kind": "fixed", "input": 100, "output": 10}}],
    }  # fmt: skip
    one = loads(told)
    other = loads(told, {"workloads.0.rate": 3, "cluster.pools.0.replicas": 2})
    both = changes(one, other)
    assert [change.key for change in both] == ["cluster.pools.0.replicas", "workloads.0.rate"]
    assert switched(one, both) == other
    assert switched(one, both[:1]).workloads[0]["begin"] == "14:00"
