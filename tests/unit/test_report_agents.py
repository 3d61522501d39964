"""What a page, a text block and the reasons say of agents, tools, sandboxes and evaluations."""
from __future__ import annotations

import re

import numpy as np
import pytest

import sim
from sim.report import agents, sandboxes
from sim.report.page import render
from sim.report.text import block
from sim.study.metrics import Facts
from sim.study.why.reason import lasting

TOOLS = {
    "bash": {"time": {"mean": "2s"}, "observation": 200, "sandbox": True, "timeout": "20s", "fail": 0.05},
    "search": {"time": "1s", "observation": 400, "api": "web"},
    "tests": {"time": "20s", "observation": 1, "sandbox": True},
}  # fmt: skip
LEAD = {"system": 1000, "task": 300, "calls": 4, "output": 120, "tools": {"bash": 1}, "sandbox": {"pool": "box"},
        "spawns": [{"agent": "scout", "calls": [2], "count": 3, "result": 80}]}  # fmt: skip
SCOUT = {"system": 400, "task": 100, "calls": 3, "output": 60, "tools": {"search": 1}}
BOX = {"name": "box", "nodes": 1, "node": "general_64", "cores": 8, "memory": "4GB", "boot": {"mean": "8s"}, "boot_concurrency": 2,
       "images": {"count": 3, "size": "4GB"}}  # fmt: skip
BUILD = {"kind": "agents", "name": "build", "rate": 1, "num_sessions": 40, "turns": 2, "think_time": "30s",
         "agents": {"lead": LEAD, "scout": SCOUT}, "tools": {name: TOOLS[name] for name in ("bash", "search")},
         "apis": {"web": {"rate": 2}}}  # fmt: skip
EXAM = {"kind": "evals", "name": "exam", "start": "60s", "tasks": 6, "samples": 4,
        "tools": {name: TOOLS[name] for name in ("bash", "tests")},
        "agents": {"solver": {"task": 200, "calls": 2, "output": 50, "tools": {"bash": 1}, "sandbox": {"pool": "box"}}},
        "grade": {"tool": "tests", "clean_sandbox": True}}  # fmt: skip
# Caches that hold few of the contexts at a time.
POOL = {"gpu": "l40s", "engine": {"num_gpu_blocks_override": 520, "max_model_len": 8192}}


def scenario(**cluster):
    return {"name": "crew", "model": "Qwen/Qwen2.5-0.5B", "workloads": [BUILD, EXAM], "prices": {"book": "neocloud"},
            "cluster": {"pools": [POOL], "sandboxes": [BOX], **cluster}}  # fmt: skip


@pytest.fixture(scope="module")
def crew():
    return sim.run(scenario())


@pytest.fixture(scope="module")
def facts(crew):
    return Facts(crew)


@pytest.fixture(scope="module")
def gated():
    return sim.run(scenario(gate={"kind": "kv_capacity", "fill": 0.5}))


def by_title(parts):
    return {part.title: part for part in parts}


def cells(sheet):
    return {row[0]: dict(zip(sheet.heads[1:], row[1:], strict=True)) for row in sheet.rows}


def test_the_page_has_a_part_of_each(crew):
    page = render(crew)
    for title in ("Tasks", "Evaluation", "Sandboxes", "What caches found of prompts", "What one message of a user sets off", "Tools",
                  "How long sandboxes take to come", "What agents' time goes to", "How long tasks take", "How the evaluation gets done",
                  "Sandboxes over time"):  # fmt: skip
        assert f">{title}<" in page.replace("&#39;", "'"), title
    assert "Every sandbox is given back" in page
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"<details.*?</details>|<svg.*?</svg>", "", page, flags=re.S))


def test_a_run_without_agents_has_none_of_them():
    calm = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": [POOL]}, "workloads": [
        {"kind": "poisson", "rate": 5, "num_requests": 20, "lengths": {"kind": "fixed", "input": 50, "output": 5}}]})  # fmt: skip
    found = Facts(calm)
    assert [*agents.panels(calm.summary), *agents.sheets(found, calm.summary), *agents.plots(found, calm.summary)] == []
    assert [*sandboxes.panels(calm.summary), *sandboxes.sheets(calm.summary), *sandboxes.plots(found, calm.summary)] == []
    assert agents.cards(calm.summary) == []
    assert "Agents" not in block(calm.summary)


