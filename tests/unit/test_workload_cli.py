"""`burstsim workload`: a log becomes a file that runs, traffic is shown and drawn, what cannot be used is refused and nothing written."""
from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import sim
from sim.cli import main
from sim.core.rng import stream

LENGTHS = "{kind: lognormal, input: {mean: 1000, p99: 4000}, output: {mean: 200, p99: 800}}"
HEAD = "timestamp,input_tokens,output_tokens\n"


def burstsim(*words):
    return CliRunner().invoke(main, ["workload", *map(str, words)])


def rows(times, zone=""):
    moments = np.datetime64("2024-05-01T00:00:00.000") + np.round(1000 * np.asarray(times)).astype("timedelta64[ms]")
    return [f"{moment}{zone},{100 + i % 50},{10 + i % 7}\n" for i, moment in enumerate(moments)]


@pytest.fixture
def log(tmp_path):
    times = np.cumsum(stream(1, "gaps").standard_exponential(1500)) / 2
    (tmp_path / "log.csv").write_text(HEAD + "".join(rows(times)))
    return tmp_path / "log.csv"


def test_a_log_becomes_a_workload_that_runs(log):
    out, page = log.with_name("fitted.yaml"), log.with_name("fitted.html")
    done = burstsim("fit", log, "--kind", "gamma", "--seeds", 5, "-o", out, "--report", page)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("log.csv: 1,500 requests in 7")
    assert any(line.startswith("requests per second") and line.endswith("met") for line in lines)
    assert f"written to {out}" in done.stderr
    [options] = yaml.safe_load(out.read_text())["workloads"]
    assert options["kind"] == "gamma"
    assert options["cv"] == pytest.approx(1, abs=0.1)
    text = page.read_text()
    assert text.count("<svg") == 6
    assert "Generators tried" in text
    scenario = {"extends": "fitted.yaml", "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [{"gpu": "h100_sxm"}]}}
    (log.parent / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    result = sim.run(sim.load(log.parent / "scenario.yaml"))
    assert result.summary["requests"]["completed"] == pytest.approx(1500, rel=0.15)


def test_the_commands_of_the_readme_run(log, monkeypatch):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].strip() for line in readme.splitlines() if line.startswith("burstsim workload")]
    monkeypatch.chdir(log.parent)
    (log.parent / "chat.yaml").write_text(f"workloads:\n- {{kind: poisson, rate: 3, duration: 200, lengths: {LENGTHS}}}\n")
    assert len(lines) == 3
    for line in lines:
        done = burstsim(*shlex.split(line)[2:])
        assert done.exit_code == 0, done.output
    assert sorted(path.name for path in log.parent.iterdir()) == ["chat.yaml", "fit.html", "log.csv", "traffic.png", "traffic.yaml"]


def test_fit_as_json(log):
    done = burstsim("fit", log, "--kind", "poisson", "--seeds", 5, "--json")
    found = json.loads(done.stdout)
    assert found["kind"] == "poisson"
    assert {"figure", "first", "later", "generated", "error", "verdict", "low", "high"} <= set(found["figures"][0])
    assert found["workload"]["lengths"]["kind"] == "empirical"


def test_a_log_is_shown(log):
    done = burstsim("show", log)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split() == ["requests", "1,500"]
    found = json.loads(burstsim("show", log, "--json", "--from", "1m", "--to", "6m").stdout)["workloads"]["log.csv"]
    assert found["requests"] == pytest.approx(600, rel=0.2)
    assert found["rate"] == pytest.approx(found["requests"] / 300, rel=0.01)


def test_every_workload_of_a_scenario_and_their_sum_are_shown(tmp_path):
    (tmp_path / "two.yaml").write_text(
        f"workloads:\n- {{name: steady, kind: poisson, rate: 3, duration: 200, lengths: {LENGTHS}}}\n"
        "- {kind: closed, concurrency: 4, num_requests: 100, lengths: {kind: fixed, input: 10, output: 50}}\n"
    )
    done = burstsim("show", tmp_path / "two.yaml", "-o", tmp_path / "two.png")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == ["steady", "closed", "all"]
    assert "waits for answers" in done.stderr
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(burstsim("show", tmp_path / "two.yaml", "--json").stdout)["workloads"]
    assert found["all"]["requests"] == found["steady"]["requests"] + found["closed"]["requests"]


def test_options_in_braces_are_shown(tmp_path):
    what = f"{{kind: gamma, rate: 5, cv: 3, lengths: {LENGTHS}}}"
    done = burstsim("show", what, "-o", tmp_path / "gamma.html", "--duration", "400s", "--seed", 3)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "gamma.html").read_text().count("<svg") == 6
    assert "says no end, so ten minutes" in burstsim("show", what).stderr


def test_of_many_workloads_the_busiest_and_the_sum_are_drawn(tmp_path):
    rates = enumerate((3, 9, 1, 8, 7, 6))
    lines = [f"- {{name: w{i}, kind: poisson, rate: {rate}, duration: 60, lengths: {LENGTHS}}}\n" for i, rate in rates]
    (tmp_path / "many.yaml").write_text("workloads:\n" + "".join(lines))
    assert burstsim("show", tmp_path / "many.yaml", "-o", tmp_path / "many.html").exit_code == 0
    drawing = (tmp_path / "many.html").read_text().split("<svg")[1].split("</svg>")[0]
    assert [name for name in ("w0", "w1", "w2", "w3", "w4", "w5", "all") if f">{name}<" in drawing] == ["w1", "w3", "w4", "w5", "all"]


