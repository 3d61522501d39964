"""A sweep: the rows of its points, its table, what goes on after an interruption, and how the command line and the page show it."""
from __future__ import annotations

import doctest
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from scenarios import written

import sim
import sim.report.sweep
from sim.cli import main
from sim.core.errors import BadInput
from sim.report.sweep import block, render
from sim.spec.load import loads
from sim.study import workers
from sim.study.figures import findings, flat
from sim.study.journal import NAME, Journal, read
from sim.study.run import run
from sim.study.sweep import sweep as study
from sim.study.sweep.result import Sweep
from sim.study.sweep.result import read as read_sweep

TP, RATE = "cluster.pools.0.parallel.tp", "workloads.0.rate"
TOKENS = "cluster.pools.0.engine.max_num_batched_tokens"
TINY = """\
name: tiny
seed: 3
model: meta-llama/Llama-3.1-8B
cluster:
  pools: [{gpu: h100_sxm}]
workloads:
  - {kind: poisson, rate: 20, num_requests: 8, lengths: {kind: fixed, input: 200, output: 20}}
"""
SPACE = {TP: [1, 3], RATE: [5, 50]}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def swept(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "o"
    return sim.sweep(path, SPACE, folder, crew=1, replications=2), folder


def command(*words):
    return CliRunner().invoke(main, ["sweep", *map(str, words)], catch_exceptions=False)


def test_a_row_is_what_the_scenario_alone_gives(swept, path):
    frame = swept[0].frame
    alone = sim.run(sim.load(path, {RATE: 50, "seed": study.seeded(sim.load(path), 1).seed}))
    row = frame[(frame[TP] == 1) & (frame[RATE] == 50) & (frame["replication"] == 1)].iloc[0]
    figures = flat(alone.summary)
    assert len(frame.columns) > 60
    assert {name: row[name] for name in findings(figures)} == {name: figures[name] for name in findings(figures)}
    assert row["verdict"] == alone.summary["verdict"]


def test_the_table_is_tidy(swept):
    frame, folder = swept[0].frame, swept[1]
    assert frame.columns[:5].tolist() == ["point", "replication", TP, RATE, "verdict"]
    assert frame.columns[-3:].tolist() == ["audit_ok", "seconds", "error"]
    assert [tuple(row) for row in frame[["point", "replication"]].to_numpy()] == [(p, r) for p in range(4) for r in range(2)]
    saved = pd.read_parquet(folder / "points.parquet")
    pd.testing.assert_frame_equal(saved, frame, check_dtype=False)


def test_a_point_that_cannot_be_run_is_a_row_with_its_error(swept):
    frame = swept[0].frame
    assert frame.loc[frame[TP] == 1, "error"].isna().all()
    assert frame.loc[frame[TP] == 3, "error"].str.contains("which do not split 3 ways").all()
    assert swept[0].failed == 4


def test_replications_of_all_points_share_their_seeds(path):
    found = sim.sweep(path, {RATE: [10, 20]}, crew=1, replications=2, figures=["requests.arrived", "run.seed"]).frame
    assert found.groupby("replication")["run.seed"].nunique().tolist() == [1, 1]
    assert found["run.seed"].nunique() == 2


def test_a_default_follows_the_key_that_it_comes_from(tmp_path):
    text = TINY.replace("seed: 3", "duration: 1s").replace(", num_requests: 8", "")
    found = sim.sweep(written(tmp_path, text), {"duration": ["1s", "4s"]}, crew=1, figures=["requests.arrived"]).frame
    assert found["requests.arrived"].iloc[1] > 2 * found["requests.arrived"].iloc[0]


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    for name, count in (("a", 3), ("b", 5)):
        written(tmp_path, "arrival_s,input_tokens,output_tokens\n" + "".join(f"{n},10,5\n" for n in range(count)), f"sub/{name}.csv")
    traced = "workloads: [{kind: trace, format: csv, path: a.csv}]\nsweep: {space: {workloads.0.path: [a.csv, b.csv]}}\n"
    file = written(tmp_path, TINY[: TINY.index("workloads:")] + traced, "sub/x.yaml")
    monkeypatch.chdir(tmp_path)
    assert sim.sweep("sub/x.yaml", folder=tmp_path / "o", crew=1).frame["requests.arrived"].tolist() == [3, 5]
    written(tmp_path, "arrival_s,input_tokens,output_tokens\n0,10,5\n", "sub/a.csv")
    with pytest.raises(BadInput, match=r"files\..*a\.csv: .* -> "):
        sim.sweep(file, folder=tmp_path / "o", crew=1)


def test_a_mapping_and_a_scenario_are_swept_too(path):
    raw = yaml.safe_load(TINY)
    both = [sim.sweep(given, {"cluster.pools.0.replicas": [2]}, crew=1, replications=1).frame for given in (raw, loads(raw))]
    assert both[0].drop(columns="seconds").equals(both[1].drop(columns="seconds"))


def test_choices_that_are_mappings_or_mixed_are_columns_of_text(path, tmp_path):
    found = sim.sweep(path, {"cluster.pools.0.parallel": [{"tp": 1}, {"tp": 2}], "slo": [{}, {"ttft_p99": "1s"}]}, tmp_path, crew=1)
    assert found.frame["cluster.pools.0.parallel"].tolist() == ['{"tp": 1}'] * 2 + ['{"tp": 2}'] * 2
    assert pd.read_parquet(tmp_path / "points.parquet")["slo"].tolist() == ["{}", '{"ttft_p99": "1s"}'] * 2


def test_an_unknown_figure_ends_the_sweep_at_once(path, tmp_path):
    with pytest.raises(BadInput, match=r"sweep.figures: unknown figure 'ttft_s.p98'; did you mean ttft_s.p9"):
        sim.sweep(path, {RATE: [1, 2]}, tmp_path, crew=1, figures=["ttft_s.p98"])
    found = sim.sweep(path, {RATE: [1]}, tmp_path, crew=1, figures=["slo.attainment", "ttft_s.p99"])  # no row was lost
    assert found.figures == ["ttft_s.p99"]  # known, though this run has none without an SLO


def test_what_is_finished_is_not_run_again(path, tmp_path, monkeypatch):
    order = study.order(study.with_settings(study.given(path), SPACE, {}))
    for found in study.sweeping(order, tmp_path, sim.Crew(jobs=1)):
        if len(found.rows) == 2:
            break
    assert len(read(tmp_path)[1]) == 2
    ran = []
    monkeypatch.setattr(study, "run", lambda scenario: ran.append(scenario) or run(scenario))
    *_, found = study.sweeping(order, tmp_path, sim.Crew(jobs=1))
    assert sorted(row["point"] for row in found.rows) == [0, 1, 2, 3]
    assert len(ran) == 0  # points 2 and 3 are of tp 3
    with pytest.raises(BadInput, match=r"scenario\.seed: 3 -> 4"):
        list(study.sweeping(study.order(study.with_settings(study.given(written(tmp_path, TINY.replace("seed: 3", "seed: 4"), "../y.yaml")),
                                                            SPACE, {})), tmp_path, sim.Crew(jobs=1)))  # fmt: skip


def test_processes_give_the_same_table(swept, path):
    found = sim.sweep(path, SPACE, crew=2, replications=2).frame
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), swept[0].frame.drop(columns="seconds"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "slurm"], "unknown backend 'slurm'; known: dask, loky, ray"),
        (["--jobs", "0"], "found 0 jobs; at least 1 is wanted"),
        (["--address", "1.2.3.4:1"], "the address 1.2.3.4:1 is of a cluster; name its kind too"),
        (["--over", "workloads.0.rate"], "--over: found 'workloads.0.rate'; KEY=VALUES is wanted"),
        (["--over", "workloads.0.rate=[1, 2"], "--over: not valid YAML"),
        (["--over", "workloads.0.rat=[1, 2]"], "--over: sweep.space.workloads.0.rat: unknown key 'rat' of workloads.0; did you mean rate"),
        (["--over", f"{RATE}=[1]", "--points", "3"], "--points: sweep.points: is given, but method grid does not draw"),
        ([], "tiny has no sweep; give one"),
        (["--over", f"{TP}=[3, 5]"], "no point can be run; the first says: cluster.pools.0.parallel.tp"),
    ],
)
def test_bad_input_leaves_with_2(path, options, said):
    result = command(path, *options, *([] if "--jobs" in options else ["--jobs", "1"] if "--backend" not in options else []))
    assert said in result.stderr
    assert result.exit_code == 2


