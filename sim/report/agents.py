"""Agents on a page: what became of tasks, what agents' time went to, what caches found of their contexts, what a message set off; tools;
evaluations.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import LEGEND, Drawing, Plot, over_time, spread
from sim.report.section import Panel, Sheet
from sim.report.svg import SERIES
from sim.report.words import dollars, number, percent, scaled, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts

ENDS = {
    "completed": "Completed", "calls": "Out of calls", "tokens": "Out of tokens", "time": "Out of time", "context": "Context full",
    "failed": "Calls failed", "sandbox": "Got no sandbox", "cancelled": "Called off", "unfinished": "Not over",
}  # fmt: skip
CAUSES = {
    "first": "first call of an agent", "user": "its user's message", "task": "a sub-agent's task", "tool": "tools",
    "subagent": "sub-agents", "more": "nothing new", "summary": "to write a summary", "compaction": "a summary",
    "retry": "a call that failed",
}  # fmt: skip
STATES = {"queue": "queued for a GPU", "llm": "with a model", "tool": "at tools", "sandbox": "waiting for a sandbox",
          "join": "waiting for sub-agents", "think": "user away"}  # fmt: skip
# Colour and opacity of each state, in their order.
LOOKS = ((1, 0.8), (0, 0.8), (2, 0.75), (3, 0.6), (4, 0.6), (3, 0.2))
PARTS = {"llm": "With models, queues included", "tool": "At tools", "sandbox": "Waiting for sandboxes", "join": "Waiting for sub-agents",
         "grade": "Being graded"}  # fmt: skip
ROWS = 12
KINDS = 6


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The key figures of tasks."""
    found = summary["agents"]
    if not found:
        return []
    took, tasks = found["task_time_s"] or {}, found["tasks"]
    pauses = ", without its user's pauses" if (found["share"] or {}).get("think") else ""
    done = f"{tasks['completed']:,} of {tasks['begun']:,} completed; {dollars(found['usd_per_task'])} each"
    return [
        ("Task time, median", seconds(took.get("p50")), f"p95 {seconds(took.get('p95'))}{pauses}"),
        ("Tasks per hour", number(found["tasks_per_hour"]), done),
    ]


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Tasks in figures, calls that a gate held, and evaluations."""
    return [*_tasks(summary), *_gate(summary["gate"]), *_evals(summary["evals"] or {})]


def _tasks(summary: dict[str, Any]) -> list[Panel]:
    found = summary["agents"]
    if not found:
        return []
    mean = {name: (found[f"{name}_per_task"] or {}).get("mean") for name in ("calls", "tokens", "agents")}
    rows = [("Tasks begun", f"{found['tasks']['begun']:,}")]
    rows += [(ENDS[how], f"{count:,}") for how, count in found["tasks"]["ended"].items()]
    rows += [(f"Task time, {name}", seconds((found["task_time_s"] or {}).get(name))) for name in ("mean", "p50", "p95", "p99")]
    rows += [("LLM calls per task", number(mean["calls"])), ("Tokens per task", number(mean["tokens"]))]
    if mean["agents"] is not None and mean["agents"] > 1:
        rows.append(("Agents per task", number(mean["agents"])))
    rows.append(("Dollars per task", dollars(found["usd_per_task"])))
    rows.append(("Prompt tokens computed for each that was new", number(found["recomputed"])))
    if found["kv_idle"]:
        rows.append(("KV blocks kept for agents that are away", percent(found["kv_idle"])))
    if summary["tools"]:
        rows.append(("GPU time without a step while tools worked", percent(summary["tools"]["gpu_idle"]["of_gpu_time"])))
    return [Panel("Tasks", rows)]


def _gate(found: dict[str, Any] | None) -> list[Panel]:
    if not found:
        return []
    held = found["held_s"] or {}
    rows = [
        ("Calls held", f"{found['calls_held']:,}"), ("Of them of programs let in before", f"{found['calls_of_paused_programs']:,}"),
        ("Held for, mean", seconds(held.get("mean"))), ("Held for, p95", seconds(held.get("p95"))),
    ]  # fmt: skip
    return [Panel("Gate", rows)]


def _evals(found: dict[str, Any]) -> list[Panel]:
    panels = []
    for name, one in found.items():
        last, homes, share = one["last"] or {}, one["sandboxes"], one["share"] or {}
        rows = [("Samples", f"{one['samples']:,} of {one['tasks']:,} tasks"), ("Time to finish", seconds(one["finish_s"]))]
        rows += [(f"Until {part[1:]}% were over", seconds(value)) for part, value in one["done_s"].items()]
        rows += [(words, percent(share.get(part))) for part, words in PARTS.items() if share.get(part)]
        rows += [("Sandboxes, most at a time", f"{homes['peak']:,}")] if homes else []
        rows += [(f"The last: {PARTS[part][0].lower()}{PARTS[part][1:]}", seconds(last[part])) for part in PARTS if last.get(part)]
        panels.append(Panel(f"Evaluation {name}" if len(found) > 1 else "Evaluation", rows))
    return panels


def sheets(facts: Facts, summary: dict[str, Any]) -> list[Sheet]:
    """Cache hits by cause, amplification by depth, tools."""
    if not summary["agents"] or facts.crowd is None:
        return []
    return [_hits(facts), *_depths(summary["agents"]["amplification"]), *_tools(summary["tools"])]


def _hits(facts: Facts) -> Sheet:
    assert facts.crowd is not None
    rows = [
        [CAUSES[cause], f"{scaled(whole).strip()}", f"{scaled(found).strip()}", percent(found / whole)]
        for cause, (whole, found) in sorted(facts.crowd.prompts.items(), key=lambda item: -item[1][0]) if whole
    ]  # fmt: skip
    note = "By what was added to a context last. What is not found is computed, be it new, or lost while the agent was away."
    return Sheet("What caches found of prompts", ("After", "Prompt tokens", "Found", "Share"), rows, note)


def _depths(found: dict[str, Any]) -> list[Sheet]:
    rows = [
        [str(row["depth"]), *(number(row[name]) for name in ("agents", "calls", "tokens", "compute"))] for row in found["by_depth"]
    ]  # fmt: skip
    if len(rows) < 2:
        return []
    rows.append(["all", *(number(found[name]) for name in ("agents", "calls", "tokens", "compute"))])
    note = "Depth 0 is whom the user talks to. Tokens are of prompts and answers; computed are those that no cache had."
    heads = ("Depth", "Agents", "LLM calls", "Tokens", "Computed")
    return [Sheet("What one message of a user sets off", heads, rows, note)]


def _tools(found: dict[str, Any] | None) -> list[Sheet]:
    if not found:
        return []
    tools = sorted(found["by_tool"].items(), key=lambda item: -(item[1]["share_of_time"] or 0.0))[:ROWS]
    queues = any((one["queue_s"] or {}).get("p99") for _, one in tools)
    rows = []
    for name, one in [*tools, *([("all", found)] if len(tools) > 1 else [])]:
        took, bad = one["time_s"] or {}, sum(count for how, count in one["ended"].items() if how not in ("ok", "cancelled"))
        row = [name, f"{one['calls']:,}", percent(one["share_of_calls"]), percent(one["share_of_time"])]
        row += [seconds(took.get(part)) for part in ("mean", "p50", "p99")]
        row += [seconds((one["queue_s"] or {}).get("mean"))] if queues else []
        rows.append([*row, percent(bad / one["calls"]) if one["calls"] else "–"])
    heads = ("Tool", "Calls", "Of calls", "Of time", "Mean", "p50", "p99", *(["Queued"] if queues else []), "Failed")
    band = found["bands"]
    short, long = band["below_1s"], band["beyond_1min"]
    note = (
        f"Calls below a second are {percent(short['share_of_calls'])} of all and {percent(short['share_of_time'])} of their time; beyond a "
        f"minute {percent(long['share_of_calls'])} and {percent(long['share_of_time'])}."
    )
    return [Sheet("Tools", heads, rows, note)]


def plots(facts: Facts, summary: dict[str, Any]) -> Iterator[Plot]:
    """What agents' time went to by kind of agent, agents by state over time, how long tasks took, how evaluations got done."""
    drawings = [*lives(facts), *tasks(facts), *progress(facts, summary["evals"] or {})]
    yield from (one.plot() for one in drawings)


