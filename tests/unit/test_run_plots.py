"""Drawings of a run in a notebook: what there is for which run, what it shows, and that its colours can be seen."""
from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import sim
from sim.core.errors import BadInput
from sim.report import svg
from sim.report.over_arrival import over_arrival
from sim.report.run_plots import NEEDS, RunPlots
from sim.spec.load import steps
from sim.study.metrics import Facts

ROOT = Path(__file__).resolve().parents[2]
CHAT = {
    "name": "chat", "seed": 3, "model": "meta-llama/Llama-3.1-8B", "slo": {"ttft_p99": "500ms"},
    "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "preset", "preset": "azure_conv_2023", "rate": 10, "num_requests": 200}],
}  # fmt: skip
ENGINES = {"arrivals", "queue", "batch", "kv", "gpus", "cost", "power", "latency", "latency_over_time"}


def study(name, changes, rung=None):
    scenario = sim.load(ROOT / f"configs/studies/{name}.yaml", changes)
    named = {one.name: step for one, step in zip(scenario.ladder, steps(scenario), strict=True)} if rung else {}
    return sim.run(named[rung] if rung else scenario)


@pytest.fixture(scope="module")
def chat():
    return sim.run(CHAT)


@pytest.fixture(scope="module")
def found(chat):
    learns = {"workloads.0.steps": 4, "workloads.0.prompts": 16}
    evals = {"workloads.0.tasks": 20, "cluster.pools.0.replicas": 1, "cluster.sandboxes.0.nodes": 2}
    return {
        "chat": chat,
        "rl": study("rl_sync_vs_async", learns, "staleness 2"),
        "fleet": study("flash_crowd_cold_start", {"duration": "8m"}),
        "evals": study("eval_burst_100k", evals),
        "trainer": study("train_sft_8b", {"workloads.0.steps": 2}),
    }


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_every_method_says_what_it_needs():
    assert [name for name in vars(RunPlots) if not name.startswith("_")] == list(NEEDS)


@pytest.mark.parametrize(("name", "more"), [
    ("chat", set()), ("rl", {"gantt", "steps", "staleness", "samples", "groups", "lengths"}), ("fleet", {"replicas", "starts", "links"}),
    ("evals", {"agents", "tasks", "evals", "sandboxes"}),
])  # fmt: skip
def test_a_run_has_the_drawings_it_has_data_for(found, name, more):
    plot = found[name].plot
    assert set(dir(plot)) == ENGINES | more
    figure = Figure()
    for drawing, axes in zip(dir(plot), figure.subplots(len(dir(plot))), strict=True):
        assert getattr(plot, drawing)(axes=axes) is axes
        assert axes.has_data() or axes.patches
    # The colours that stand for those of a page are nearly black: none may stay.
    out = io.StringIO()
    figure.savefig(out, format="svg")
    assert not [colour for colour in svg.VARIABLES if colour in out.getvalue()]


@pytest.mark.parametrize(("name", "panels"), [("chat", 4), ("rl", 3)])
def test_called_it_is_an_overview(found, name, panels):
    axes = found[name].plot()
    assert len(axes) == panels
    (figure,) = {one.figure for one in axes}
    assert figure.get_suptitle() == f"{found[name].scenario.name}: {found[name].summary['verdict']}"


def test_what_a_run_has_not_is_refused_and_says_so(found):
    chat, trainer = found["chat"], found["trainer"]
    with pytest.raises(BadInput, match=r"nothing to draw: no replicas come or go in this run; this run has plots of arrivals, batch, .*"):
        chat.plot.replicas()
    with pytest.raises(BadInput, match="nothing to draw: no request of this run completed; this run has plots of nothing"):
        trainer.plot.latency()
    with pytest.raises(BadInput, match="this run has no data for any plot"):
        trainer.plot()
    with pytest.raises(BadInput, match="unknown measure 'tfft'; did you mean ttft"):
        chat.plot.latency("tfft")
    with pytest.raises(BadInput, match="unknown pool 'server'; did you mean serve"):
        found["fleet"].plot.replicas("server")
    with pytest.raises(BadInput, match="unknown lag 'newest'"):
        found["rl"].plot.staleness(lag="newest")
    lengths = {"kind": "fixed", "input": 9, "output": 1}
    one_token = CHAT | {"workloads": [{"kind": "poisson", "rate": 5, "num_requests": 9, "lengths": lengths}]}
    with pytest.raises(BadInput, match="no request of this run has a TPOT"):
        sim.run(one_token).plot.latency_over_time("tpot")


def test_a_latency_is_shown_with_its_limit(chat):
    axes = chat.plot.latency("ttft")
    curve, *_, limit = axes.lines
    size = 1e-3 if "ms" in axes.get_xlabel() else 1.0
    # The curve is of some quantiles, between which it is straight.
    half = np.interp(50, curve.get_ydata(), curve.get_xdata()) * size
    assert half == pytest.approx(chat.summary["ttft_s"]["p50"], rel=0.02)
    assert limit.get_xdata()[0] * size == pytest.approx(0.5)
    assert [words.get_text() for words in axes.get_legend().get_texts()] == ["limit"]
    assert chat.plot.latency("e2e").get_legend() is None
    assert curve.get_color() == svg.light()["--s1"]


def test_latency_over_time_is_of_those_that_came_then(chat):
    axes = Figure().subplots()
    over_arrival(Facts(chat), "ttft").parts[0](axes)
    drawn = [patch.get_data() for patch in axes.patches]
    table = chat.requests[chat.requests["status"] == "completed"]
    for data, share in zip(drawn, (0.5, 0.95), strict=True):
        part = table[(table["arrival"] >= data.edges[1]) & (table["arrival"] < data.edges[2])]
        assert data.values[1] == pytest.approx(part["ttft"].quantile(share))
    assert [words.get_text() for words in axes.get_legend().get_texts()] == ["p50", "p95", "limit"]


def test_steps_add_up(found):
    axes = found["rl"].plot.steps()
    top = axes.patches[-1].get_data().values
    table = found["rl"].tables["rl_steps"]
    assert top == pytest.approx(table["end"] - table["start"], rel=0.02)  # parts that cannot be seen are left out


def test_colours_suit_the_style_of_the_notebook(found):
    with pyplot.style.context("dark_background"):
        axes = found["rl"].plot.gantt()
        assert axes.texts
        assert {words.get_color() for words in axes.texts} == {"white"}


def test_a_result_that_was_drawn_can_be_sent_elsewhere(chat):
    chat.plot.queue()
    again = pickle.loads(pickle.dumps(chat))
    assert again.requests.equals(chat.requests)
    assert dir(again.plot) == dir(chat.plot)


def test_a_result_says_in_a_line_what_it_is(chat):
    assert repr(chat) == f"Result(chat: 200 requests in {chat.meta['sim_s']:.1f} s, seed 3)"