def test_the_command_line_prints_a_table_or_json_and_writes_a_page(path, tmp_path):
    over = ["--over", f"{TP}=[1, 3]", "--over", f"{RATE}={{range: {{min: 5, max: 50, step: 10, scale: log}}}}"]
    result = command(path, *over, "--jobs", 1, "-o", tmp_path / "o", "--figure", "ttft_s.p99")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["point", "tp", "rate", "verdict", "ttft_s.p99", "error"]
    assert "2 of 4 runs have no figures; of point 2" in result.stderr
    again = command(path, *over, "--jobs", 1, "-o", tmp_path / "o", "--figure", "ttft_s.p99", "--json")
    rows = json.loads(again.stdout)
    assert [row["settings"] for row in rows] == [{TP: tp, RATE: rate} for tp in (1, 3) for rate in (5, 50)]
    assert rows == sorted(read(tmp_path / "o")[1], key=lambda row: row["point"])
    page = (tmp_path / "o" / "report.html").read_text()
    (tmp_path / "o" / "report.html").unlink()
    assert CliRunner().invoke(main, ["report", str(tmp_path / "o")]).exit_code == 0
    assert (tmp_path / "o" / "report.html").read_text() == page
    redone = command(tmp_path / "o" / "scenario.yaml", "--jobs", 1, "--json")
    assert [row["figures"] for row in json.loads(redone.stdout)] == [row["figures"] for row in rows]


