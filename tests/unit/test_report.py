"""The page: whole, self-contained, the same for the same result, and small however long the run."""
from __future__ import annotations

import doctest
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import edit, pool, put, queue, serve

import sim
import sim.report.gantt
import sim.report.words
from sim.core.request import REJECTED
from sim.core.tables import TABLES
from sim.report.answer import answer
from sim.report.folder import ROWS
from sim.report.page import render
from sim.report.plots import plots, spread
from sim.study.metrics import Facts

VOID = {"meta", "path", "use", "br", "wbr", "link"}


class Balance(HTMLParser):
    """Every element that opens closes, in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def result():
    return queue(0.8, 600, replicas=2, slo={"ttft_p99": "3s", "tpot_p50": "5ms"}, name="<b>chat & co</b>", description="a day's traffic")


@pytest.fixture(scope="module")
def page(result):
    return render(result)


def test_it_is_one_page_that_loads_nothing(page):
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"<script\s|<link|<img|@import|url\((?!#)|src=|fetch\(|XMLHttpRequest|import\(", page)
    assert page.count("<script>") == 1
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) <= {"http://www.w3.org/1999/xlink"}
    checked = Balance()
    checked.feed(page)
    assert checked.open == []


def test_text_is_escaped(page):
    assert "<b>chat" not in page
    assert "&lt;b&gt;chat &amp; co" in page


def test_the_verdict_comes_before_any_figure(page, result):
    body = page[page.index("<body>") :]
    assert body.index(result.summary["verdict"].capitalize()) < body.index("TTFT")
    assert result.summary["verdict_reason"] in body


def test_the_answer_comes_before_its_figures(page):
    body = page[page.index("<body>") :]
    parts = ("The service levels are not met: TTFT p99 is ", "output tokens per second on 2 GPUs, ", '"cards"')
    assert [body.index(part) for part in parts] == sorted(body.index(part) for part in parts)


def test_the_answer_says_what_there_is():
    summary = queue(0.5, 200, slo={"ttft_p50": "1h"}).summary
    assert answer(summary)[0].startswith("The service levels are met: TTFT p50 is ")
    assert answer(summary)[0].endswith("(limit 60 min), 100% of the requests are good (wanted 50%).")
    assert len(answer(queue(0.5, 200).summary)) == 1
    assert answer(serve(np.empty(0), np.empty(0, dtype=int)).summary) == ["It costs $3.60 an hour."]


def test_assumptions_say_how_far_kernels_are_off():
    fits = {"kernel.gemm.bf16": 0.041, "kernel.host": None, "kernel.norm": 0.12}
    rows = [{"name": name, "value": error, "kind": "fitted", "source": "a grid", "date": ""} for name, error in fits.items()]
    page = render(queue(0.5, 50, pools=[pool(provenance=rows, extrapolated=["fp8 was never measured"])]))
    for text in ("4.1% to 12% median error, 2 kernels", "4.1 % median error", "error not known", "1 figure was extrapolated"):
        assert text in page


def test_every_table_is_told_of():
    assert set(ROWS) == set(TABLES)


def test_it_holds_what_a_reader_asks_for(page, result):
    for text in ("Service levels", "not met", "Traffic and queue", "What the GPUs did", "Assumptions", "judgement", "datasheet", "a source",
                 "Little", "Digest of the scenario", "kind: poisson", "Seed"):  # fmt: skip
        assert text in page
    assert page.count("<svg") == 6


def test_the_same_result_gives_the_same_page(page):
    again = queue(0.8, 600, replicas=2, slo={"ttft_p99": "3s", "tpot_p50": "5ms"}, name="<b>chat & co</b>", description="a day's traffic")
    assert render(again) == page


def test_plots_use_the_colours_of_the_page(result):
    for plot in plots(Facts(result)):
        assert not re.search(r"#0102[0-9a-f]{2}|#000000|fill: black|font-family", plot.svg)
        assert 'role="img"' in plot.svg
        assert plot.note in plot.svg


def test_several_pools_get_a_plot_of_their_own():
    result = queue(0.5, 200, cluster={"pools": [{"gpu": "h100_sxm"}, {"name": "_$spare", "gpu": "h100_sxm"}]})
    replicas = result.tables["replicas"]
    put(replicas, (replicas.label("pool", "_$spare"), 0, 1, 0.0, result.meta["sim_s"], 10, 16, 0, 0, 0, 0, 0))
    result.meta["pools"].append(pool("_$spare", price_per_hour=None))
    drawn = {plot.title: plot for plot in plots(Facts(result))}
    assert "$spare" in drawn["Busy GPUs by pool"].svg
    assert "_$spare" in render(result)


def test_an_empty_run_has_a_page_without_plots():
    page = render(serve(np.empty(0), np.empty(0, dtype=int)))
    assert "Nothing arrived" in page
    assert "<svg" not in page


def test_one_request_and_a_batch_have_pages():
    assert "<svg" in render(serve(np.zeros(1), np.array([1])))
    assert "at once" in render(serve(np.zeros(80), np.full(80, 40)))


def test_warnings_are_said_first():
    result = queue(0.5, 100, remarks=["poisson: a remark"], pools=[pool(extrapolated=["fp8 was never measured"])])
    requests = result.tables["requests"]
    edit(requests, "status", 3, REJECTED)
    edit(requests, "reason", 3, requests.label("reason", "kv_capacity"))
    page = render(result)
    assert "1 of 100 requests were turned away (kv_capacity 1)" in page
    assert "a remark" in page
    assert "serve: fp8 was never measured" in page
    assert "Checks failed" in page


def test_long_runs_stay_small_and_quick(calm):
    result = queue(0.8, 20_000, replicas=4)
    assert result.summary["verdict"]
    began = time.process_time()
    page = render(result)
    assert len(page) < 600_000
    assert time.process_time() - began < 2.5


def test_figures_in_words():
    assert doctest.testmod(sim.report.words).failed == 0
    assert doctest.testmod(sim.report.gantt).failed == 0


def labelled(values, limit=None):
    """The axes of a spread, and its names of points by their first word."""
    axes = Figure(figsize=(4.3, 3.0)).subplots()
    spread("TTFT", np.array(values), ("requests", "TTFT"), limit).parts[0](axes)
    return axes, {text.get_text().split()[0]: text for text in axes.texts}


def test_latencies_that_differ_by_rounding_are_one():
    axes, _ = labelled(0.0238 + 1e-15 * np.arange(50))
    assert np.ptp(axes.get_xlim()) > 1
    axes.figure.canvas.draw()
    assert not axes.xaxis.get_offset_text().get_text()


def test_names_of_points_stay_within_the_axis():
    values = np.linspace(0.0072, 0.0093, 200)
    for limit, scale in ((0.05, "linear"), (1.0, "log"), (None, "linear")):
        axes, names = labelled(values, limit)
        axes.figure.canvas.draw()
        assert axes.get_xscale() == scale
        inside = axes.get_window_extent()
        for text in names.values():
            assert inside.x0 <= text.get_window_extent().x0 <= text.get_window_extent().x1 <= inside.x1


def test_a_trainer_on_its_own_has_its_assumptions():
    page = render(sim.run({
        "model": "meta-llama/Llama-3.1-8B", "cluster": {"trainers": [{"name": "sft", "gpu": "h100_sxm", "gpus": 8, "micro_batch": 8192}]},
        "workloads": [{"kind": "train", "steps": 2, "batch": 32, "lengths": {"kind": "fixed", "input": 300, "output": 300}}],
    }))  # fmt: skip
    for text in ("none; training takes", "Figures of h100_sxm", "An update", "2 updates"):
        assert text in page
    for text in ("0 of 0 completed", "KV cache, peak", "inf times"):
        assert text not in page
