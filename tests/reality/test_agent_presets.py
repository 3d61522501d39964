"""Presets of agents against what they were derived from: means within 10 %, 99th percentiles within 25 %.

Recordings are those of ../shared/data/traces: sessions of Claude Code (callanjfox/kv-cache-tester), SWE tasks (AgentCgroup), conversations
(Mooncake). Moments of mini-SWE-agent and of web search are those of Continuum (arXiv:2511.02230), Table 2.
"""
from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sim.study.run import run
from tests.reality.agent_stand_in import Drawn
from workloads.presets import fit_agents, fit_programs
from workloads.programs.presets import FOLDER

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
drawn = functools.cache(Drawn)


def recorded(name):
    if not (TRACES / name).exists():
        pytest.skip("no recordings at ../shared/data/traces")
    return pd.read_parquet(TRACES / name)


def alike(ours, theirs, tail=0.25):
    ours, theirs = pd.Series(ours), pd.Series(theirs)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.10)
    assert ours.quantile(0.99) == pytest.approx(theirs.quantile(0.99), rel=tail)


def fresh(calls):
    """Tokens of each prompt that no prompt of its agent before it began with, known by blocks of 64 as in the recording."""
    before = calls.groupby("agent")["context"].shift()
    anew = before.isna() | calls["cause"].isin(["edit", "compaction"])
    return calls["new"].where(anew, calls["context"] - before // 64 * 64)


# -- a coding assistant ------------------------------------------------------------
@functools.cache
def coding():
    rows = recorded("cc_weka_requests_A.parquet")
    made = drawn("coding_assistant", 1000)
    main = rows[rows["agent_id"] == "main"].sort_values(["session_id", "turn"])
    answered = main[main.groupby("session_id")["stop"].shift() == "end_turn"]
    asked = made.calls[made.calls["cause"].isin(["user", "edit"])]
    return {
        "requests": (made.calls.groupby("root").size(), rows.groupby("session_id").size()),
        "input": (made.calls["context"], rows["input_tokens"]), "output": (made.calls["output"], rows["output_tokens"]),
        "new": (fresh(made.calls), rows["new_tokens"]),
        "tool_gap": (made.tools["seconds"][made.tools["tool"] == "step"], rows["tool_latency_s"].dropna()),
        "human_gap": (asked["gap"].dropna(), answered["think_time_s"]),
    }  # fmt: skip


@pytest.mark.parametrize("figure", ["requests", "input", "output", "new", "tool_gap", "human_gap"])
def test_a_coding_assistant_is_as_recorded(figure):
    alike(*coding()[figure])


def test_a_coding_assistant_shares_as_much_of_its_prompts():
    (new, theirs_new), (prompts, theirs) = coding()["new"], coding()["input"]
    share = 1 - theirs_new.sum() / theirs.sum()
    assert share == pytest.approx(0.9628, abs=0.001)
    assert 1 - new.sum() / prompts.sum() == pytest.approx(share, abs=0.003)


def test_nearly_all_sessions_of_a_coding_assistant_come_to_their_end():
    recorded("cc_weka_requests_A.parquet")
    assert (drawn("coding_assistant", 1000).agents["status"] == "completed").mean() > 0.99


# -- SWE tasks ------------------------------------------------------------
@functools.cache
def swe():
    calls, tools, tasks = (recorded(f"agentcgroup_{what}_glm.parquet") for what in ("requests", "tools", "tasks"))
    made = drawn("swe_agent", 500)
    assert set(made.agents["status"]) == {"completed"}
    asked = calls[calls["input_tokens"] > 0]
    return {
        "steps": (made.calls.groupby("root").size(), tasks["n_steps"]), "input": (made.calls["context"], asked["input_tokens"]),
        "output": (made.calls["output"], calls["output_tokens"]), "tool_s": (made.tools["seconds"], tools["latency_s"]),
        "bash_s": (made.tools["seconds"][made.tools["tool"] == "Bash"], tools["latency_s"][tools["tool"] == "Bash"]),
        "at_once": (made.tools.groupby(["agent", "start"]).size(), calls["n_tools"][calls["n_tools"] > 0]),
    }  # fmt: skip


@pytest.mark.parametrize("figure", ["steps", "input", "output", "tool_s", "bash_s", "at_once"])
def test_a_swe_agent_is_as_recorded(figure):
    alike(*swe()[figure])


def test_tools_of_a_swe_agent_fail_as_often():
    tools = recorded("agentcgroup_tools_glm.parquet")
    made = drawn("swe_agent", 500).tools
    for name in ("Bash", "Edit"):
        share = (made["outcome"][made["tool"] == name] == "error").mean()
        assert share == pytest.approx(tools["is_error"][tools["tool"] == name].mean(), rel=0.10)


def test_sandboxes_of_a_swe_agent_are_set_up_as_slowly():
    theirs = recorded("agentcgroup_tasks_glm.parquet")["permission_fix_time"]
    pool = {**yaml.safe_load((FOLDER / "swe_agent.yaml").read_text(encoding="utf-8"))["source"]["pool"], "place": "spread"}
    del pool["images"]
    engine = {"max_num_seqs": 1024, "max_model_len": 200_000, "enable_prefix_caching": True}
    serve = {"gpu": "h100_sxm", "parallel": {"tp": 8}, "precision": "fp8", "engine": engine}
    load = {"kind": "agents", "preset": "swe_agent", "num_sessions": 600, "rate": 1, "agents": {"coder": {"calls": 2}}}
    result = run({"model": "meta-llama/Llama-3.1-8B", "seed": 1, "cluster": {"pools": [serve], "sandboxes": [pool]}, "workloads": [load]})
    boxes = result.tables["sandboxes"].to_pandas()
    alike(boxes["booted"] - boxes["placed"], theirs)
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    assert (result.tables["agents"].to_pandas()["sandbox_s"] > 0).all()


# -- conversations ------------------------------------------------------------
def test_a_chat_is_as_recorded():
    rows = recorded("mooncake_conversation_t0-2400.parquet")
    calls = drawn("chat", 4000).calls
    alike(calls["context"], rows["input_tokens"])
    alike(calls["output"], rows["output_tokens"])


# -- published moments ------------------------------------------------------------
def moments(preset, kind, sessions, program):
    made = drawn(preset, sessions)
    agents = made.agents[made.agents["kind"] == kind]
    tokens = agents["prompt_tokens"] + agents["output_tokens"]
    seconds = made.tools["seconds"][made.tools["agent"].isin(agents["agent"])]
    for values, (mean, sd) in ((agents["calls"], program.calls), (tokens, program.tokens), (seconds, program.tool)):
        assert values.mean() == pytest.approx(mean, rel=0.10)
        assert values.std() == pytest.approx(sd, rel=0.10)
    return seconds.sort_values()


def test_mini_swe_agent_has_the_published_moments():
    seconds = moments("mini_swe_agent", "coder", 1500, fit_programs.MINI)
    slowest = seconds.tail(len(seconds) // 10).sum() / seconds.sum()
    assert slowest == pytest.approx(fit_programs.SLOWEST, abs=0.03)


def test_deep_research_has_the_published_moments_and_takes_15_times_a_chat():
    moments("deep_research", "searcher", 1000, fit_programs.SEARCH)

    def each(preset, sessions):
        agents = drawn(preset, sessions).agents
        return (agents["prompt_tokens"] + agents["output_tokens"]).sum() / sessions

    assert each("deep_research", 1000) / each("chat", 4000) == pytest.approx(15, rel=0.10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_swarm_grows_as_a_branching_process(depth):
    levels = drawn("recursive_swarm", 600).agents.groupby("depth").size() / 600
    # Three standard errors of 600 sessions: a branching process of mean m and variance v varies by v m^(d-1) (m^d - 1) / (m - 1).
    error = (2.56 * 1.8 ** (depth - 1) * (1.8**depth - 1) / 0.8 / 600) ** 0.5
    assert levels[depth] == pytest.approx(1.8**depth, abs=3 * error)


# -- the files ------------------------------------------------------------
def test_the_files_are_what_the_recordings_give():
    recorded("cc_weka_requests_A.parquet")
    written = yaml.safe_load((FOLDER / "coding_assistant.yaml").read_text(encoding="utf-8"))
    del written["source"]
    again = yaml.safe_load(fit_agents.written(fit_agents.coding_assistant(TRACES)))
    assert again == written


def test_a_law_has_the_mean_of_what_it_is_made_of():
    values = np.random.default_rng(1).lognormal(5, 1.5, 3000)
    points = fit_agents.law(values, 3)["points"]
    assert fit_agents.mean(points) == pytest.approx(values.mean(), rel=0.02)
    assert points[0][1] == pytest.approx(values.min(), abs=1e-3)


def test_first_prompt_and_growth_are_solved_exactly_where_nothing_varies():
    # 4 calls, growing by 100 + 50 each: 4 (s + 100) + 150 * 6 tokens.
    program = fit_programs.Program((4.0, 1e-9), (2100.0, 0.0), (1.0, 2.0))
    first, seen = fit_programs.solve(program, 100.0, 0.0)
    assert 4 * (first + 100) + (100 + seen) * 6 == pytest.approx(2100, rel=1e-6)
