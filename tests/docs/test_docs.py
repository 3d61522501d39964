"""What the documentation shows works: README snippets, every config, docstring examples."""
from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import sys
import types
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

import sim
from sim.cli import main
from sim.core.registry import ROUTERS, WORKLOADS
from sim.core.request import Request
from sim.spec.schema import json_schema
from sim.spec.yaml_marks import parse

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT.parent / "shared" / "data" / "traces"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


@pytest.fixture
def chat(tmp_path, monkeypatch):
    (tmp_path / "chat.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_commands_run(chat):
    lines = [line.split("#")[0].strip() for line in blocks("bash")[0].splitlines()]
    for line in filter(None, lines):
        words = shlex.split(line)
        assert words[0] == "burstsim"
        outcome = CliRunner().invoke(main, words[1:])
        assert outcome.exit_code in (0, 1) if words[1] == "run" else outcome.exit_code == 0, outcome.output
    assert (chat / "out" / "chat" / "report.html").is_file()


def test_readme_studies_run(chat, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    [block] = [block for block in blocks("bash") if "burstsim sweep" in block]
    verbs = []
    for line in filter(None, (line.split("#")[0].strip() for line in block.splitlines())):
        program, *words = shlex.split(line)
        assert program == "burstsim"
        pages = ["--no-report"] if "-o" in words else []
        outcome = CliRunner().invoke(main, [*words, *pages, "--set", "workloads.0.num_requests=60"])
        assert outcome.exit_code == 0, outcome.output
        verbs.append(words[0])
    assert verbs == ["run", "run", "compare", "compare", "sweep"]
    held = [chat / "out" / name for name in ("sure/replications.parquet", "h200/comparison.json", "rates/points.parquet")]
    assert [path for path in held if not path.is_file()] == []


def test_readme_python_runs(chat):
    first, *_ = blocks("python")
    names: dict[str, object] = {}
    exec(first, names)
    assert names["result"].summary["requests"]["completed"] == 500
    assert {"ttft", "tpot", "e2e", "queue"} <= set(names["result"].requests.columns)


def test_readme_workloads_are_workloads():
    for block in blocks("yaml")[1:]:
        for options in yaml.safe_load(block).get("workloads", []):
            assert WORKLOADS.check(options)[1] == []


def test_what_the_readme_shows_can_be_put_on_its_first_scenario(tmp_path):
    first, *others = (parse(block, "README.md", tmp_path).data for block in blocks("yaml"))
    assert len(others) > 5
    for block in others:
        scenario = sim.loads(first | block)
        (tmp_path / "again.yaml").write_text(sim.dump(scenario), encoding="utf-8")
        assert sim.load(tmp_path / "again.yaml") == scenario


def test_editors_know_what_the_readme_shows():
    check = jsonschema.Draft202012Validator(json_schema())
    first, *others = map(yaml.safe_load, blocks("yaml"))
    assert [error.message for block in ({}, *others) for error in check.iter_errors(first | block)] == []
    [block] = [block for block in others if any("shares" in pool for pool in block.get("cluster", {}).get("pools", []))]
    pool = block["cluster"]["pools"][1]
    assert not list(check.iter_errors(first | block | {"cluster": {"pools": [pool | {"shares": "chat"}]}}))
    assert list(check.iter_errors(first | block | {"cluster": {"pools": [pool | {"shares": {"pool": "chat", "wen": {}}}]}}))


def test_readme_agents_run(tmp_path):
    first, *others = (parse(block, "README.md", tmp_path).data for block in blocks("yaml"))
    found = {}
    for block in others:
        for number, workload in enumerate(block.get("workloads", [])):
            size = {"agents": "num_sessions", "evals": "tasks"}.get(workload["kind"])
            if size is not None:
                summary = sim.run(sim.loads(first | block, {f"workloads.{number}.{size}": 4})).summary
                found[workload["kind"]] = summary["agents"]["tasks"]["begun"], sorted(summary["sandboxes"] or ())
    assert found == {"agents": (4, []), "evals": (16, ["swe"])}


def test_readme_reinforcement_learning_runs(tmp_path):
    first, *others = (parse(block, "README.md", tmp_path).data for block in blocks("yaml"))
    [block] = [block for block in others if any(one["kind"] == "rl" for one in block.get("workloads", []))]
    small = {"steps": 2, "prompts": 8, "samples": 4, "answers.mean": 100, "answers.cap": 400}
    result = sim.run(sim.loads(first | block, {f"workloads.0.{key}": value for key, value in small.items()}))
    assert result.tables["rl_steps"]["groups"].tolist() == [8, 8]
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_readme_shared_gpus_run(tmp_path):
    first, *others = (parse(block, "README.md", tmp_path).data for block in blocks("yaml"))
    [block] = [block for block in others if any("shares" in pool for pool in block.get("cluster", {}).get("pools", []))]
    result = sim.run(sim.loads(first | block))
    found = result.summary["lending"]["batch"]
    assert found["lend"]["served"] == 3
    assert result.tables["lendings"]["start"].tolist() == pytest.approx([360.0] * 3, abs=1e-6)
    assert found["traffic"] == found["traffic"] | {"requests": 1000, "of_requests": 1.0}
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_readme_program_runs(chat):
    (chat / "reviewer.py").write_text(blocks("python")[1], encoding="utf-8")
    workload = {"kind": "agents", "rate": 1, "num_sessions": 2, "program": "reviewer.py:Reviewer", "options": {"files": 5}}
    sets = {"workloads": [workload | {"tools": {"read": {"time": "1s", "observation": 400}}}]}
    summary = sim.run(sim.load(chat / "chat.yaml", sets)).summary
    assert summary["agents"]["tasks"]["completed"] == 2
    assert summary["requests"]["completed"] == 12


def test_readme_router_is_a_router():
    # dataclasses look their module up by name.
    snippet = sys.modules["snippet"] = types.ModuleType("snippet")
    names = vars(snippet)
    exec(blocks("python")[2], names)

    class Seen:
        def __init__(self, index, queued):
            self.index, self.queued, self.in_flight = index, queued, 0

    views = [Seen(0, 2), Seen(1, 1), Seen(2, 1)]
    assert names["ShortestQueue"]().pick(Request(0, 0.0, 1, 1), views) == 1
    assert names["ShortestQueue"](ties="last").pick(Request(0, 0.0, 1, 1), views) == 2
    assert "shortest_queue" not in ROUTERS.names()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_runs(path):
    """As it stands where its traffic is at hand, with the real trace where that is in the data folder; of what is very large the first."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    sets = []
    for number, workload in enumerate(raw["workloads"]):
        if workload["kind"] == "trace":
            trace = TRACES / f"{workload['path']}"
            real = trace if trace.exists() else trace.with_name(trace.name + ".gz")
            if not real.exists():
                pytest.skip(f"the trace {workload['path']} is not in the data folder")
            sets += [f"workloads.{number}.path={real}", f"workloads.{number}.limit=2000"]
        if workload.get("num_requests", 0) > 100_000:
            sets.append(f"workloads.{number}.num_requests=20000")
        if workload["kind"] == "evals" and workload["tasks"] * workload.get("samples", 1) > 20_000:
            sets.append(f"workloads.{number}.tasks=250")
    result = sim.run(sim.load(path, sets))
    assert result.summary["requests"]["completed"] > 0 or result.summary["training"]
    assert all(check["ok"] for check in result.summary["audit"].values())


def modules() -> list[str]:
    found = []
    for package in ("sim", "workloads"):
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            found.append(info.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0
