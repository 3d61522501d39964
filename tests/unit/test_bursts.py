"""Traffic whose rate changes: means, Fano factors and curves against closed forms; common random numbers; bad input."""
from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from driven import driven

import sim
from sim.core.errors import BadInput
from sim.core.registry import WORKLOADS
from sim.core.rng import stream
from workloads import _days
from workloads._clients import GRID, pooled
from workloads._rate import gaps, points, swings, until, warped
from workloads.mmpp import Mmpp, State

FIXED = {"kind": "fixed", "input": 100, "output": 10}
ON_OFF = {"kind": "mmpp", "states": [{"rate": 1, "mean_stay": 30}, {"rate": 20, "mean_stay": 10}]}
RING = {
    "kind": "mmpp",
    "states": [{"rate": 0, "mean_stay": 5}, {"rate": 3, "mean_stay": 20}, {"rate": 12, "mean_stay": 8}],
    "transitions": [[0, 1, 0], [0.25, 0, 0.75], [0.5, 0.5, 0]],
}
HAWKES = {"kind": "hawkes", "rate": 4, "branching": 0.6, "decay": 6}
DIURNAL = {"kind": "diurnal", "rate": 4, "preset": "burstgpt"}
CROWD = {"kind": "flash_crowd", "rate": 4, "spikes": [{"at": 1000, "height": 6, "rise": 100, "hold": 300, "decay": 200}]}
CLIENTS = {"kind": "clients", "rate": 4, "count": 30, "cv": 3, "noise": {"sigma": 0.5}}
EVERY = {"mmpp": {**ON_OFF, "rate": 4}, "hawkes": HAWKES, "diurnal": DIURNAL, "flash_crowd": CROWD, "clients": CLIENTS}
EVERY["preset"] = {"kind": "clients", "preset": "servegen_m_small", "rate": 4}


def made(options):
    checked, problems = WORKLOADS.check(options)
    assert problems == []
    workload = WORKLOADS.make(checked)
    workload.prepare()
    return workload


def sent(options, end, seed=1):
    """Times before `end`, and who sent each."""
    parts = []
    for times, who in made({"lengths": FIXED, "duration": end, **options}).sent(stream(seed, "arrivals")):
        parts.append(np.stack([times, np.zeros(len(times)) if who is None else who]))
        if times[-1] >= end:
            break
    times, who = np.concatenate(parts, axis=1)
    inside = times < end
    return times[inside], who[inside].astype(int)