def test_the_page_has_every_plot_and_no_script(swept):
    page = render(swept[0])
    assert page.count("<figure>") == len(page.split('role="img"')) - 1 > 2
    assert "ttft_s.p99 by rate" in page
    assert "Points that could not be run" in page
    assert "<script " not in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert "unfinished" not in page.lower()
    half = Sweep(swept[0].scenario, swept[0].keys, 8, swept[0].rows[:1])
    assert "1 of 8 runs are finished" in render(half)
    assert "1 point (every combination of the values), 2 replications" in block(half)


def test_plots_and_means_in_python(swept):
    found = swept[0]
    axes = found.plot("ttft_s.p99", RATE)
    assert [line.get_xdata().tolist() for line in axes.lines] == [[5, 50], [5, 50]]
    assert found.means(["ttft_s.p99"])["runs"].tolist() == [2, 2, 0, 0]
    assert "8 of 8 runs of tiny, 4 without figures" in found._repr_html_()
    with pytest.raises(BadInput, match="unknown figure 'ttft'"):
        found.plot("ttft")
    with pytest.raises(BadInput, match="unknown key 'rate'"):
        found.plot(against="rate")
    assert doctest.testmod(sim.report.sweep).failed == 0


def test_a_run_of_a_sweep_says_that_it_is_one_point(tmp_path):
    text = f"{TINY}sweep: {{space: {{{RATE}: [1, 2]}}}}\n"
    assert any("The sweep was not run" in remark for remark in sim.run(written(tmp_path, text)).meta["remarks"])


def test_ctrl_c_leaves_a_table_and_the_same_command_goes_on(tmp_path):
    file, folder = written(tmp_path, TINY), tmp_path / "o"
    over = f"{RATE}={{range: {{min: 1, max: 300, step: 1}}}}"
    words = [sys.executable, "-m", "sim.cli", "sweep", str(file), "--over", over, "-o", str(folder), "--figure", "ttft_s.p99"]
    with subprocess.Popen([*words, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / NAME).is_file() or (folder / NAME).read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    done = len(read(folder)[1])
    assert f"interrupted; {done} of 300 runs are finished in {folder}; the same command goes on from there" in err
    assert err.count("\n") == 1
    assert out == ""
    assert len(pd.read_parquet(folder / "points.parquet")) == done == len(read_sweep(folder).rows) >= 3
    assert f"{done} of 300 runs are finished" in (folder / "report.html").read_text()


def test_a_crew_that_is_dismissed_early_says_nothing():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = sim.Crew(jobs=2).each(time.sleep, [0.0] * 3 + [0.2] * 9)
        assert next(found) is None
        found.close()
    assert said == []


def test_processes_ignore_ctrl_c_from_their_first_moment():
    """A process inherits it; whoever begins it hears again."""
    heard = signal.getsignal(signal.SIGINT)
    with workers._deaf():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == heard


def test_drawings_show_what_can_be_told_apart():
    keys = {TOKENS: [512, 2048], RATE: [5, 50]}
    rows = [
        {"point": place, "replication": 0, "settings": {TOKENS: tokens, RATE: rate},
         "figures": {"ttft_s.p99": 0.1 * rate + tokens, "gpu.busy_fraction": busy},
         "verdict": "stable", "audit_ok": True, "seconds": 1.0, "error": None}
        for place, (tokens, rate, busy) in enumerate(((512, 5, 0.99999), (512, 50, 1.0), (2048, 5, 1.0), (2048, 50, 1.0)))
    ]  # fmt: skip
    scenario = loads(yaml.safe_load(TINY) | {"sweep": {"space": {key: {"choices": values} for key, values in keys.items()}}})
    found = Sweep(scenario, tuple(keys), 4, rows)
    drawn = sim.report.sweep.plots(found, ["ttft_s.p99", "gpu.busy_fraction"])
    assert [plot.title for plot in drawn] == ["ttft_s.p99 by max_num_batched_tokens", "ttft_s.p99 by rate"]
    assert [line[0] for line in sim.report.sweep.ends(found, ["ttft_s.p99", "gpu.busy_fraction"])] == ["ttft_s.p99"]
    for plot in drawn:
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', plot.svg)[1])
        assert all(float(x) <= width for x in re.findall(r'translate\(([\d.]+)', plot.svg))


def test_an_interrupt_between_a_row_and_its_counting_loses_nothing(path, tmp_path, monkeypatch):
    append = Journal.put

    def put(self, row):
        append(self, row)
        if len(self.rows) == 2:
            self.rows.pop()
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", put)
    outcome = CliRunner().invoke(main, ["sweep", str(path), "--over", f"{RATE}=[1, 2, 3]", "-o", str(tmp_path / "o"), "--jobs", "1"])
    assert (outcome.exit_code, outcome.stdout) == (130, "")
    assert "2 of 3 runs are finished" in outcome.stderr
    assert len(pd.read_parquet(tmp_path / "o" / "points.parquet")) == 2
