"""Evaluations: how long the whole took, what its time went to, and how much of it was waiting for the last few samples.

A sample is a root agent. Time is counted from the begin of the first. Grading is the last tool call of a sample, by the tool that grades;
waiting for the sandbox that is done in counts as waiting for sandboxes.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.agents import STATES
from sim.study.spread import distribution
from sim.study.starts import most_at_once

if TYPE_CHECKING:
    from sim.study.metrics import Facts

DONE = (50, 90, 99)


def evals(facts: Facts) -> dict[str, Any] | None:
    """The figures of each evaluation, by name; None where there is none."""
    labels = facts.result.tables["requests"].labels["workload"]
    found = {}
    for number, options in enumerate(facts.result.scenario.workloads):
        if options["kind"] == "evals" and number < len(labels):
            grade = options["grade"]
            found[labels[number]] = _one(facts, labels[number], grade.tool if grade is not None else "", options)
    return {name: one for name, one in found.items() if one} or None


def _one(facts: Facts, name: str, tool: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """`finish_s`: until all were over, None: they were not; `done_s`: until so many percent of all were; `last`: the life of the last."""
    table, crowd = facts.result.tables["agents"], facts.crowd
    if crowd is None or name not in table.labels["workload"]:
        return None
    mine = crowd.roots[table["workload"][crowd.roots] == table.labels["workload"].index(name)]
    start, end = crowd.start[mine], np.sort(crowd.end[mine])
    first, total = float(start.min()), options["tasks"] * options["samples"]
    spent = {state: table[state][mine] for state in STATES}
    grade = _grades(facts, tool)[mine]
    spent["tool_s"] = spent["tool_s"] - grade
    parts = {**{state.removesuffix("_s"): seconds for state, seconds in spent.items() if state != "think_s"}, "grade": grade}
    life = sum(float(seconds.sum()) for seconds in parts.values())
    over = int((~np.isnan(end)).sum())
    last = int(np.nanargmax(crowd.end[mine])) if over else None
    return {
        "tasks": options["tasks"], "samples": total, "begun": len(mine), "ended": crowd.ends(mine),
        "finish_s": float(end[-1]) - first if over == total else None,
        "done_s": {f"p{share}": float(end[at]) - first if (at := -(-share * total // 100) - 1) < over else None for share in DONE},
        "samples_per_hour": over * 3600.0 / (float(end[over - 1]) - first) if over and end[over - 1] > first else None,
        "sample_s": distribution((crowd.end - crowd.start)[mine][~np.isnan(crowd.end[mine])]),
        "share": {part: float(seconds.sum()) / life for part, seconds in parts.items()} if life else None,
        "last": None if last is None else
                {"began": float(start[last]) - first, **{part: float(seconds[last]) for part, seconds in parts.items()}},
        "sandboxes": _homes(facts, name),
    }  # fmt: skip


def _grades(facts: Facts, tool: str) -> np.ndarray:
    """Seconds of each agent's last tool call, where that was by the tool that grades."""
    crowd, table = facts.crowd, facts.result.tables["tool_calls"]
    assert crowd is not None
    seconds = np.zeros(len(crowd.agent))
    if not tool or not len(table) or tool not in table.labels["tool"]:
        return seconds
    at, code = crowd.place(table["agent"]), table.labels["tool"].index(tool)
    # Rows come in the order in which calls ended: the last one written is the last.
    seconds[at] = np.where(table["tool"] == code, table["end"] - table["start"], 0.0)
    return seconds


def _homes(facts: Facts, name: str) -> dict[str, Any] | None:
    """Sandboxes that an evaluation asked for, the most it held at a time, and seconds from asked for to granted."""
    table = facts.result.tables["sandboxes"]
    if name not in table.labels["workload"]:
        return None
    mine = (table["workload"] == table.labels["workload"].index(name)) & ~np.isnan(table["granted"])
    granted, released = table["granted"][mine], table["released"][mine]
    peak = int(most_at_once(granted, released, np.ones(len(granted))))
    return {"held": int(mine.sum()), "peak": peak, "wait_s": distribution(granted - table["asked"][mine])}