def tasks(facts: Facts) -> Iterator[Drawing]:
    """How long tasks took; nothing of fewer than two."""
    crowd = facts.crowd
    if crowd is None or facts.span <= 0:
        return
    took = crowd.times
    if len(took) > 1 and took.max() > 0:
        what = "task time without its user's pauses" if crowd.think.any() else "task time"
        yield spread("How long tasks take", took, ("completed tasks", what))


def lives(facts: Facts) -> Iterator[Drawing]:
    """What agents' time went to, a bar for each kind; nothing where none lived."""
    crowd, table = facts.crowd, facts.result.tables["agents"]
    if crowd is None or facts.span <= 0:
        return
    shares = crowd.by_kind()
    names = sorted(shares, key=lambda name: -sum(shares[name].values()))[:KINDS]
    totals = {name: sum(shares[name].values()) for name in names}
    names = [name for name in names if totals[name] > 0]
    if not names:
        return
    parts = {state: [100 * shares[name][state] / totals[name] for name in names] for state in STATES}
    used = [state for state in STATES if max(parts[state]) >= 0.05]
    biggest = [max(used, key=lambda state: parts[state][row]) for row in range(len(names))]
    tops = enumerate(zip(names, biggest, strict=True))
    said = "; ".join(f"{name} {parts[state][row]:.0f}% {STATES[state]}" for row, (name, state) in tops)
    note = f"Shares of the lives of all agents of a kind. Most of each: {said}."

    def draw(axes: Any) -> None:
        left = np.zeros(len(names))
        for state, (colour, alpha) in zip(STATES, LOOKS, strict=True):
            if state in used:
                axes.barh(range(len(names)), parts[state], left=left, color=SERIES[colour], alpha=alpha, height=0.6, label=STATES[state])
                left = left + np.array(parts[state])
        counts = np.bincount(table["kind"], minlength=len(table.labels["kind"]))
        at = [counts[table.labels["kind"].index(name)] for name in names]
        axes.set_yticks(range(len(names)), [f"{name}\n{count:,}" for name, count in zip(names, at, strict=True)])
        # One bar alone is no wall.
        axes.set_ylim(max(len(names), 3) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of agents' time, %")
        axes.legend(ncols=2, handlelength=1.2, **LEGEND)

    yield Drawing("What agents' time goes to", note, (draw,))


def progress(facts: Facts, found: dict[str, Any]) -> Iterator[Drawing]:
    """Samples of evaluations that are over, and sandboxes held for them, over time; nothing without evaluations."""
    crowd, table, boxes = facts.crowd, facts.result.tables["agents"], facts.result.tables["sandboxes"]
    if crowd is None or facts.span <= 0 or not found:
        return
    codes = [table.labels["workload"].index(name) for name in found]
    mine = crowd.roots[np.isin(table["workload"][crowd.roots], codes)]
    start, end = crowd.start[mine], np.sort(crowd.end[mine][~np.isnan(crowd.end[mine])])
    edges = np.linspace(facts.begin, facts.end, 241)
    under_way = Bins(edges).add(start, np.where(np.isnan(crowd.end[mine]), facts.end, crowd.end[mine])).means()
    held = np.zeros(len(edges) - 1)
    if len(boxes):
        of = np.isin(boxes["workload"], [boxes.labels["workload"].index(name) for name in found if name in boxes.labels["workload"]])
        of &= ~np.isnan(boxes["granted"])
        held = Bins(edges).add(boxes["granted"][of], boxes["released"][of]).means()
    total = sum(one["samples"] for one in found.values())
    late = [f"the last 10% of {name} took {1 - one['done_s']['p90'] / one['finish_s']:.0%} of its time"
            for name, one in found.items() if one["finish_s"] and one["done_s"]["p90"]]  # fmt: skip
    note = f"{len(end):,} of {total:,} samples are over at the end{'; ' * bool(late)}{', '.join(late)}."

    def over(axes: Any, clock: float) -> None:
        shares = 100 * np.append(np.arange(1, len(end) + 1), len(end)) / total
        axes.step(np.append(end, facts.end) / clock, shares, where="post", color=SERIES[0])
        axes.set_ylim(0, 104)
        axes.set_title("samples that are over, %")

    def at_a_time(axes: Any, clock: float) -> None:
        axes.stairs(under_way, edges / clock, color=SERIES[0], fill=True, alpha=0.25, label="samples under way")
        if held.any():
            axes.stairs(held, edges / clock, color=SERIES[1], baseline=None, label="sandboxes held")
        axes.set_ylim(bottom=0)
        axes.set_title("at a time", pad=20)
        axes.legend(ncols=2, handlelength=1.2, **LEGEND)

    yield over_time("How the evaluation gets done", note, facts, over, at_a_time)
