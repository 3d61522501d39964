"""Plans, capacities and frontiers that are interrupted: what was run stays, none is run again, and the answer is as if nothing was."""
from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner
from plans import problem
from scenarios import written

import sim
import sim.study.plan.ledger
from sim.cli import main
from sim.core.errors import BadInput
from sim.study.journal import read
from sim.study.plan.plan import KIND
from sim.study.plan.trial import trial

SMALL = problem({"gpu": ["h100_sxm", "l40s"], "parallel": [{"tp": 1}], "replicas": {"range": {"min": 1, "max": 3}}, "growth": [1.0, 1.5],
                 "replications": 3}, {"rate": 30, "num_requests": 20})  # fmt: skip
VERBS = {"plan": (), "capacity": ("--replications", "1"), "pareto": ()}


def run(verb, path, folder, *options):
    return CliRunner().invoke(main, [verb, str(path), "-o", str(folder), "--jobs", "1", "--no-report", *VERBS[verb], *options])


def files(folder):
    """What a study wrote, but for seconds of the machine."""
    found = {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file() and path.name != ".lock"}
    if "plan.json" in found:
        found["plan.json"] = {**json.loads(found["plan.json"]), "seconds": 0.0}
    return found


@pytest.fixture
def counted(monkeypatch):
    """Runs that are made, and after how many of them there is a Ctrl-C."""
    seen = {"runs": 0, "until": 10**9}

    def one(scenario):
        if seen["runs"] >= seen["until"]:
            raise KeyboardInterrupt(12.3)
        seen["runs"] += 1
        return trial(scenario)

    def several(scenarios, jobs=1):
        yield from enumerate(map(one, scenarios))

    monkeypatch.setattr(sim.study.plan.ledger, "trial", one)
    monkeypatch.setattr(sim.study.plan.ledger, "trials", several)
    return seen


@pytest.mark.parametrize("verb", VERBS)
def test_interrupted_it_goes_on_and_runs_nothing_twice(verb, tmp_path, counted):
    path = written(tmp_path, yaml.safe_dump(SMALL))
    calm, folder = tmp_path / "calm", tmp_path / "o"
    assert run(verb, path, calm).exit_code == 0
    whole, counted["runs"] = counted["runs"], 0
    for stop in (2, whole - 1):
        counted["until"] = stop
        outcome = run(verb, path, folder)
        assert outcome.exit_code == 130, outcome.output
        kept = len(read(folder, KIND)[1])
        assert kept >= stop
        said = f"interrupted; {kept} {'run is' if kept == 1 else 'runs are'} finished in {folder}; the same command goes on from there"
        assert said in outcome.stderr
    counted["until"] = 10**9
    outcome = run(verb, path, folder)
    assert outcome.exit_code == 0, outcome.output
    assert counted["runs"] == whole
    assert files(folder) == files(calm)
    assert sorted(one.name for one in folder.iterdir()) == sorted(one.name for one in calm.iterdir())
    again = run(verb, path, folder)
    assert again.exit_code == 2
    assert "is complete; choose another folder, or give --force to replace it" in again.stderr



def test_one_that_replaces_goes_on_by_the_same_command(tmp_path, counted):
    path, folder = written(tmp_path, yaml.safe_dump(SMALL)), tmp_path / "o"
    assert run("pareto", path, folder).exit_code == 0
    whole = counted["runs"]
    counted["until"], before = counted["runs"] + 3, files(folder)
    assert run("pareto", path, folder, "--force").exit_code == 130
    assert before.items() <= files(folder).items()  # what is replaced is there until it is
    counted["until"] = 10**9
    assert run("pareto", path, folder, "--force").exit_code == 0
    assert counted["runs"] == 2 * whole
    assert files(folder) == before


