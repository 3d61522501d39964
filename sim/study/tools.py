"""What tools took: by tool how often, how long, what share of all calls and of all their time, how they ended, and how long they queued.

Few calls own most of the time, so both shares are told, also by how long a call takes: below a second, and beyond a minute. And what
GPUs had no step meanwhile: the time at which at least one tool was at work.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.study.meanwhile import Union, idle_gpus
from sim.study.metric import ratio
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SHORT, LONG, HOUR = 1.0, 60.0, 3600.0


def tools(facts: Facts) -> dict[str, Any] | None:
    """The figures of all tool calls and of each tool; None where there are none. Calls that were called off count in `ended` alone."""
    table = facts.result.tables.get("tool_calls")
    if table is None or not len(table):
        return None
    seconds, tool, outcome = table["end"] - table["start"], table["tool"], table["outcome"]
    over = outcome != table.labels["outcome"].index("cancelled")
    names = table.labels["outcome"]
    total = float(seconds[over].sum())

    def figures(which: np.ndarray) -> dict[str, Any]:
        mine = which & over
        count, spent = int(mine.sum()), float(seconds[mine].sum())
        counts = np.bincount(outcome[which], minlength=len(names))
        return {
            "calls": count, "share_of_calls": count / over.sum() if over.any() else None, "share_of_time": spent / total if total else None,
            "time_s": distribution(seconds[mine]), "queue_s": distribution(table["queued"][mine]),
            "tries": float(table["tries"][mine].mean()) if count else None,
            "observation_tokens": distribution(table["observation"][mine].astype(float)),
            "ended": {names[code]: int(number) for code, number in enumerate(counts) if number},
        }  # fmt: skip

    every = figures(np.ones(len(tool), dtype=bool))
    bands = {"below_1s": seconds < SHORT, "1s_to_1min": (seconds >= SHORT) & (seconds <= LONG), "beyond_1min": seconds > LONG}
    every["bands"] = {
        name: {"share_of_calls": float((band & over).sum() / over.sum()) if over.any() else None,
               "share_of_time": float(seconds[band & over].sum()) / total if total else None}
        for name, band in bands.items()
    }  # fmt: skip
    idle, all_idle = idle_gpus(facts, Union(table["start"] + table["queued"], table["end"]))
    whole = float((facts.gpus * facts.lifetimes).sum())
    every["gpu_idle"] = {"gpu_hours": idle / HOUR, "of_gpu_time": ratio(idle, whole), "of_idle": ratio(idle, all_idle)}
    every["by_tool"] = {name: figures(tool == code) for code, name in enumerate(table.labels["tool"]) if (tool == code).any()}
    return every