def fano(times, window, end):
    counts = np.bincount((times // window).astype(int), minlength=int(end // window))[: int(end // window)]
    return counts.var() / counts.mean()


def problems(options):
    return [(problem.path, problem.message) for problem in WORKLOADS.check({"num_requests": 5, "lengths": FIXED, **options})[1]]


@pytest.mark.parametrize("options", [ON_OFF, RING, {**RING, "rate": 2}, HAWKES, {**HAWKES, "branching": 0.85, "decay": 20}])
def test_mean_and_fano_factors_are_the_closed_forms(options):
    end = 240_000.0
    times, _ = sent(options, end)
    workload = made({**options, "num_requests": 1, "lengths": FIXED})
    rate = workload.mean_rate() if options["kind"] == "mmpp" else workload.rate
    assert len(times) / end == pytest.approx(rate, rel=5 * math.sqrt(workload.fano(math.inf) / len(times)))
    for window in (1, 10, 60, 600):
        # Five standard errors of a variance; counts of bursts are skewed, which widens it at short windows.
        error = 5 * math.sqrt(2 / (end / max(window, 100)))
        assert fano(times, window, end) == pytest.approx(workload.fano(window), rel=error)


def test_closed_forms_agree_with_published_special_cases():
    first, second, out, back = 2.0, 30.0, 1 / 60, 1 / 20
    two = Mmpp(states=[State(rate=first, mean_stay=1 / out), State(rate=second, mean_stay=1 / back)], num_requests=1, lengths=None)
    # Heffes and Lucantoni 1986, IEEE JSAC 4(6): the limit of two states.
    limit = 1 + 2 * (first - second) ** 2 * out * back / ((out + back) ** 2 * (first * back + second * out))
    assert two.mean_rate() == pytest.approx((first * back + second * out) / (out + back))
    assert two.fano(math.inf) == pytest.approx(limit)
    assert two.fano(1e-4) == pytest.approx(1, abs=0.01)
    hawkes = made({**HAWKES, "num_requests": 1, "lengths": FIXED})
    assert hawkes.fano(math.inf) == pytest.approx(1 / (1 - 0.6) ** 2)
    assert hawkes.fano(1e-6) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("branching", [0.0, 0.9])
def test_self_excitement_is_in_equilibrium_from_the_start(branching):
    options = {**HAWKES, "branching": branching}
    counts = np.array([len(sent(options, 20.0, seed)[0]) for seed in range(200)])
    spread = made({**options, "num_requests": 1, "lengths": FIXED}).fano(20.0)
    assert counts.mean() == pytest.approx(80, abs=5 * math.sqrt(80 * spread / 200))
    assert counts.var() / counts.mean() == pytest.approx(spread, rel=0.45)


@pytest.mark.parametrize("law", [gaps("gamma", 4.0), gaps("weibull", 3.0), gaps("gamma", 0.3), gaps("weibull", 0.4), gaps("gamma", 1.0)])
def test_points_are_stationary_from_the_start(law):
    """In equilibrium the expected number in [0, t] is t, for any t and any law."""
    rng = stream(3, "points")
    counts = np.array([np.searchsorted(next(points(rng, law, 64)), (0.5, 5.0)) for _ in range(3000)])
    error = 5 * counts.std(axis=0) / math.sqrt(len(counts))
    assert (np.abs(counts.mean(axis=0) - (0.5, 5.0)) < error).all()
    steps = np.diff(next(points(rng, law, 200_000)))
    assert steps.std() == pytest.approx(1.0 if law.shape == 1 else {0.0625: 4.0, 1 / 0.09: 0.3}.get(law.shape, steps.std()), rel=0.04)


def test_warping_is_exact():
    """Where the rate is known, points are found again from the times."""
    lengths, rates = np.array([3.0, 2.0, 4.0, 1.0]), np.array([2.0, 0.0, 0.5, 7.0])
    process = np.linspace(0.01, 14.9, 1000)
    times = np.concatenate(list(warped(iter([process[:400], process[400:], np.array([99.0])]), iter([(lengths, rates)] * 2))))
    edges = np.concatenate(([0.0], np.cumsum(np.tile(lengths, 2))))
    work = np.concatenate(([0.0], np.cumsum(np.tile(lengths * rates, 2))))
    np.testing.assert_allclose(np.interp(times, edges, work), process, rtol=1e-12)
    assert not ((times > 3) & (times < 5)).any()


def test_pieces_end_with_the_traffic():
    block = np.array([2.0, 3.0]), np.array([1.0, 2.0])
    for end, blocks in ((0.5, 1), (5.0, 1), (5.1, 2), (None, 4)):
        assert len(list(until(iter([block] * 4), end))) == blocks


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_a_longer_run_begins_with_the_same_requests(kind):
    options = {"lengths": {"kind": "uniform", "input": [1, 1000], "output": [1, 50]}, **EVERY[kind]}
    if kind == "preset":
        del options["lengths"]
    worlds = [driven({**options, "num_requests": count}) for count in (500, 6000)]
    rows = [[(request.arrival, request.prompt, request.output) for request in world.requests] for world in worlds]
    assert len(rows[1]) == 6000
    assert rows[1][:500] == rows[0]
    end = rows[1][4500][0]
    timed = driven({**options, "duration": end})
    assert [(request.arrival, request.prompt, request.output) for request in timed.requests] == rows[1][:4500]


def test_a_higher_rate_squeezes_the_same_bursts():
    slow, fast = ({"kind": "clients", "rate": rate, "count": 10, "cv": 3} for rate in (2, 6))
    (at, who), (squeezed, same) = sent(slow, 3000), sent(fast, 1000)
    np.testing.assert_allclose(squeezed, at / 3)
    assert (who == same).all()
    (at, _), (squeezed, _) = sent({**HAWKES, "branching": 0}, 3000), sent({**HAWKES, "branching": 0, "rate": 12}, 1000)
    np.testing.assert_allclose(squeezed, at / 3)
    # What the crowd or the hour expects of a request is its place among all: k-th request, k-th point.
    (at, _), (twice, _) = sent(DIURNAL, 86400), sent({**DIURNAL, "rate": 8}, 86400)
    curve = np.concatenate(([0.0], np.cumsum(made({**DIURNAL, "num_requests": 1, "lengths": FIXED}).day()) * 300))
    expected = [np.interp(times, np.arange(289) * 300.0, curve) for times in (at, twice)]
    np.testing.assert_allclose(2 * expected[1][: len(at)], expected[0], rtol=1e-9)


def test_a_published_day_comes_back():
    days = 8
    times, _ = sent(DIURNAL, days * 86400)
    hours = np.array(_days.published("burstgpt"))
    expected = len(times) * hours / hours.sum()
    counted = np.bincount((times % 86400 // 3600).astype(int), minlength=24)
    assert (np.abs(counted - expected) < 5 * np.sqrt(expected)).all()
    assert len(times) == pytest.approx(4 * days * 86400, rel=0.01)


def test_hours_keep_their_share_and_move_smoothly():
    curve = _days.smooth(_days.published("burstgpt"))
    hours = np.array(_days.published("burstgpt"))
    np.testing.assert_allclose(curve.reshape(24, 12).mean(axis=1), hours / hours.mean(), rtol=1e-9)
    around = np.append(curve, curve[0])
    # No jump as large as that between two hours.
    assert np.abs(np.diff(around)).max() < np.abs(np.diff(hours)).max() / hours.mean() / 2
    assert curve.min() >= 0


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0, 12.0])
def test_the_height_of_a_peak(ratio):
    curve = _days.peaked(ratio, 14 * 3600.0)
    assert curve.mean() == pytest.approx(1)
    assert curve.max() == pytest.approx(ratio, rel=0.01)
    assert ratio == 1 or abs(int(curve.argmax()) - 14 * 12) <= 1


def test_weekdays_zones_and_speed():
    busy = [1.0] * 24
    busy[9] = 50.0
    week = {"kind": "diurnal", "rate": 0.5, "curve": busy, "weekdays": [1, 1, 1, 1, 1, 0, 0]}
    at, _ = sent(week, 7 * 86400)
    assert at.max() < 5 * 86400
    assert len(at) == pytest.approx(0.5 * 7 * 86400, rel=0.01)
    saturday, _ = sent({**week, "begin": "Sat 12:00"}, 2 * 86400)
    assert saturday.min() > 1.5 * 86400
    for begin, zone, hour in (("00:00", 0, 9), ("06:00", 0, 3), ("06:00", "2h", 1), ("00:00", "-8h", 17)):
        at, _ = sent({**week, "weekdays": None, "begin": begin, "time_zone": zone}, 86400)
        assert np.bincount((at // 3600).astype(int)).argmax() == hour
    quick, _ = sent({**week, "weekdays": None, "scale": 24, "rate": 20}, 3600)
    assert np.bincount((quick // 150).astype(int)).argmax() == 9


def test_burstiness_and_noise_come_on_top_of_the_curve():
    bunched, _ = sent({**DIURNAL, "cv": 3}, 5 * 86400)
    curve = np.concatenate(([0.0], np.cumsum(np.tile(made({**DIURNAL, "num_requests": 1, "lengths": FIXED}).day(), 5)) * 300 * 4))
    points_ = np.interp(bunched, np.arange(len(curve)) * 300.0, curve)
    assert np.diff(points_).std() == pytest.approx(3, rel=0.03)
    flat = {"kind": "diurnal", "rate": 0.2, "peak_to_mean": 1, "noise": {"sigma": 0.4, "memory": "1h"}}
    end = 200 * 86400
    times, _ = sent(flat, end)
    counts = np.bincount((times // 600).astype(int))
    assert counts.mean() == pytest.approx(120, rel=0.03)
    # Poisson counts, and the variance of the mean of two neighbouring factors, whose covariance is exp(sigma^2 r) - 1.
    swing = (math.expm1(0.16) + math.expm1(0.16 * math.exp(-300 / 3600))) / 2
    assert counts.var() / 120**2 == pytest.approx(1 / 120 + swing, rel=0.12)


def test_swings_have_the_spread_and_memory_asked_for():
    factors = swings(stream(1, "swings"), 0.5, 3000.0, 300.0)
    values = np.array([next(factors) for _ in range(200_000)])
    logs = np.log(values)
    assert values.mean() == pytest.approx(1, rel=0.02)
    assert logs.std() == pytest.approx(0.5, rel=0.02)
    assert np.corrcoef(logs[:-10], logs[10:])[0, 1] == pytest.approx(math.exp(-1), abs=0.03)


def test_a_crowd_brings_what_its_shape_says():
    """(height - 1) rate (rise / 2 + hold + decay) requests more, and `height` times the rate while it stays."""
    runs = [sent(CROWD, 4000, seed)[0] for seed in range(40)]
    more = 5 * 4 * (50 + 300 + 200)
    assert np.mean([len(run) for run in runs]) == pytest.approx(16_000 + more, rel=0.005)
    assert np.mean([((run > 1100) & (run < 1400)).sum() for run in runs]) == pytest.approx(300 * 24, rel=0.01)
    rising = np.mean([((run > 1000) & (run < 1050)).sum() for run in runs])
    # The first half of the rise: half a cosine's integral, 50 / 2 - 100 / 2 pi.
    assert rising == pytest.approx(4 * (50 + 5 * (25 - 100 / (2 * math.pi))), rel=0.03)
    several = {"kind": "flash_crowd", "rate": 1, "random": {"per_day": 20, "height": 10, "hold": 200}}
    days = 60
    times, _ = sent(several, days * 86400)
    assert len(times) / (days * 86400) == pytest.approx(1 + 20 * 9 * 200 / 86400, rel=0.05)


def test_clients_have_their_shares_and_add_up_to_their_bursts():
    options = {"kind": "clients", "rate": 10, "count": 8, "zipf": 1.5, "cv": 3}
    end = 360_000.0
    times, who = sent(options, end)
    shares = np.arange(1, 9) ** -1.5
    shares /= shares.sum()
    np.testing.assert_allclose(np.bincount(who) / len(who), shares, rtol=0.06)
    for window in (60, 600):
        # Of a renewal process over many gaps the Fano factor is cv^2, and so it is of a sum of them.
        assert fano(times, window, end) == pytest.approx(9, rel=5 * math.sqrt(2 * window / end) + 0.03)
    gaps_ = np.diff(times[who == 0])
    assert gaps_.std() / gaps_.mean() == pytest.approx(3, rel=0.03)


def test_clients_listed_one_by_one_have_lengths_and_days_of_their_own():
    population = [
        {"share": 3, "cv": 2, "gaps_law": "weibull", "lengths": {"kind": "fixed", "input": 7, "output": 3}},
        {"share": 1, "hours": [0, 0, 1, 0]},
    ]
    world = driven({"kind": "clients", "rate": 1, "population": population, "duration": "40h", "lengths": FIXED})
    sizes = [(request.prompt, request.output) for request in world.requests]
    assert set(sizes) == {(7, 3), (100, 10)}
    assert sizes.count((7, 3)) / len(sizes) == pytest.approx(0.75, rel=0.05)
    hours = {int(request.arrival // 3600) % 4 for request in world.requests if request.prompt == 100}
    assert hours <= {1, 2, 3}


def test_nobody_waits_for_a_client_that_is_hardly_ever_there():
    """The first arrival of the second client is some 30,000 years away."""
    population = [{"share": 1}, {"share": 1e-12, "hours": [1, 2]}]
    times, who = sent({"kind": "clients", "rate": 1, "population": population}, 10_000)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert not who.any()


def test_quantiles_of_several_laws_pool():
    low, high = np.linspace(100, 190, 10), np.linspace(1000, 1900, 10)
    both = pooled(np.stack([low, high]), np.array([3.0, 1.0]), np.array([140.0, 1400.0]))
    assert both[0] == pytest.approx(100)
    assert both[list(GRID).index(0.5)] < 190
    assert both[list(GRID).index(0.9)] > 1000
    assert all(a <= b for a, b in pairwise(both))
    one = pooled(np.full((2, 10), 12.0), np.array([5.0, 1.0]), np.array([12.0, 12.0]))
    np.testing.assert_allclose(one, 12, rtol=1e-6)


def test_a_scenario_with_every_kind_runs_and_reruns_itself(tmp_path):
    kinds = [{**options, "num_requests": 20, **({} if name == "preset" else {"lengths": FIXED})} for name, options in EVERY.items()]
    kinds.append({"kind": "clients", "rate": 2, "population": [{"share": 1, "lengths": FIXED}], "num_requests": 20})
    scenario = sim.loads({
        "name": "bursts", "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm"}]},
        "workloads": [{"name": f"w{number}", **options} for number, options in enumerate(kinds)],
    })  # fmt: skip
    (tmp_path / "resolved.yaml").write_text(sim.dump(scenario))
    first, second = sim.run(scenario), sim.run(sim.load(tmp_path / "resolved.yaml"))
    assert first.summary["requests"]["completed"] == 20 * len(kinds)
    assert first.summary["run"]["digest"] == second.summary["run"]["digest"]


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"kind": "hawkes", "rate": 1, "branching": 1, "decay": 1}, "branching", "below 0.995"),
        ({"kind": "hawkes", "rate": -1, "branching": 0.5, "decay": 1}, "rate", "above 0"),
        ({"kind": "hawkes", "rate": 1, "branching": 0.5, "decay": 0}, "decay", "above 0"),
        ({"kind": "mmpp", "states": [{"rate": 1, "mean_stay": 1}]}, "states", "at least 2"),
        ({"kind": "mmpp", "states": [{"rate": 0, "mean_stay": 1}] * 2}, "states", "all states are zero"),
        ({"kind": "mmpp", "states": [{"rate": -1, "mean_stay": 1}, {"rate": 1, "mean_stay": 1}]}, "states.0.rate", "at least 0"),
        ({"kind": "mmpp", "states": [{"rate": 1, "mean_stay": 0}, {"rate": 1, "mean_stay": 1}]}, "states.0.mean_stay", "above 0"),
        ({**ON_OFF, "transitions": [[0, 1]] * 3}, "transitions", "2 rows of 2 chances"),
        ({**ON_OFF, "transitions": [[0, 0.5], [1, 0]]}, "transitions.0", "add up to 0.5"),
        ({**ON_OFF, "transitions": [[0.5, 0.5], [1, 0]]}, "transitions.0.0", "not followed by itself"),
        ({**RING, "transitions": [[0, 1, 0], [1, 0, 0], [1, 0, 0]]}, "transitions", "not every state"),
        ({**DIURNAL, "preset": "burstgtp"}, "preset", "did you mean burstgpt"),
        ({**DIURNAL, "curve": [1] * 24}, "", "found curve and preset"),
        ({"kind": "diurnal", "rate": 1}, "", "found none of curve, preset, peak_to_mean"),
        ({"kind": "diurnal", "rate": 1, "curve": [1] * 23}, "curve", "at least 24"),
        ({"kind": "diurnal", "rate": 1, "curve": [0] * 24}, "curve", "all are zero"),
        ({**DIURNAL, "weekdays": [0] * 7}, "weekdays", "all are zero"),
        ({**DIURNAL, "begin": "25:00"}, "begin", "a time of day is wanted"),
        ({**DIURNAL, "begin": 720}, "begin", "a time of day is wanted as text"),
        ({**DIURNAL, "peak": "15:00"}, "peak", "not used here"),
        ({**DIURNAL, "cv": 1e-3}, "cv", "at least 0.01"),
        ({"kind": "flash_crowd", "rate": 1}, "", "found no crowds"),
        ({"kind": "flash_crowd", "rate": 1, "spikes": [{"at": 5, "height": 3}]}, "spikes.0", "never comes"),
        ({"kind": "flash_crowd", "rate": 1, "spikes": [{"at": 5, "height": 0.5, "hold": 1}]}, "spikes.0.height", "at least 1"),
        ({"kind": "clients", "rate": 1}, "", "found none of preset, population, count"),
        ({"kind": "clients", "rate": 1, "population": []}, "population", "at least 1"),
        ({"kind": "clients", "preset": "servegen_m_lid"}, "preset", "did you mean servegen_m_mid"),
        ({"kind": "clients", "count": 5}, "rate", "missing"),
        ({"kind": "clients", "rate": 1, "count": 5, "lengths": None}, "lengths", "missing"),
        ({"kind": "clients", "preset": "servegen_m_mid", "cv": 3}, "cv", "not used here"),
        ({"kind": "clients", "rate": 1, "population": [{"share": 1, "hours": [0, 0]}]}, "population.0.hours", "all are zero"),
        ({"kind": "clients", "rate": 1, "population": [{"share": 1, "lengths": {"kind": "fixd"}}]}, "population.0.lengths.kind", "fixed"),
        ({"kind": "clients", "rate": 1, "population": [{"share": 0}]}, "population.0.share", "above 0"),
    ],
)
def test_bad_options(options, path, words):
    found = problems(options)
    assert [where for where, _ in found] == [path]
    assert words in found[0][1]


TABLE = "model,client,t_s,rate,cv,pattern,shape\n"


@pytest.mark.parametrize(
    ("rows", "extra", "words"),
    [
        ("a,1,0,-2,1,Gamma,1\n", {}, "a negative rate (line 2)"),
        ("a,1,0,2,1,Gamma,0\n", {}, "a shape that is not above zero"),
        ("a,1,0,2,1,Pareto,1\n", {}, "a pattern other than Gamma and Weibull"),
        ("a,1,0,2,1,Gamma,1\na,1,0,3,1,Gamma,1\n", {}, "the client and time of another row (line 3)"),
        ("a,1,0,2,1,Gamma,1\nb,1,0,3,1,Gamma,1\n", {}, "give `service`, one of a, b"),
        ("a,1,0,2,1,Gamma,1\n", {"service": "c"}, "no row is of the service 'c'"),
        ("a,1,0,0,1,Gamma,1\n", {}, "the rate of every client is zero"),
        ("a,1,0,2,1,Gamma,1\n", {"window": [7200, 9000]}, "nothing is sent in it"),
        ("", {}, "the table has no rows"),
        ("a,1,0,two,1,Gamma,1\n", {}, "rate is 'two'; a number is wanted"),
    ],
)
def test_bad_tables_of_clients(tmp_path, rows, extra, words):
    path = tmp_path / "clients.csv"
    path.write_text(TABLE + rows)
    with pytest.raises(BadInput) as error:
        made({"kind": "servegen", "path": str(path), "lengths": FIXED, **extra})
    assert words in str(error.value)
    assert "clients.csv" in str(error.value)


def test_a_table_of_clients_is_replayed_window_by_window(tmp_path):
    path = tmp_path / "clients.csv"
    rows = "a,4,0,2,1,Gamma,1", "a,9,0,1,5,Weibull,0.05", "a,9,600,6,1,Weibull,1.3", "a,4,1800,2,1,Gamma,0.01", "b,7,0,99,1,Gamma,1"
    path.write_text(TABLE + "\n".join(rows))
    options = {"kind": "servegen", "path": str(path), "service": "a", "lengths": FIXED}
    times, who = sent(options, 1e9)
    counts = np.histogram(times, np.arange(0, 2401, 600))[0]
    np.testing.assert_allclose(counts, [1800, 3600, 0, 1200], atol=1 + 5 * np.sqrt([1800, 3600, 0, 1200]).max())
    assert counts[2] == 0
    assert (np.diff(times) >= 0).all()
    assert set(who[times < 600].tolist()) == {0, 1}
    fast, _ = sent({**options, "window": [0, 1200], "rate": 45}, 1e9)
    assert len(fast) == pytest.approx(45 * 1200, rel=0.03)
    assert fast.max() < 1200
