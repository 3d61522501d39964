"""Replicas that come and go: how long each stage of a start took, GPU-hours by what replicas were doing, what was held meanwhile; and the
audit of their lives.

A start is counted from the moment the replica was wanted to the moment it took its first request, and its stages add up to that, but for
those that were kept warm in between. Of a start that was called off, or cut off by the end of the run, the stages that were over count.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SLACK = 1e-9
RISING = ("wait", "provision", "image", "weights", "init", "capture")


def starts(facts: Facts) -> dict[str, Any] | None:
    """Figures of replicas that came and went; None where none could. Seconds; GPU-hours are from the beginning of the run to its end."""
    stages, looks, held = (_table(facts, name) for name in ("starts", "scaling", "held"))
    if stages is None and looks is None:
        return None
    counts = most_at_once(facts.replicas["start"], facts.replicas["end"], np.ones(len(facts.replicas)))
    lives = float((facts.replicas["end"] - facts.replicas["start"]).sum())
    found: dict[str, Any] = {
        "replicas": {"mean": lives / facts.end if facts.end else None, "peak": int(counts)},
        **_stages(facts, stages),
        "gpu_hours": _gpu_hours(facts, stages),
        "held_requests": {"count": len(held), "seconds": distribution(held["end"] - held["start"])} if held is not None else None,
        "stranded_gpus": None,
    }
    if looks is not None and facts.result.scenario.cluster.network is not None:
        # What an autoscaler saw stays until it looks again; several pools see the same at about the same time.
        found["stranded_gpus"] = {"mean": float(looks["stranded"].mean()), "peak": int(looks["stranded"].max())}
    return found


def most_at_once(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> float:
    """The largest sum of weights of intervals that share an instant; where one ends and another begins they do not."""
    lasting = end > start
    if not lasting.any():
        # A run of no length, in which nothing that is there ends.
        return float(weight.sum())
    times = np.concatenate([end[lasting], start[lasting]])
    changes = np.concatenate([-weight[lasting], weight[lasting]])
    order = np.argsort(times, kind="stable")
    return float(np.cumsum(changes[order]).max(initial=0.0))


def most_replicas(replicas: Table, pool: str) -> int:
    """The most replicas a pool had at a time."""
    mine = replicas["pool"] == replicas.label("pool", pool)
    return int(most_at_once(replicas["start"][mine], replicas["end"][mine], np.ones(int(mine.sum()))))


def _table(tables: Tables, name: str) -> Table | None:
    table = tables.result.tables.get(name)
    return table if table is not None and len(table) else None


def _stages(facts: Facts, table: Table | None) -> dict[str, Any]:
    if table is None:
        return {"started": 0, "came_up": 0, "called_off": 0, "stages": {}, "wanted_to_ready": None}
    labels, code = table.labels["stage"], table["stage"]
    seconds, replica = table["end"] - table["start"], table["replica"]
    rising = np.isin(code, [labels.index(name) for name in RISING])
    wanted = np.full(len(facts.replicas), np.nan)
    np.fmin.at(wanted, replica[rising], table["start"][rising])
    began = ~np.isnan(wanted)
    warm = np.zeros(len(wanted), dtype=bool)
    warm[replica[code == labels.index("warm")]] = True
    ready = facts.replicas["ready"]
    up, direct = began & (warm | ~np.isnan(ready)), began & ~warm & ~np.isnan(ready)
    parts = {}
    for name in (*RISING, "warm", "drain", "offload"):
        mine = seconds[(code == labels.index(name)) & ~np.isnan(seconds)]
        if len(mine):
            parts[name] = {"count": len(mine), **(distribution(mine) or {})}
    return {
        "started": int(began.sum()), "came_up": int(up.sum()),
        "called_off": int((began & ~up & (facts.replicas["end"] < facts.end)).sum()), "stages": parts,
        "wanted_to_ready": {"count": int(direct.sum()), **(distribution((ready - wanted)[direct]) or {})} if direct.any() else None,
    }  # fmt: skip


def _gpu_hours(facts: Facts, table: Table | None) -> dict[str, float]:
    """GPU-hours of replicas that start, are kept warm, serve and drain; while they wait for GPUs they have none."""
    hours = dict.fromkeys(("starting", "warm", "serving", "draining"), 0.0)
    hours["serving"] = float(((facts.replicas["end"] - facts.replicas["start"]) * facts.gpus).sum()) / 3600
    if table is not None:
        replica, names = table["replica"], table.labels["stage"]
        until = np.where(np.isnan(table["end"]), facts.replicas["end"][replica], table["end"])
        spent = (until - table["start"]) * facts.gpus[replica] / 3600
        for code, name in enumerate(names):
            state = {"warm": "warm", "drain": "draining", "offload": "draining", "wait": ""}.get(name, "starting")
            if state:
                amount = float(spent[table["stage"] == code].sum())
                hours[state] += amount
                hours["serving"] -= amount
    return hours


def lives(tables: Tables) -> tuple[int, list[str]]:
    """Engines work between the time a replica is ready and its end; its stages follow each other; a GPU is one replica's at a time.

    Returns how many replicas were looked at, and what is wrong.
    """
    replicas, faults = tables.replicas, []
    start, end = replicas["start"], replicas["end"]
    ready = np.where(np.isnan(replicas["ready"]), np.inf, replicas["ready"])
    if not (start <= end).all() or not ((start <= ready) & ((ready <= end) | np.isinf(ready))).all():
        faults.append("a replica's start, ready and end are not in order")
    outside = 0
    for page in tables.stretches():
        replica = page["replica"]
        outside += int(((page["start"] < ready[replica] - SLACK) | (page.end > end[replica] + SLACK)).sum())
    if outside:
        faults.append(f"{outside} stretches outside the life of their replica")
    stages, places = _table(tables, "starts"), _table(tables, "places")
    if stages is not None:
        faults += _overlaps("stages of a replica", (stages["replica"],), stages["start"], stages["end"])
    if places is not None:
        replica = places["replica"]
        faults += _overlaps("replicas on one GPU", (places["gpu"], places["host"]), start[replica], end[replica])
    return len(replicas), faults


def _overlaps(what: str, things: tuple[np.ndarray, ...], start: np.ndarray, end: np.ndarray) -> list[str]:
    """A fault when two intervals of one thing, named by its keys, overlap; NaN: the interval did not end, and is the last."""
    order = np.lexsort((end, start, *things))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for thing in things:
        same &= thing[order][1:] == thing[order][:-1]
    until = np.where(np.isnan(end), np.inf, end)[order][:-1]
    count = int((same & (start[order][1:] < until - SLACK)).sum())
    return [f"{what} overlap {count} times"] if count else []