def test_a_workload_file_on_its_own_is_shown(tmp_path):
    (tmp_path / "one.yaml").write_text(f"kind: poisson\nrate: 3\nnum_requests: 500\nlengths: {LENGTHS}\n")
    assert burstsim("show", tmp_path / "one.yaml").stdout.splitlines()[1].split() == ["requests", "500"]


def refused(text, tmp_path, *words):
    """What is said of a log that cannot be used; nothing is written."""
    (tmp_path / "bad.csv").write_text(text)
    done = burstsim("fit", tmp_path / "bad.csv", "-o", tmp_path / "out.yaml", "--report", tmp_path / "out.html", *words)
    assert done.exit_code == 2, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]
    return done.stderr


def test_a_hole_is_asked_about(tmp_path):
    times = np.cumsum(stream(2, "gaps").standard_exponential(2000)) * 4.0
    times[1000:] += 9000 - (times[1000] - times[999])
    text = HEAD + "".join(rows(times))
    said = refused(text, tmp_path)
    assert "no request from 1:" in said
    assert "2.5 h, 2," in said
    assert "--keep-gaps" in said
    (tmp_path / "bad.csv").write_text(text)
    kept = burstsim("fit", tmp_path / "bad.csv", "--keep-gaps", "--kind", "poisson", "--seeds", 5)
    assert kept.exit_code == 0
    assert "note: kept: no request from 1:" in kept.stderr
    assert burstsim("fit", tmp_path / "bad.csv", "--to", "1h", "--kind", "poisson", "--seeds", 5).exit_code == 0


def test_mixed_zones_are_refused_with_the_line(tmp_path):
    some = rows(np.arange(300.0), "+02:00")
    some[150] = some[150].replace("+02:00", "")
    said = refused(HEAD + "".join(some), tmp_path)
    assert "bad.csv:152: 1 row has no time zone in timestamp, while others have one that is not UTC" in said


def test_times_out_of_order_are_refused_with_the_line(tmp_path):
    some = rows([*np.arange(200.0), 50.0, *np.arange(200.0, 300.0)])
    said = refused(HEAD + "".join(some), tmp_path)
    assert "bad.csv:202: 1 row has a time before that of the row above" in said
    assert "--sort puts the rows in order" in said


@pytest.mark.parametrize(
    ("cell", "said"),
    [("-5,10", "1 row has negative input tokens (line 3)"), ("5,0", "--skip-zero leaves such rows out"), ("x,10", "a number is wanted")],
)
def test_bad_lengths_are_refused(tmp_path, cell, said):
    some = rows(np.arange(300.0))
    some[1] = f"{some[1].split(',')[0]},{cell}\n"
    assert said in refused(HEAD + "".join(some), tmp_path)


def test_short_logs_and_those_of_one_moment_are_refused(tmp_path):
    assert "found 30 requests; at least 200 are wanted" in refused(HEAD + "".join(rows(np.arange(30.0))), tmp_path)
    assert "all 300 requests have the same time" in refused(HEAD + "".join(rows(np.zeros(300))), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "{kind: poison, rate: 3}"), "did you mean poisson?"),
        (("show", "{kind: poisson, rat: 3}"), "workloads.0.rat: unknown key"),
        (("show", "nothing.yaml"), "no such file"),
        (("show", "nothing.csv"), "no such file"),
        (("show", "{kind: poisson, rate: 3}", "-o", "x.txt"), "ends in .png, .html, .md or .pdf"),
        (("show", "{kind: poisson, rate: 3}", "--from", "3s"), "--duration says how much"),
        (("fit", "nothing.csv", "--kind", "hawks"), "did you mean hawkes?"),
        (("fit", "nothing.csv", "--format", "cvs"), "did you mean csv"),
        (("fit", "nothing.csv", "--report", "x.png"), "ends in .html, .md or .pdf"),
        (("fit", "nothing.csv", "-o", "no/such/x.yaml"), "no folder no/such"),
        (("fit", "nothing.csv", "--from", "2h", "--to", "1h"), "is not before"),
        (("fit", "nothing.csv", "--from", "soon"), "a duration is wanted"),
    ],
)
def test_what_cannot_be_used_is_refused(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = burstsim(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert list(Path().iterdir()) == []


def test_a_problem_in_a_file_has_its_line(tmp_path):
    (tmp_path / "bad.yaml").write_text(f"workloads:\n- kind: gamma\n  rate: 3\n  cv: -1\n  lengths: {LENGTHS}\n")
    assert "bad.yaml:4: workloads.0.cv: found -1" in burstsim("show", tmp_path / "bad.yaml").stderr
    (tmp_path / "bad.yaml").write_text("model: x\n")
    assert "there is no workload in it" in burstsim("show", tmp_path / "bad.yaml").stderr
