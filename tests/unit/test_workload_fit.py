"""Fitting a log: parameters of synthetic logs come back, held-out figures are met where a log is stationary, and bad logs are refused."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from driven import World, driven

from sim.core.errors import BadInput
from sim.core.registry import LENGTHS, WORKLOADS
from sim.core.rng import stream
from workloads.fitting import candidates, chains, figures, log, scales, subjects
from workloads.fitting.fit import fit
from workloads.fitting.lengths import lengths
from workloads.fitting.log import Log
from workloads.fitting.traffic import sent

LOGNORMAL = {"kind": "lognormal", "input": {"mean": 1000, "p99": 4000}, "output": {"mean": 200, "p99": 800}, "correlation": 0.4}
FIXED = {"kind": "fixed", "input": 100, "output": 10}
MMPP = {"kind": "mmpp", "states": [{"rate": 1, "mean_stay": 30}, {"rate": 15, "mean_stay": 10}]}


def synthetic(options, span, seed=5):
    checked, problems = WORKLOADS.check({"lengths": LOGNORMAL, "duration": span, **options})
    assert problems == []
    found = sent(checked, span, seed)
    return Log("synthetic", found.times, found.prompt, found.output, span, 0.0, None, [])


def estimate(kind, options, span):
    return candidates.fit(kind, candidates.arrivals(synthetic(options, span)))


def test_gaps_come_back():
    assert estimate("poisson", {"kind": "poisson", "rate": 5}, 4000.0)["rate"] == pytest.approx(5, rel=0.03)
    assert estimate("gamma", {"kind": "gamma", "rate": 5, "cv": 3}, 4000.0)["cv"] == pytest.approx(3, rel=0.05)
    assert estimate("weibull", {"kind": "weibull", "rate": 5, "cv": 2}, 4000.0)["cv"] == pytest.approx(2, rel=0.05)


def test_self_excitement_comes_back():
    found = estimate("hawkes", {"kind": "hawkes", "rate": 5, "branching": 0.7, "decay": 4}, 8000.0)
    assert found["branching"] == pytest.approx(0.7, rel=0.05)
    assert found["decay"] == pytest.approx(4, rel=0.15)


def test_a_chain_of_two_states_comes_back():
    calm, busy = estimate("mmpp", MMPP, 20_000.0)["states"]
    assert calm["rate"] == pytest.approx(1, rel=0.2)
    assert busy["rate"] == pytest.approx(15, rel=0.1)
    assert calm["mean_stay"] == pytest.approx(30, rel=0.15)
    assert busy["mean_stay"] == pytest.approx(10, rel=0.15)


def test_slow_swings_and_the_gaps_within_come_back():
    options = {"kind": "diurnal", "rate": 5, "peak_to_mean": 1, "cv": 2, "scale": 30, "noise": {"sigma": 0.5, "memory": 3000}}
    found = estimate("swings", options, 20_000.0)
    assert found["cv"] == pytest.approx(2, rel=0.05)
    assert found["noise"]["sigma"] == pytest.approx(0.5, rel=0.15)
    assert found["noise"]["memory"] / found["scale"] == pytest.approx(100, rel=0.4)


def test_a_day_comes_back():
    options = {"kind": "diurnal", "rate": 0.3, "peak_to_mean": 2, "peak": "15:00"}
    found = estimate("diurnal", options, 3 * 86400.0)
    assert max(found["curve"]) == pytest.approx(2, rel=0.07)
    assert found["curve"].index(max(found["curve"])) in (13, 14, 15, 16)
    assert "weekdays" not in found
    assert "noise" not in found or found["noise"]["sigma"] < 0.1
    assert candidates.shifted(found, 86400 + 7200.0)["begin"] == "Tue 02:00"
    assert "2 days" in estimate("diurnal", options, 86400.0)


def test_a_rate_that_does_not_vary_has_no_scales():
    assert estimate("mmpp", {"kind": "poisson", "rate": 5}, 2000.0) == "the rate does not vary"


def test_the_local_cv_is_blind_to_slow_changes():
    rng = stream(3, "gaps")
    gaps = rng.standard_gamma(0.25, 40_000) * np.repeat([1.0, 30.0], 20_000)
    assert gaps.std() / gaps.mean() > 2.5
    assert candidates.local_cv(gaps) == pytest.approx(2.0, rel=0.03)


def test_scales_have_the_fano_curve_of_their_chain():
    some = [scales.Scale(3.0, 0.5), scales.Scale(0.4, 60.0)]
    options = chains.options(4.0, some, [0.2, 0.5])
    checked, problems = WORKLOADS.check({**options, "lengths": FIXED, "num_requests": 1})
    assert problems == []
    workload = WORKLOADS.make(checked)
    windows = np.array([0.1, 1.0, 10.0, 100.0])
    assert [workload.fano(window) for window in windows] == pytest.approx(scales.law(4.0, some)(windows).tolist(), rel=1e-4)
    assert workload.mean_rate() == pytest.approx(4.0)


def test_the_likelihood_is_that_of_poisson_gaps_without_variation_and_prefers_the_truth():
    gaps = stream(4, "gaps").standard_exponential(500) / 3
    flat = chains.chain(3.0, [scales.Scale(1e-12, 5.0)], [0.5])
    assert chains.likelihood(gaps, flat) == pytest.approx(float(np.sum(math.log(3) - 3 * gaps)), rel=1e-6)
    made = synthetic(MMPP, 3000.0)
    truth = [scales.Scale(14**2 * 0.25 * 0.75 / 4.5**2, 7.5)]
    likelihoods = [chains.likelihood(np.diff(made.times)[:3000], chains.chain(4.5, truth, [high])) for high in (0.05, 0.25)]
    assert likelihoods[1] > likelihoods[0]


def test_figures_are_their_definitions():
    times = np.array([0.5, 1.5, 1.6, 4.5, 5.5, 6.5, 7.5, 8.5, 8.6, 9.5])
    found = figures.figures(times, np.arange(1, 11), np.arange(10, 0, -1), 10.0)
    counts = np.array([1, 2, 0, 0, 1, 1, 1, 1, 2, 1])
    assert found["rate"] == 1.0
    assert found["fano_1s"] == pytest.approx(counts.var() / counts.mean())
    assert found["peak_1s"] == 2.0
    assert math.isnan(found["fano_10s"])
    assert found["input_p50"] == 5.5
    assert found["spearman"] == pytest.approx(-1.0)
    # By hand: ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert figures.rank_correlation(np.array([4, 4, 9]), np.array([1, 2, 3])) == pytest.approx(3 / math.sqrt(12))


def test_lengths_keep_kinds_of_request_apart():
    rng = stream(6, "lengths")
    # Two kinds whose rank correlation is nearly nothing, though each prompt tells its kind.
    kind = rng.random(6000) < 0.3
    prompt = np.where(kind, 4000 + rng.integers(0, 50, 6000), rng.integers(100, 3000, 6000))
    output = np.where(kind, 90 + rng.integers(0, 10, 6000), np.where(rng.random(6000) < 0.5, 20, 400) + rng.integers(0, 40, 6000))
    options = lengths(prompt, output)
    assert np.sum(options["copula"]) == pytest.approx(10_000, abs=100)
    checked, problems = LENGTHS.check(options)
    assert problems == []
    drawn = LENGTHS.make(checked).draw(stream(7, "lengths"), 40_000)
    assert figures.correlation(*drawn) == pytest.approx(figures.correlation(prompt, output), abs=0.03)
    assert figures.rank_correlation(*drawn) == pytest.approx(figures.rank_correlation(prompt, output), abs=0.03)
    long = drawn[0] >= 4000
    assert np.mean((drawn[1][long] >= 85) & (drawn[1][long] < 105)) > 0.85
    assert "correlation" in lengths(prompt[:250], output[:250])


@pytest.mark.parametrize(
    ("copula", "said"),
    [
        ([[1, 0], [0, 1, 1]], "found 2 rows and rows of 2, 3 numbers; a square is wanted"),
        ([[1, 0], [1, 0]], "column 1 holds 100 % of the requests; the 2 parts are equal, so 50 % are wanted"),
        ([[0, 0], [0, 0]], "all are zero"),
    ],
)
def test_a_copula_has_equal_parts(copula, said):
    marks = [[0, 1], [1, 100]]
    _, problems = LENGTHS.check({"kind": "empirical", "input": marks, "output": marks, "copula": copula})
    assert said in problems[0].message
    _, problems = LENGTHS.check({"kind": "empirical", "input": marks, "output": marks, "copula": [[1, 0], [0, 1]], "correlation": 0.3})
    assert [problem.path for problem in problems] == ["correlation"]


def test_a_stationary_log_is_met_on_its_later_part():
    made = synthetic({"kind": "gamma", "rate": 20, "cv": 2}, 6000.0)
    found = fit(made, kind="gamma", seeds=6)
    assert found.best.kind == "gamma"
    assert [row.quantity.name for row in found.rows if row.verdict not in ("met", "chance")] == []
    error = {row.quantity.name: row.error for row in found.rows}
    assert all(abs(error[name]) < 0.05 for name in ("rate", "gap_cv", "input_p50", "output_p90", "spearman"))
    assert found.workload["duration"] == 6000.0


def test_what_was_fitted_is_a_workload():
    found = fit(synthetic(MMPP, 1000.0), kind="mmpp", seeds=5)
    assert len(driven(found.workload).requests) == pytest.approx(len(found.log.times), rel=0.4)


def test_drift_is_told_from_the_fault_of_the_generator():
    first, later = synthetic({"kind": "poisson", "rate": 10}, 700.0), synthetic({"kind": "poisson", "rate": 5}, 300.0)
    times = np.concatenate([first.times, 700 + later.times])
    both = first._replace(
        times=times, prompt=np.concatenate([first.prompt, later.prompt]), output=np.concatenate([first.output, later.output]), span=1000.0
    )
    found = fit(both, kind="poisson", seeds=5)
    rate = found.rows[0]
    assert (rate.quantity.name, rate.verdict) == ("rate", "drift")
    assert rate.drift == pytest.approx(-0.5, abs=0.05)
    assert abs(rate.own) < 0.05


def test_too_little_to_judge():
    with pytest.raises(BadInput, match=r"the later part, of 10 s, holds \d+ requests; at least 50"):
        fit(synthetic({"kind": "poisson", "rate": 3}, 100.0), train=0.9)


def test_ticks_are_recognised_and_written_the_same_way():
    made = synthetic({"kind": "poisson", "rate": 4}, 600.0)
    coarse = np.floor(made.times / 3) * 3
    assert log.ticks(coarse) == 3.0
    assert log.ticks(made.times) == 0.0
    assert log.ticks(np.round(made.times, 3)) == 0.0
    spread = log.clocked(made.times, 3.0)
    assert (np.floor(spread / 3) * 3 == coarse).all()
    assert (np.diff(spread) > 0).all()
    told = figures.figures(spread, made.prompt, made.output, 600.0, 3.0)
    assert [name for name, value in told.items() if math.isnan(value)] == ["gap_cv", "fano_1s", "fano_600s", "peak_1s"]


@pytest.mark.parametrize("options", [{"kind": "poisson", "rate": 4}, {"kind": "gamma", "rate": 4, "cv": 6}, MMPP])
def test_pauses_of_bursty_traffic_are_no_holes(options):
    assert log.holes(synthetic(options, 5000.0).times) == []


def test_holes_are_found_where_they_are():
    times = synthetic({"kind": "poisson", "rate": 4}, 5000.0).times
    holed = times[((times < 1000) | (times > 1600)) & ((times < 3000) | (times > 3900))]
    one, other = log.holes(holed)
    assert (one.begin, one.end) == pytest.approx((1000, 1600), abs=3)
    assert (other.begin, other.end) == pytest.approx((3000, 3900), abs=3)
    # The first hole lies partly in the half-hour before, which makes the mean gap there longer.
    assert 900 * 4 > other.times > 900 * 3


class Named(World):
    """Streams named as a run names them."""

    def rng(self, name):
        return stream(self.seed, f"{self.name}.{name}")


@pytest.mark.parametrize("options", [{"kind": "gamma", "rate": 4, "cv": 2}, {"kind": "clients", "count": 4, "rate": 3}])
def test_blocks_drawn_and_a_workload_driven_are_the_same(options):
    checked, _ = WORKLOADS.check({**options, "lengths": LOGNORMAL, "duration": 300.0, "start": 5.0})
    found = sent(checked, 1000.0, 1, "test")
    plain = [(request.arrival, request.prompt, request.output) for request in driven(checked, Named()).requests]
    assert found.times == pytest.approx([row[0] for row in plain])
    assert found.prompt.tolist() == [row[1] for row in plain]
    assert found.output.tolist() == [row[2] for row in plain]


def test_prompts_seen_before_are_counted():
    sessions = {"kind": "sessions", "rate": 2, "num_sessions": 50, "turns": 4, "turns_law": "fixed", "think_time": 5, "lengths": FIXED}
    (shown,), remarks = subjects.of_workloads(str(sessions), None, None)
    # Prompts of 100, 210, 320 and 430 tokens, of which 0, 110, 220 and 330 were there before.
    assert shown.shared == pytest.approx(660 / 1060)
    assert remarks == []
    alike = {"kind": "poisson", "rate": 2, "num_requests": 100, "shared_prefix": 50, "lengths": FIXED}
    (shared,), _ = subjects.of_workloads(str(alike), None, 1)
    assert shared.shared == pytest.approx(0.5 * 99 / 100)


def test_a_file_tells_what_its_prompts_share(tmp_path):
    rows = [{"timestamp": 100 * i, "input_length": 1024, "output_length": 5, "hash_ids": [7, 100 + i]} for i in range(300)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert log.read(str(tmp_path / "log.jsonl")).shared == pytest.approx(299 / 600)
