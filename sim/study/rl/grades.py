"""Rewards: how long graders took and how long cases waited for them, and what of it the trainer waited for.

Cases that ended in the time that counts, those still under way and called off apart. A grader's use is its seconds of work over those of
its servers, where its options say how many there are; that of a judge is in the figures of its pool, that of sandboxes in theirs.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.study.facts import Tables
from sim.study.metric import ratio
from sim.study.rl.run import Rows, Run, runs
from sim.study.spread import distribution

HOUR = 3600.0


def rented_usd(tables: Tables, end: float) -> float | None:
    """What judges cost that somebody rents out by the time they are busy, which ends with the run where a case is under way then; None
    where there are none.
    """
    rented = [(run.rows("rl_grades"), run.one["rented"]) for run in runs(tables) if run.one.get("rented")]
    if not rented:
        return None
    total = 0.0
    for rows, prices in rented:
        worked = np.where(np.isnan(rows["end"]), end, rows["end"]) - rows["start"] - rows["queued"]
        whose = np.array([prices.get(name, 0.0) for name in rows.labels["grader"]])
        total += float((worked * whose[rows["grader"]]).sum()) / HOUR if len(rows) else 0.0
    return total


def grades(run: Run) -> dict[str, dict[str, Any]] | None:
    """{grader: figures}; None where nobody grades."""
    rows = run.rows("rl_grades")
    if not len(rows):
        return None
    names, who = rows.labels["grader"], rows["grader"]
    return {names[code]: _figures(run, rows, who == code) for code in np.unique(who).tolist()}


def _figures(run: Run, rows: Rows, mine: np.ndarray) -> dict[str, Any]:
    end, outcome, labels = rows["end"], rows["outcome"], rows.labels["outcome"]
    there = mine & (end > run.begin) & (end <= run.end)
    whole = there & np.isin(outcome, [labels.index(name) for name in ("ok", "timeout", "failed")])
    took, queued = (end - rows["start"])[whole], rows["queued"][whole]
    counts = np.bincount(outcome[there], minlength=len(labels)).tolist()
    rewards = rows["reward"][whole]
    servers = run.one["graders"].get(rows.labels["grader"][int(rows["grader"][mine][0])])
    work = float((took - queued).sum())
    return {
        "count": int(whole.sum()), "outcomes": {name: count for name, count in zip(labels, counts, strict=True) if count},
        "time_s": distribution(took.copy()), "longest_s": float(took.max()) if len(took) else None,
        "queue_s": distribution(queued.copy()), "work_s": ratio(work, int(whole.sum())),
        "servers": servers, "utilization": ratio(work, servers * run.seconds) if servers else None,
        "mean_reward": float(np.nanmean(rewards)) if np.any(~np.isnan(rewards)) else None,
    }  # fmt: skip
