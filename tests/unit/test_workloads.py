"""Arrivals: their rates and variation, their ends, the closed loop, and that they are what the seed says."""
from __future__ import annotations

import math
from itertools import pairwise

import driven
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import WORKLOADS
from workloads.base import send
from workloads.weibull import shape_of, variation

FIXED = {"kind": "fixed", "input": 100, "output": 10}


class World(driven.World):
    """Serves every call in `service` seconds, and writes down what is sent and how many calls are under way."""

    def __init__(self, seed: int = 1, service: float = 1.0):
        super().__init__(seed, lambda request: service)
        self.sent: list[tuple[float, int, int, int]] = []
        self.in_flight: list[tuple[float, int]] = []

    def submit(self, request):
        super().submit(request)
        self.sent.append((self.env.now, request.prompt, request.output, request.session))

    def call(self, request):
        ended = super().call(request)
        request.generated = request.output
        self._count(+1)
        ended.callbacks.append(lambda _: self._count(-1))
        return ended

    def _count(self, change):
        self.in_flight.append((self.env.now, (self.in_flight[-1][1] if self.in_flight else 0) + change))


def made(options):
    checked, problems = WORKLOADS.check(options)
    assert problems == []
    workload = WORKLOADS.make(checked)
    workload.prepare()
    return workload


def drive(options, seed=1, service=1.0):
    world = World(seed, service)
    world.env.process(made(options).drive(world))
    world.env.run()
    return world


def times(options, seed=1):
    return np.array([at for at, *_ in drive(options, seed).sent])


def problems(options):
    return [(problem.path, problem.message) for problem in WORKLOADS.check(options)[1]]


@pytest.mark.parametrize(
    ("options", "cv"),
    [
        ({"kind": "poisson"}, 1.0),
        ({"kind": "gamma", "cv": 0.3}, 0.3),
        ({"kind": "gamma", "cv": 2.5}, 2.5),
        ({"kind": "weibull", "cv": 2.0}, 2.0),
        ({"kind": "weibull", "shape": 2.0}, math.sqrt(4 / math.pi - 1)),
        ({"kind": "constant"}, 0.0),
    ],
)
def test_rate_and_variation(options, cv):
    at = times({**options, "rate": 20, "num_requests": 100_000, "lengths": FIXED})
    gaps = np.diff(at)
    assert len(at) == 100_000
    # Five standard errors of the mean; the variation of a heavy tail settles more slowly.
    assert 1 / gaps.mean() == pytest.approx(20, rel=5 * cv / math.sqrt(len(gaps)) + 1e-9)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("cv", [0.1, 0.7, 1.0, 3.0, 20.0])
def test_weibull_shape_gives_the_variation_asked_for(cv):
    assert variation(shape_of(cv)) == pytest.approx(cv, rel=1e-9)


def test_constant_arrivals_do_not_drift():
    at = times({"kind": "constant", "rate": 3, "num_requests": 50_000, "start": "2s", "lengths": FIXED})
    np.testing.assert_allclose(at, 2 + np.arange(50_000) / 3, rtol=1e-15)


def test_duration_ends_the_traffic_and_start_moves_it():
    at = times({"kind": "constant", "rate": 2, "duration": "10s", "start": "1m", "lengths": FIXED})
    assert at.tolist() == [60 + k / 2 for k in range(20)]
    later = times({"kind": "poisson", "rate": 2, "duration": "10s", "start": "1m", "lengths": FIXED})
    np.testing.assert_allclose(later - 60, times({"kind": "poisson", "rate": 2, "duration": "10s", "lengths": FIXED}), atol=1e-12)
    assert later.max() < 70


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 9000])
def test_number_of_requests_across_blocks(count):
    assert len(times({"kind": "poisson", "rate": 5, "num_requests": count, "lengths": FIXED})) == count


def test_both_ends_whichever_comes_first():
    base = {"kind": "constant", "rate": 2, "lengths": FIXED}
    assert len(times({**base, "num_requests": 5, "duration": 100})) == 5
    assert len(times({**base, "num_requests": 500, "duration": 10})) == 20
    assert len(times({**base, "rate": 0.01, "duration": 10})) == 1


def test_a_longer_run_begins_with_the_same_requests_and_a_higher_rate_squeezes_them():
    law = {"kind": "lognormal", "input": {"mean": 500, "sigma": 1}, "output": {"median": 50, "p99": 400}}
    base = {"kind": "gamma", "rate": 4, "cv": 2, "lengths": law}
    short, long = (drive({**base, "num_requests": count}).sent for count in (100, 5000))
    assert long[:100] == short
    fast = drive({**base, "rate": 8, "num_requests": 100}).sent
    np.testing.assert_allclose([row[0] for row in fast], [row[0] / 2 for row in short])
    assert [row[1:] for row in fast] == [row[1:] for row in short]


