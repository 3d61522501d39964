"""A run read page by page says what it says read whole: in memory, spooled to files, and saved and opened again."""
from __future__ import annotations

import numpy as np
import pytest
from synthetic import queue, serve

from sim.core import record
from sim.report.page import render
from sim.study.facts import Bins
from sim.study.result import Result
from sim.study.run import run


@pytest.fixture
def small_pages(monkeypatch):
    def shrink(chunk=64, keep=200):
        monkeypatch.setattr(record, "CHUNK", chunk)
        monkeypatch.setattr(record, "KEEP", keep)

    return shrink


def busy():
    return queue(0.9, 700, replicas=3, slo={"ttft_p99": "3s", "tpot_p50": "5ms"})


def cut():
    return queue(1.3, 400, horizon=120.0)


def tight():
    """A cache too small for its load."""
    traffic = {"kind": "poisson", "rate": 60, "num_requests": 300, "lengths": {"kind": "uniform", "input": [50, 400], "output": [5, 300]}}
    pool = {"gpu": "h100_sxm", "replicas": 2, "engine": {"num_gpu_blocks_override": 80}}
    return run({"name": "tight", "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [traffic]})


WORKS = [busy, cut, tight]


def said(result):
    """The summary without what a clock on the wall decides."""
    summary = dict(result.summary)
    return summary | {"run": {key: value for key, value in summary["run"].items() if key != "cpu_s"}}


def alike(one, other):
    """Equal, but for the rounding of sums and percentiles of the order they are added in."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            alike(one[key], other[key])
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-12)
    else:
        assert one == other


@pytest.mark.parametrize("make", WORKS)
def test_spooled_is_in_memory(small_pages, make):
    whole = make()
    small_pages()
    paged = make()
    assert paged.tables["stretches"]._parts
    assert sum(1 for _ in paged.tables["stretches"].pages()) > 5
    alike(said(whole), said(paged))


def test_the_tight_run_preempts():
    assert tight().summary["kv"]["preemptions"] > 10


@pytest.mark.parametrize("pages", [False, True])
@pytest.mark.parametrize("make", WORKS)
def test_saved_and_opened_is_live(small_pages, tmp_path, make, pages):
    if pages:
        small_pages()
    live = make()
    for name, table in live.tables.items():
        table.save(tmp_path / f"{name}.parquet")
    again = Result(live.scenario, {name: record.Table.open(tmp_path / f"{name}.parquet") for name in live.tables}, live.meta)
    assert again.summary == live.summary
    assert render(again) == render(live)


def test_the_pages_of_a_report_are_one_drawing(small_pages):
    whole = render(queue(0.8, 500, replicas=2))
    small_pages()
    # Coordinates are drawn to a few digits, which rounding may turn.
    assert len(render(queue(0.8, 500, replicas=2))) == pytest.approx(len(whole), rel=1e-3)


def test_a_fault_is_found_in_any_page(small_pages):
    small_pages(16, 10**6)
    result = serve(np.arange(100.0), np.full(100, 5))
    assert len(result.tables["stretches"]._chunks) > 5
    result.tables["stretches"]._chunks[3]["start"][5] -= 100
    result.tables["requests"]._chunks[2]["output_tokens"][7] = 4
    entries = result.summary["audit"]
    assert "completed too short: 1 rows, first row 39" in entries["I1"]["detail"]
    assert entries["I3"]["detail"] == "stretch begins before the one recorded before it ends: 1 rows, first row 53"
    assert not entries["tokens"]["ok"]


def test_an_idle_engine_is_found_across_pages(small_pages):
    """The gap lies between two pages, and the request that waited in it in another."""
    small_pages(2, 10**6)
    result = serve(np.arange(8.0), np.full(8, 5))
    requests = result.tables["requests"]
    requests["request"]
    requests._chunks[2]["arrival"][0] = 2.5
    assert result.summary["audit"]["I4"]["detail"] == "replica 0 idle with work at 2.06001 s"


def test_a_page_reads_what_is_asked_for(small_pages):
    small_pages()
    table = queue(0.5, 300).tables["requests"]
    pages = list(table.pages())
    assert [page.first for page in pages] == np.cumsum([0, *(len(page) for page in pages)])[:-1].tolist()
    walk = table.pages()
    page = next(walk)
    page["arrival"]
    assert list(page._columns) == ["arrival"]


def test_bins_are_exact():
    rng = np.random.Generator(np.random.PCG64(3))
    edges = np.linspace(2.0, 11.0, 7)
    start = rng.uniform(0, 12, 300)
    end, weight = start + rng.exponential(2, 300), rng.integers(1, 9, 300)
    bins = Bins(edges)
    for part in np.array_split(np.arange(300), 4):
        bins.add(start[part], end[part], weight[part])
    low, high = edges[:-1, None], edges[1:, None]
    covered = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None)
    assert bins.means() == pytest.approx((covered * weight).sum(axis=1) / (high - low)[:, 0], rel=1e-12)
    assert Bins(edges).add(np.array([0.0]), np.array([20.0])).means() == pytest.approx(np.ones(6))
