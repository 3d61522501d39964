"""Capacity: the bracket closes around the edge, the knee is below saturation, and what cannot be raised is refused."""
from __future__ import annotations

import json
import math

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import problem
from scenarios import written

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.study.plan import capacity as study
from sim.study.plan.capacity import LENGTHS, Bracket, bracket


def small(**words):
    made = problem(work={"rate": 20, "num_requests": 300}, **words)
    del made["plan"]
    return made


@settings(max_examples=200, deadline=None)
@given(st.floats(-9, 9), st.floats(0.1, 5), st.floats(1.01, 3))
def test_a_bracket_closes_around_the_edge(power, guess, width):
    edge = 2.0**power

    def holds(load):
        return load < edge

    found = Bracket(0.0, math.inf)
    for _, within in LENGTHS:
        found = bracket(holds, within, found)
    for one in (found, bracket(holds, 0.02, Bracket(guess, guess * width))):
        assert one.low < edge <= one.high
        assert one.high / one.low <= 1.02 * (1 + 1e-12)


def test_where_nothing_holds_or_nothing_fails_a_bracket_is_open():
    assert bracket(lambda load: False, 0.1).low == 0.0
    assert math.isinf(bracket(lambda load: True, 0.1).high)


def test_the_knee_is_below_saturation(tmp_path):
    path, folder = written(tmp_path, yaml.safe_dump(small())), tmp_path / "out"
    outcome = CliRunner().invoke(main, ["capacity", str(path), "--replications", "2", "-o", str(folder), "--jobs", "1"])
    assert outcome.exit_code == 0, outcome.output
    found = study.read(folder)
    assert found.knee.low < found.knee.high <= 1.03 * found.knee.low
    assert found.knee.low <= found.saturation.high
    assert found.unit == 20.0
    table = found.frame
    assert table["load"].is_monotonic_increasing
    assert table["met"].iloc[0] == 1.0
    assert table["met"].iloc[-1] == 0.0
    assert found.binds
    at = found.knee.low * 20.0
    made = small()
    made["workloads"][0] |= {"rate": at, "num_requests": round(300 * found.knee.low)}
    assert sim.run(made).summary["slo"]["met"]
    page = (folder / "report.html").read_text()
    assert "requests/s the SLO is met" in page
    assert CliRunner().invoke(main, ["report", str(folder)]).exit_code == 0
    assert (folder / "report.html").read_text() == page


def test_one_key_is_raised_alone():
    found = sim.capacity(small(), "workloads.0.rate", replications=1)
    assert found.unit == 20.0
    assert found.key == "workloads.0.rate"
    assert found.knee.low > 0


def test_an_slo_that_no_load_meets_leaves_with_1(tmp_path):
    path = written(tmp_path, yaml.safe_dump(small(slo={"tpot_p95": "1ms"})))
    outcome = CliRunner().invoke(main, ["capacity", str(path), "--json", "--set", "workloads.0.num_requests=40"])
    assert outcome.exit_code == 1, outcome.output
    said = json.loads(outcome.stdout)
    assert said["knee"][0] == 0.0
    assert said["best"][0]["measured_s"] > said["best"][0]["limit_s"]


@pytest.mark.parametrize(
    ("made", "key", "said"),
    [
        (small(slo={}), None, "has no limits"),
        (small(), "workloads.0.ratee", "unknown key"),
        (small(), "cluster.pools.0.gpu", "a number above 0 is wanted"),
        (small(), "duration", "a number above 0 is wanted"),
    ],
)
def test_what_cannot_be_raised_is_refused(made, key, said):
    with pytest.raises(BadInput, match=said):
        sim.capacity(made, key)


def test_traffic_without_a_rate_is_refused():
    made = small(slo={"ttft_p95": "1s"})
    made["workloads"] = [{"kind": "preset", "preset": "azure_conv_2023", "num_requests": 10}]
    with pytest.raises(BadInput, match="its own rate has to be written"):
        sim.capacity(made)