def test_seeds_matter_and_repeat():
    options = {"kind": "preset", "preset": "azure_conv_2023", "num_requests": 50}
    assert drive(options, seed=1).sent == drive(options, seed=1).sent
    assert drive(options, seed=1).sent != drive(options, seed=2).sent


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.30000000000000004, 1 / 3, 5.0, 1e6]), min_size=1, max_size=30),
    st.floats(0, 1e4),
)
def test_equal_times_are_sent_together(gaps, start):
    at = start + np.cumsum(gaps)
    ones = np.ones(len(at), dtype=np.int64)
    world = World()
    world.env.process(send(world, at, ones, ones))
    world.env.run()
    sent = [row[0] for row in world.sent]
    np.testing.assert_allclose(sent, at, rtol=1e-15)
    for (a, b), (x, y) in zip(pairwise(at), pairwise(sent), strict=True):
        assert (a == b) <= (x == y)


@given(st.integers(1, 8), st.integers(1, 30), st.floats(0, 3), st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_closed_loop_keeps_its_concurrency(concurrency, count, think, service):
    options = {"kind": "closed", "concurrency": concurrency, "num_requests": count, "think_time": think, "start": 1, "lengths": FIXED}
    world = drive(options, service=service)
    assert len(world.sent) == count
    assert world.sent[0][0] == 1
    most = min(concurrency, count)
    assert max(flying for _, flying in world.in_flight) == most
    if think == 0:
        # After everything that happens at one instant, all clients are waiting for an answer, until the requests run out.
        last_sent = world.sent[-1][0]
        settled = {at: flying for at, flying in world.in_flight}  # noqa: C416 (the last of each instant)
        assert {flying for at, flying in settled.items() if at < last_sent} <= {most}


def test_closed_loop_thinks_between_answers_and_questions():
    world = drive({"kind": "closed", "concurrency": 1, "num_requests": 3, "think_time": "500ms", "lengths": FIXED}, service=2.0)
    assert [row[0] for row in world.sent] == [0.0, 2.5, 5.0]


def test_closed_loop_draws_lengths_in_order_of_sending():
    law = {"kind": "uniform", "input": [1, 1000], "output": [1, 10]}
    one, four = (drive({"kind": "closed", "concurrency": n, "num_requests": 20, "lengths": law}).sent for n in (1, 4))
    assert [row[1:] for row in one] == [row[1:] for row in four]


def test_preset_has_the_rate_of_its_trace():
    at = times({"kind": "preset", "preset": "azure_conv_2023", "num_requests": 50_000})
    assert len(at) / at[-1] == pytest.approx(5.5304, rel=0.03)
    assert len(times({"kind": "preset", "preset": "azure_conv_2023", "rate": 100, "duration": 10})) == pytest.approx(1000, rel=0.2)


def test_expected_is_known_only_when_it_is():
    base = {"kind": "poisson", "rate": 2, "lengths": FIXED}
    assert made({**base, "num_requests": 7}).expected() == 7
    assert made({**base, "duration": 7}).expected() is None
    assert made({**base, "num_requests": 7, "duration": 7}).expected() is None


@pytest.mark.parametrize("kind", ["constant", "poisson", "gamma", "weibull", "preset"])
def test_endless_traffic_is_refused(kind):
    options = {
        "constant": {"rate": 1}, "poisson": {"rate": 1}, "gamma": {"rate": 1, "cv": 2}, "weibull": {"rate": 1, "cv": 2},
        "preset": {"preset": "azure_conv_2023"},
    }[kind]
    lengths = {} if kind == "preset" else {"lengths": FIXED}
    [(path, message)] = problems({"kind": kind, **options, **lengths})
    assert path == ""
    assert "would never end" in message


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"rate": 0}, "rate", "found 0"),
        ({"rate": "fast"}, "rate", "found 'fast'"),
        ({"num_requests": 0}, "num_requests", "found 0"),
        ({"start": -1}, "start", "found -1"),
        ({"duration": "5GB"}, "duration", "is a size"),
        ({"lengths": {"kind": "fixd"}}, "lengths.kind", "did you mean fixed?"),
        ({"lengths": {"kind": "fixed", "input": 0, "output": 5}}, "lengths.input", "found 0"),
        ({"rates": 3}, "rates", "did you mean rate"),
    ],
)
def test_bad_options_of_open_loops(change, path, words):
    found = problems({"kind": "poisson", "rate": 1, "num_requests": 5, "lengths": FIXED, **change})
    assert [where for where, _ in found] == [path]
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither of shape and cv"),
        ({"shape": 1, "cv": 1}, "both of shape and cv"),
        ({"cv": 1e5}, "a Weibull law is offered for"),
    ],
)
def test_weibull_wants_one_of_shape_and_cv(options, words):
    [(_, message)] = problems({"kind": "weibull", "rate": 1, "num_requests": 5, "lengths": FIXED, **options})
    assert words in message


def test_preset_names_and_missing_arrivals():
    assert "did you mean azure_conv_2023" in problems({"kind": "preset", "preset": "azure_conv_2024", "num_requests": 1})[0][1]
    missing = problems({"kind": "preset", "preset": "cc_weka", "num_requests": 1})
    assert [path for path, _ in missing] == ["rate", "cv"]
    assert len(times({"kind": "preset", "preset": "cc_weka", "rate": 1, "cv": 1, "num_requests": 10})) == 10