def test_another_study_is_refused_with_the_difference(tmp_path, counted):
    path, folder = written(tmp_path, yaml.safe_dump(SMALL)), tmp_path / "o"
    counted["until"] = 2
    assert run("plan", path, folder).exit_code == 130
    counted["until"] = 10**9
    outcome = run("plan", path, folder, "--set", "seed=2", "--set", "plan.meets=0.5")
    assert outcome.exit_code == 2
    assert f"{folder} holds another plan" in outcome.stderr
    assert "scenario.seed: 1 -> 2" in outcome.stderr
    assert "scenario.plan.meets: nothing -> 0.5" in outcome.stderr
    other = run("pareto", path, folder)
    assert other.exit_code == 2
    assert 'study: "plan" -> "frontier"' in other.stderr
    key = run("capacity", path, tmp_path / "c", "--key", "cluster.pools.0.gpu")
    assert key.exit_code == 2
    assert not (tmp_path / "c").exists()
    assert run("plan", path, folder, "--brief").exit_code == 0
    assert run("pareto", path, folder, "--force").exit_code == 2  # what is there is no frontier


def test_a_row_that_is_no_run_is_refused_and_begun_anew_with_force(tmp_path, counted):
    path, folder = written(tmp_path, yaml.safe_dump(SMALL)), tmp_path / "o"
    counted["until"] = 2
    run("plan", path, folder, "--brief")
    counted["until"] = 10**9
    with (folder / KIND.file).open("a") as file:
        file.write('{"key": [1, 2], "seconds": 1, "trial": {"met": true}}\n')
    lines = len((folder / KIND.file).read_text().splitlines())
    outcome = run("plan", path, folder, "--brief")
    assert outcome.exit_code == 2
    assert f"{KIND.file}:{lines}: holds no run" in outcome.stderr
    (folder / KIND.file).write_text("rubbish\n")
    assert run("plan", path, folder, "--brief").exit_code == 2
    assert run("plan", path, folder, "--brief", "--force").exit_code == 0


def test_in_python_a_folder_is_gone_on_with_too(tmp_path, counted):
    counted["until"] = 3
    with pytest.raises(KeyboardInterrupt):
        sim.plan(SMALL, tmp_path, explain=False)
    counted["until"] = 10**9
    found = sim.plan(SMALL, tmp_path, explain=False)
    assert counted["runs"] == len(found.runs)
    assert found.answers == sim.plan(SMALL, explain=False).answers
    assert sim.Result.open(tmp_path / "best").summary["slo"]["met"]
    with pytest.raises(BadInput, match="is complete"):
        sim.plan(SMALL, tmp_path)


def rows_of(folder):
    return read(folder, KIND)[1] if (folder / KIND.file).is_file() else []


def kill(path, folder, luck):
    """Kill -9 a plan: most times within its next few runs, else at any moment from the very start on."""
    command = [sys.executable, "-m", "sim.cli", "plan", str(path), "-o", str(folder), "-q", "--jobs", "2"]
    process = subprocess.Popen(command, start_new_session=True)
    if luck.random() < 0.8:
        wanted = len(rows_of(folder)) + luck.randrange(1, 9)
        while len(rows_of(folder)) < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, 0.1))
    else:
        time.sleep(luck.uniform(0, 3))
    for end in (process.kill, lambda: os.killpg(process.pid, signal.SIGKILL)):
        with contextlib.suppress(ProcessLookupError):
            end()
    process.wait()


@pytest.mark.study
def test_a_plan_killed_20_times_at_random_moments(tmp_path):
    luck = random.Random(os.urandom(8))
    long = problem({"growth": [1.0, 1.5], "replications": 12}, {"num_requests": 800})
    path, folder, calm = written(tmp_path, yaml.safe_dump(long)), tmp_path / "o", tmp_path / "calm"
    before, counts = [], []
    for _ in range(20):
        kill(path, folder, luck)
        if (folder / KIND.saved).is_file():
            break
        rows = rows_of(folder)
        assert rows[: len(before)] == before  # nothing that was finished is lost, or has changed
        before, _ = rows, counts.append(len(rows))
    print(f"runs after each kill: {counts}")
    for place in (folder, calm):
        sim.plan(path, place, force=True)
    assert files(folder) | {"report.html": ""} == files(calm) | {"report.html": ""}
    assert {one.name for one in folder.iterdir()} <= {one.name for one in calm.iterdir()} | {"report.html"}
