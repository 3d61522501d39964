"""The audit of agents: it holds on a run with all there is, and each way of losing or counting twice something is found."""
from __future__ import annotations

import copy
import functools
import math

import pytest
from synthetic import edit

import sim
from sim.study.audit import audit
from workloads.programs.agent import Agent
from workloads.programs.context import Context
from workloads.programs.home import Home
from workloads.programs.shared import Shared
from workloads.programs.tools import ToolUse

KINDS = {
    "main": {"system": 64, "message": 80, "calls": 3, "output": 40, "tools": {"bash": 1}, "parallel_tools": 2, "sandbox": {"pool": "swe"},
             "spawns": [{"agent": "sub", "calls": [1], "count": 3, "join": 1}], "budget": {"time": "20s"}},
    "sub": {"task": 30, "calls": 3, "output": {"mean": 60, "cv": 1.0}, "tools": {"bash": 1}},
}  # fmt: skip
TOOLS = {"bash": {"time": {"mean": "500ms"}, "observation": 30, "sandbox": True, "fail": 0.2, "retries": 1}}
BOXES = {"name": "swe", "nodes": 1, "node": {"cores": 4, "memory": "8GB", "disk": "100GB"}, "memory": "1GB", "boot": "300ms", "crash": 200}
WORK = {"kind": "agents", "name": "work", "rate": 5, "num_sessions": 15, "turns": 2, "think_time": "1s", "agents": KINDS, "tools": TOOLS}
SCENARIO = {"model": "Qwen/Qwen2.5-0.5B", "seed": 2, "workloads": [WORK],
            "cluster": {"pools": [{"gpu": "l4", "engine": {"max_num_seqs": 8, "max_model_len": 4096}}], "sandboxes": [BOXES]}}  # fmt: skip


@functools.cache
def whole():
    return sim.run(SCENARIO)


def wrong(result):
    """What the audit of agents says is wrong."""
    return {name: entry["detail"] for name, entry in audit(result).items() if not entry["ok"]}


def test_nothing_is_wrong_with_a_run_that_is_whole_or_cut_off():
    result = whole()
    assert wrong(result) == {}
    rows = {name: len(result.tables[name]) for name in ("agents", "turns", "tool_calls", "sandboxes")}
    assert result.summary["agents"]["agents"]["ended"]["cancelled"] > 10
    assert audit(result)["agents"]["checked"] == sum(rows.values()) + rows["turns"]
    assert wrong(sim.run(SCENARIO | {"duration": 4})) == {}


# -- rows ------------------------------------------------------------
CELLS = [
    ("agents", "calls", 1, 99, "LLM calls than it says"),
    ("agents", "tool_calls", 1, 0, "tool calls than it says"),
    ("agents", "prompt_tokens", 0, 7, "prompt tokens"),
    ("agents", "output_tokens", 0, 10**6, "output tokens"),
    ("agents", "end", 1, math.nan, "neither joined nor called off"),
    ("agents", "end", 1, 1e6, "neither joined nor called off"),
    ("agents", "llm_s", 1, 99.0, "not its life"),
    ("agents", "parent", 1, 10**6, "a parent that does not exist"),
    ("agents", "depth", 1, 5, "a depth"),
    ("agents", "agent", 1, 0, "another agent with that number"),
    ("turns", "context", 3, 1, "a prompt that is not its agent's context"),
    ("turns", "new", 0, 5, "a first call of which not all is new"),
    ("turns", "new", -1, 5000, "a context that is not"),
    ("turns", "agent", 3, 10**6, "calls of nobody"),
    ("tool_calls", "agent", 3, 10**6, "tool calls of nobody"),
    ("tool_calls", "start", 3, -5.0, "before its life or after it"),
    ("tool_calls", "end", 3, 1e6, "before its life or after it"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column", "row", "value", "said"), CELLS)
def test_a_corrupted_cell_is_found(table, column, row, value, said):
    result = copy.deepcopy(whole())
    edit(result.tables[table], column, row, value)
    assert said in wrong(result)["agents"]


def test_a_sandbox_that_somebody_holds_when_all_have_ended_is_found():
    result = copy.deepcopy(whole())
    edit(result.tables["sandboxes"], "outcome", 0, result.tables["sandboxes"].label("outcome", "unfinished"))
    assert wrong(result) == {"agents": "a sandbox that was never given back though all agents have ended: 1 rows, first row 0"}


# -- code ------------------------------------------------------------
def orphans(agent, status):
    agent._children = []
    DROP(agent, status)


def twice(context, key, tokens):
    ANSWERED(context, key, 2 * tokens)


def forgotten(use):
    if use._command is not None:
        use._command.stop()
    use._leave()
    use.used = ()


def again(shared, agent, tool, what):
    USED(shared, agent, tool, what)
    if what[3] == "error":
        USED(shared, agent, tool, what)


DROP, ANSWERED, USED = Agent.drop, Context.answered, Shared.used
FAULTS = [
    (Home, "leave", lambda home: None, "never given back"),
    (Agent, "drop", orphans, "neither joined nor called off"),
    (Context, "answered", twice, "a context that is not"),
    (ToolUse, "call_off", forgotten, "tool calls than it says"),
    (Shared, "used", again, "tool calls than it says"),
    (Agent, "_switch", lambda agent, state: None, "not its life"),
]


@pytest.mark.parametrize(("owner", "name", "broken", "said"), FAULTS)
def test_a_simulator_with_a_fault_does_not_pass(monkeypatch, owner, name, broken, said):
    monkeypatch.setattr(owner, name, broken)
    found = wrong(sim.run(SCENARIO))
    assert said in " ".join(found.values())
