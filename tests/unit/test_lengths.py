"""Lengths: each law gives the figures it was asked for, and presets those of the traces they stand for."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sim.core.errors import BadInput
from sim.core.registry import LENGTHS
from sim.core.rng import stream
from workloads import presets

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
DRAWS = 200_000
STATISTICS = {
    "azure_conv_2023": "azure2023_conv",
    "azure_code_2023": "azure2023_code_t0-1800",
    "mooncake_conversation": "mooncake_conversation_t0-2400",
    "cc_weka": "cc_weka_A",
}
LOGNORMAL = {"kind": "lognormal", "output": {"mean": 5, "sigma": 1}}
QUANTILES = {"input": [[0, 10], [0.5, 100], [1, 1000]], "output": [[0, 1], [1, 100]]}


def drawn(options, count=DRAWS, seed=1):
    checked, problems = LENGTHS.check(options)
    assert problems == []
    law = LENGTHS.make(checked)
    law.prepare()
    prompt, output = law.draw(stream(seed, "lengths"), count)
    assert prompt.dtype == output.dtype == np.int64
    assert len(prompt) == len(output) == count
    assert min(prompt.min(), output.min()) >= 1
    return prompt, output


def problems(options):
    return [(problem.path, problem.message) for problem in LENGTHS.check(options)[1]]


def test_fixed():
    prompt, output = drawn({"kind": "fixed", "input": 7, "output": 3}, 10)
    assert prompt.tolist() == [7] * 10
    assert output.tolist() == [3] * 10


def test_uniform_reaches_both_bounds():
    prompt, output = drawn({"kind": "uniform", "input": [5, 9], "output": [2, 2]})
    assert np.unique(prompt).tolist() == [5, 6, 7, 8, 9]
    assert np.unique(output).tolist() == [2]
    assert prompt.mean() == pytest.approx(7, rel=0.01)


@pytest.mark.parametrize("spread", [{"sigma": 0.8}, {"p90": 2000}, {"p95": 3500}, {"p99": 4000}])
@pytest.mark.parametrize("centre", ["mean", "median"])
def test_lognormal_has_the_figures_given(centre, spread):
    prompt, _ = drawn({"kind": "lognormal", "input": {centre: 1000, **spread}, "output": {"median": 100, "sigma": 0}})
    found = prompt.mean() if centre == "mean" else np.median(prompt)
    assert found == pytest.approx(1000, rel=0.02)
    [(name, value)] = spread.items()
    measured = np.log(prompt).std() if name == "sigma" else np.quantile(prompt, int(name[1:]) / 100)
    assert measured == pytest.approx(value, rel=0.03)


def test_lognormal_bounds_and_correlation():
    law = {"kind": "lognormal", "input": {"median": 500, "sigma": 2, "min": 20, "max": 900}, "output": {"median": 300, "sigma": 1}}
    prompt, output = drawn({**law, "correlation": 0.6})
    assert (prompt.min(), prompt.max()) == (20, 900)
    inside = (prompt > 20) & (prompt < 900)
    assert inside.any()
    free = {**law, "input": {"median": 500, "sigma": 2}, "correlation": 0.6}
    assert spearmanr(*drawn(free)).statistic == pytest.approx(0.6, abs=0.01)
    assert spearmanr(*drawn({**free, "correlation": -1})).statistic == pytest.approx(-1, abs=1e-3)
    assert len(output) == DRAWS


def test_empirical_quantiles_and_correlation():
    prompt, output = drawn({"kind": "empirical", **QUANTILES, "correlation": -0.5})
    for q, tokens in ((0.25, 10**1.5), (0.5, 100), (0.75, 10**2.5), (0.9, 10**2.8)):
        assert np.quantile(prompt, q) == pytest.approx(tokens, rel=0.03)
    assert prompt.max() <= 1000
    assert np.median(output) == pytest.approx(10, abs=1)
    assert spearmanr(prompt, output).statistic == pytest.approx(-0.5, abs=0.02)


def test_empirical_draws_whole_rows_of_a_trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n5,10,1\n0,20,2\n1,30,3\n")
    prompt, output = drawn({"kind": "empirical", "path": str(path)}, 3000)
    assert set(zip(prompt.tolist(), output.tolist(), strict=True)) == {(10, 1), (20, 2), (30, 3)}
    assert prompt.mean() == pytest.approx(20, rel=0.05)


def test_empirical_zero_rows_are_refused_or_left_out_with_a_remark(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,0\n")
    law = LENGTHS.make(LENGTHS.check({"kind": "empirical", "path": str(path)})[0])
    with pytest.raises(BadInput, match="1 row has no input or no output tokens"):
        law.prepare()
    law = LENGTHS.make(LENGTHS.check({"kind": "empirical", "path": str(path), "zero_tokens": "skip"})[0])
    assert "left out 1 of 2 rows" in law.prepare()[0]


@pytest.mark.parametrize("name", presets.names())
def test_presets_match_the_statistics_of_their_trace(name):
    if not (TRACES / "shared_stats.json").exists():
        pytest.skip(f"the trace statistics are not at {TRACES}")
    statistics = json.loads((TRACES / "shared_stats.json").read_text())[STATISTICS[name]]
    for side, values in zip(("input", "output"), drawn({"kind": "preset", "name": name}), strict=True):
        assert values.mean() == pytest.approx(statistics[side]["mean"], rel=0.03)
        for q in (50, 90, 99):
            assert np.quantile(values, q / 100) == pytest.approx(statistics[side][f"p{q}"], rel=0.05)


@pytest.mark.parametrize("name", presets.names())
def test_presets_are_what_the_fit_derives(name):
    from workloads.presets.fit import SOURCES, fit

    path = TRACES / SOURCES[name]["file"]
    if not path.exists():
        pytest.skip(f"the trace is not at {path}")
    again, kept = fit(path, SOURCES[name]), presets.load(name)
    assert [list(pair) for pair in kept.input] == again["input"]
    assert [list(pair) for pair in kept.output] == again["output"]
    assert (kept.correlation, kept.arrivals) == (again["correlation"], again["arrivals"])


@pytest.mark.parametrize("name", presets.names())
def test_presets_name_their_source(name):
    source = presets.load(name).source
    assert set(source) == {"what", "where", "licence", "requests", "provenance"}
    assert all(source.values())


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"kind": "uniform", "input": [9, 5], "output": [1, 2]}, "input", "the lower bound comes first"),
        ({"kind": "preset", "name": "azure_conv"}, "name", "did you mean azure_conv_2023"),
        ({**LOGNORMAL, "input": {"mean": 5, "sgima": 1}}, "input.sgima", "did you mean sigma?"),
        ({**LOGNORMAL, "input": {"mean": 5}}, "input", "found none of sigma, p90, p95, p99"),
        ({**LOGNORMAL, "input": {"mean": 5, "median": 4, "sigma": 1}}, "input", "mean and median"),
        ({**LOGNORMAL, "input": {"mean": -5, "sigma": 1}}, "input.mean", "a positive number"),
        ({**LOGNORMAL, "input": {"mean": 5, "p99": 4}}, "input", "is below the mean"),
        ({**LOGNORMAL, "input": {"mean": 5, "p99": 400}}, "input", "no lognormal law"),
        ({**LOGNORMAL, "input": {"mean": 5, "sigma": 1, "min": 9, "max": 4}}, "input", "above max"),
        ({"kind": "empirical"}, "", "input and output (quantiles) or path"),
        ({"kind": "empirical", "input": [[0, 1], [1, 2]]}, "", "input and output (quantiles) or path"),
        ({"kind": "empirical", **QUANTILES, "input": [[0, 9], [1, 2]]}, "input", "must not fall"),
        ({"kind": "empirical", **QUANTILES, "input": [[0, 1], [0.5, 2], [0.5, 3], [1, 4]]}, "input", "q must grow"),
        ({"kind": "empirical", **QUANTILES, "input": [[0.1, 1], [1, 4]]}, "input", "quantiles run from 0.1 to 1"),
        ({"kind": "empirical", **QUANTILES, "format": "csv"}, "format", "not used here"),
        ({"kind": "empirical", "path": "x", "correlation": 0.5}, "correlation", "not used here"),
        ({"kind": "empirical", "path": "x", "format": "azur"}, "format", "did you mean azure?"),
    ],
)
def test_bad_options(options, path, words):
    found = problems(options)
    assert [where for where, _ in found] == [path]
    assert words in found[0][1]


@given(st.integers(1, 500), st.integers(0, 5))
def test_a_draw_is_a_function_of_the_seed(count, seed):
    options = {"kind": "preset", "name": "azure_code_2023"}
    first, second = drawn(options, count, seed), drawn(options, count, seed)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_scaled_lengths_are_those_of_the_law_times_a_factor():
    inner = {"kind": "uniform", "input": [10, 90], "output": [4, 40]}
    outer = {"kind": "scaled", "lengths": inner, "input": 1.5, "output": 0.1}
    plain, scaled = (LENGTHS.make(LENGTHS.check(one)[0]) for one in (inner, outer))
    both = [one.draw(stream(1, "lengths"), 1000) for one in (plain, scaled)]
    assert (both[1][0] == np.rint(1.5 * both[0][0])).all()
    assert (both[1][1] == np.maximum(1, np.rint(0.1 * both[0][1]))).all()