def test_shares_of_each_kind_are_its_life(crew, facts):
    table = crew.tables["agents"].to_pandas()
    for name, parts in facts.crowd.by_kind().items():
        life = (table.end - table.start)[table.kind == name].sum()
        assert sum(parts.values()) == pytest.approx(life)
    whole = sum(sum(parts.values()) for parts in facts.crowd.by_kind().values())
    queue = sum(parts["queue"] for parts in facts.crowd.by_kind().values())
    assert crew.summary["agents"]["share"]["queue"] == pytest.approx(queue / whole)
    [lives] = [plot for plot in agents.plots(facts, crew.summary) if plot.title == "What agents' time goes to"]
    assert "scout" in lives.note
    assert "lead" in lives.note


def test_what_a_message_sets_off_by_depth(crew, facts):
    found = cells(by_title(agents.sheets(facts, crew.summary))["What one message of a user sets off"])
    # Each of 80 messages of build has four calls of its lead, of which the second sends three scouts of three calls; the exam's have two.
    assert float(found["1"]["Agents"]) == pytest.approx(3 * 80 / 104, abs=0.02)
    assert float(found["1"]["LLM calls"]) == pytest.approx(9 * 80 / 104, abs=0.02)
    assert float(found["0"]["LLM calls"]) == pytest.approx((4 * 80 + 2 * 24) / 104, abs=0.02)


def test_tools_with_their_queues(crew, facts):
    found = cells(by_title(agents.sheets(facts, crew.summary))["Tools"])
    assert list(found)[-1] == "all"
    assert found["tests"]["p50"] == "20.1 s"
    assert found["search"]["Failed"] == "0%"
    assert "Queued" in found["search"]
    assert found["all"]["Calls"] == str(len(crew.tables["tool_calls"]))


def test_sandboxes_in_figures(crew):
    [panel] = sandboxes.panels(crew.summary)
    rows, pool = dict(panel.rows), crew.summary["sandboxes"]["box"]
    assert rows["Asked for"] == str(pool["asked"])
    assert rows["On nodes, mean and most"].endswith(", 8")
    assert rows["Cost"].startswith("$")
    assert dict(by_title(agents.panels(crew.summary))["Evaluation"].rows)["Samples"] == "24 of 6 tasks"


def test_all_sandboxes_are_in_the_plot_in_one_state(crew, facts):
    """Bins of all states add up to what is on nodes."""
    [plot] = sandboxes.plots(facts, crew.summary)
    table = crew.tables["sandboxes"]
    there = ~np.isnan(table["placed"])
    mean = (table["released"] - table["placed"])[there].sum() / facts.end
    said = float(re.search(r"([\d.]+) on average", plot.note)[1])
    # The plot begins with the first request, the figure with the clock.
    assert said == pytest.approx(mean * facts.end / (facts.end - facts.begin), rel=0.02)
    assert "wait for a place" in plot.note


def test_why(crew, gated):
    found = {reason["cause"]: reason for reason in crew.summary["why"]}
    share = crew.summary["agents"]["share"]
    working = 1 - share["think"] - share["join"]
    assert found["sandboxes"]["share"] == pytest.approx(share["sandbox"] / working, abs=1e-4)
    assert "for a place, as nodes were full" in found["sandboxes"]["text"]
    assert 0.1 < found["recomputed"]["share"] < 1
    assert found["recomputed"]["share"] == pytest.approx(1 - 1 / crew.summary["agents"]["recomputed"], abs=1e-4)
    held = {reason["cause"]: reason for reason in gated.summary["why"]}["gate"]
    assert f"it held {len(gated.tables['gate']):,} calls" in held["text"]
    assert "Gate" in by_title(agents.panels(gated.summary))


def test_the_text_block(crew):
    text = block(crew.summary)
    for words in ("Tasks begun / completed: ", "Time to finish / until 90% (s): ", "Boot, P50 / P99 (s): ", "Cached after a tool call"):
        assert words.rstrip() in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("Verdict", "Why", "Extrapolated"))) < 66


def test_a_time_in_words():
    assert [lasting(seconds) for seconds in (0.002, 3.0, 400.0, 9000.0)] == ["2 ms", "3 s", "6.67 min", "2.5 h"]
