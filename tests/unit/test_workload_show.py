"""`burstsim workload show` of whoever waits for answers, tools and sandboxes, which a stand-in gives; and of what sends nothing."""
from __future__ import annotations

import json

import agent_samples
import pytest
from click.testing import CliRunner

from sim.cli import main
from sim.core.registry import WORKLOADS

AGENT = "{system: 200, message: 50, calls: 4, output: 30, tools: {bash: 1}, sandbox: {pool: boxes}, budget: {time: 20s}}"
BASH = "{time: {mean: 2s}, observation: 40, sandbox: true, timeout: 5s, hang: 0.1}"
SHOWN = {
    "agents": f"{{kind: agents, rate: 1, num_sessions: 30, turns: 2, agents: {{main: {AGENT}}}, tools: {{bash: {BASH}}}}}",
    "preset": "{kind: agents, preset: chat, rate: 1, num_sessions: 30}",
    "evals": f"{{kind: evals, tasks: 10, samples: 3, agents: {{main: {AGENT}}}, tools: {{bash: {BASH}}}, grade: {{tool: bash}}}}",
    "sessions": "{kind: sessions, rate: 1, num_sessions: 30, turns: 3, lengths: {kind: fixed, input: 100, output: 20}}",
}


def show(*words):
    return CliRunner().invoke(main, ["workload", "show", *map(str, words)])


def test_only_kinds_without_requests_of_their_own_are_not_shown():
    kinds = {kind for kind in WORKLOADS.names() if WORKLOADS.find(kind).sends is not True}
    assert kinds == {"train", "transfers"}


@pytest.mark.parametrize("name", SHOWN)
def test_programs_are_shown(name):
    done = show(SHOWN[name], "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["workloads"].values()
    assert found["requests"] >= 30
    assert json.loads(show(SHOWN[name], "--json").stdout)["workloads"] == json.loads(done.stdout)["workloads"]


def test_a_recording_is_shown(tmp_path):
    (tmp_path / "calls.csv").write_text(agent_samples.CALLS)
    done = show(f"{{kind: agent_trace, path: {tmp_path / 'calls.csv'}}}", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["workloads"].values()
    assert found["requests"] == 8


def test_what_sends_nothing_is_left_out(tmp_path):
    moves = "- {name: sync, kind: transfers, source: serve, target: serve, every: 60s, times: 2}\n"
    (tmp_path / "both.yaml").write_text(f"workloads:\n{moves}- {SHOWN['sessions']}\n")
    done = show(tmp_path / "both.yaml")
    assert done.exit_code == 0, done.output
    assert "sync: sends no requests" in done.stderr
    (tmp_path / "moves.yaml").write_text(f"workloads:\n{moves}")
    alone = show(tmp_path / "moves.yaml")
    assert alone.exit_code == 2
    assert "moves.yaml: workloads: none of the workloads sends requests" in alone.stderr
