"""Parts of a run: they add up to the whole, and a warm-up is left out of what it is said to be left out of."""
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from synthetic import queue, serve

import sim.study.figures
import sim.study.replicate.batches
import sim.study.replicate.window
from sim.core.errors import BadInput, did_you_mean
from sim.study.figures import findings, flat, known
from sim.study.metrics import Facts
from sim.study.replicate.batches import batches
from sim.study.replicate.window import GROUPS, REQUESTS, cut_figures, is_cut, warmed, window


@pytest.fixture(scope="module")
def run():
    return queue(0.7, 1500, replicas=2, slo={"ttft_p99": "3s"})


@pytest.mark.parametrize("module", [sim.study.replicate.window, sim.study.figures, sim.study.replicate.batches])
def test_the_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("where", [0.3, 0.5, 0.77])
def test_two_parts_add_up(run, where):
    at = where * run.meta["sim_s"]
    whole, parts = Facts(run), [Facts(window(run, 0.0, at)), Facts(window(run, at, math.inf))]
    for name in ("busy", "flops", "bytes_moved", "computed", "decoded"):
        assert sum(vars_of(part.work, name) for part in parts) == pytest.approx(vars_of(whole.work, name), rel=1e-9)
    assert sum(part.counts for part in parts).tolist() == whole.counts.tolist()
    assert sum(part.lifetimes.sum() for part in parts) == pytest.approx(whole.lifetimes.sum() + 2 * (whole.begin - 0.0))


def vars_of(work, name):
    return work._asdict()[name]


def test_a_part_is_made_of_its_requests(run):
    part, rows = window(run, 100.0, 300.0), run.tables["requests"]
    mine = (rows["arrival"] >= 100.0) & (rows["arrival"] < 300.0)
    assert len(part.tables["requests"]) == mine.sum()
    assert part.tables["requests"]["request"].tolist() == rows["request"][mine].tolist()
    facts = Facts(part)
    assert (facts.begin, facts.end, facts.span) == (100.0, 300.0, 200.0)
    assert facts.spreads["ttft"]["mean"] == pytest.approx((rows["first_token"] - rows["arrival"])[mine].mean())
    assert (part.tables["stretches"]["start"] >= 100.0).all()
    assert len(Facts(window(run, 1e9, 2e9)).times("ttft")) == 0


def test_a_warm_up_is_left_out(run):
    settled = warmed(run, 120.0)
    facts, summary, whole = Facts(run), settled.summary, run.summary
    cut = facts.begin + 120.0
    kept = run.tables["requests"]["arrival"] >= cut
    assert summary["requests"]["arrived"] == kept.sum()
    assert summary["warmup"]["requests"] == (~kept).sum()
    assert summary["throughput"]["requests_per_s"] == pytest.approx(kept.sum() / (facts.end - cut))
    assert summary["ttft_s"] != whole["ttft_s"]
    # What is not said to be cut is not.
    rest = [name for name in flat(whole) if not is_cut(name, GROUPS) and not name.startswith("run.")]
    assert {name: flat(summary)[name] for name in rest} == {name: flat(whole)[name] for name in rest}
    assert (summary["verdict"], summary["audit"]) == (whole["verdict"], whole["audit"])
    assert f"{(~kept).sum():,} of 1,500 requests" in settled.meta["remarks"][-1]


def test_no_warm_up_is_the_run(run):
    assert warmed(run, None) is run


def test_mser_finds_a_queue_that_empties():
    """Two hundred requests at once, and then a steady trickle."""
    rng = np.random.Generator(np.random.PCG64(3))
    arrivals = np.concatenate([np.linspace(0, 1, 200), 1 + np.cumsum(rng.exponential(1.2, 1000))])
    result = serve(arrivals, rng.geometric(1 / 50, 1200))
    settled = warmed(result, "mser")
    said = settled.summary["warmup"]
    drained = result.tables["requests"]["first_token"][199]
    assert said["method"] == "MSER-5"
    assert 0.5 * drained < said["seconds"] < 3 * drained
    assert settled.summary["ttft_s"]["mean"] < 0.5 * result.summary["ttft_s"]["mean"]
    assert said["settled"]["ttft"]


def test_what_does_not_settle_is_said():
    overloaded = queue(1.6, 800)
    assert any("no steady state was seen" in text for text in warmed(overloaded, "mser").meta["remarks"])


def test_a_warm_up_longer_than_the_run(run):
    with pytest.raises(BadInput, match="is longer than requests arrive"):
        warmed(run, 1e6)


def test_what_is_shared_with_others_is_not_cut(run):
    assert cut_figures(run.meta) == GROUPS
    assert "gpu" not in cut_figures(run.meta | {"trainers": [{}]})
    assert set(cut_figures(run.meta | {"trainers": [{}], "rl": [{}]})) & set(REQUESTS) == set(REQUESTS) - {"requests"}


def test_batches_are_of_the_whole(run):
    found = batches(run, 8)
    assert (len(found), found.method) == (8, "batch means")
    one = found.interval("ttft_s.p50")
    assert one.mean == run.summary["ttft_s"]["p50"]
    assert one.low < one.mean < one.high
    rate = found.interval("throughput.requests_per_s")
    assert rate.low < 1500 / Facts(run).span < rate.high
    assert not [name for name in found.names if name.startswith("requests.") or name == "cost.usd_total"]
    with pytest.raises(BadInput, match="2 or more"):
        batches(run, 1)


def test_batches_that_are_too_short(run):
    assert "fewer than 30 requests" in batches(run, 60).remarks[0]
    with pytest.raises(BadInput, match="nothing arrives in batch"):
        batches(serve(np.array([0.0, 1.0, 2.0, 100.0]), np.array([5, 5, 5, 5])), 10)
    overloaded = batches(queue(1.6, 800), 8)
    assert any("hang together in ttft_s.p50" in text for text in overloaded.remarks)


def test_figures_are_named_as_in_the_summary(run):
    found = flat(run.summary)
    assert found["ttft_s.p99"] == run.summary["ttft_s"]["p99"]
    assert found["slo.met"] is run.summary["slo"]["met"]
    assert all(isinstance(value, (int, float)) for value in found.values())
    assert not [name for name in findings(found) if name.startswith(("run.", "audit."))]
    with pytest.raises(BadInput) as error:
        known("ttft.p99", list(found), "--figure")
    assert str(error.value) == f"--figure: unknown figure 'ttft.p99'; {did_you_mean('ttft.p99', findings(found))}"
