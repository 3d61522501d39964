"""Sandboxes: how full their nodes were, how long they took to come, what became of them, what they cost; and the audit of them.

A sandbox occupies its node from the moment it is placed to its end. Held is not busy: the seconds since a workload got it are divided into
those with a command in it, those without, and those in which it was paused, and they add up to its life. Seconds, bytes, GB-hours, dollars;
time averages are over the run, from 0 to its end.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables
from sim.study.spread import distribution
from sim.study.starts import most_at_once

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SLACK = 1e-6


def sandboxes(facts: Facts) -> dict[str, Any] | None:
    """Figures of each pool of sandboxes, by name; None where there is none.

    `wait_s` is from asked for to granted, `queue_s` to its place (0: it was warm), `boot_s` from there to ready, the image's pull included.
    `occupancy` counts sandboxes on nodes: mean, peak, and the mean as a share of the room there was.
    """
    table = facts.result.tables.get("sandboxes")
    if not facts.meta.get("sandboxes") or table is None:
        return None
    return {pool["name"]: _pool(facts, table, pool) for pool in facts.meta["sandboxes"]}


def usd(facts: Facts) -> float:
    """Dollars for CPU nodes within the span; NaN where one has no price."""
    nodes = facts.result.tables.get("sandbox_nodes")
    if not facts.meta.get("sandboxes") or nodes is None:
        return 0.0
    return math.fsum(_usd(facts, nodes, pool) for pool in facts.meta["sandboxes"])


def _usd(facts: Facts, nodes: Table, pool: dict[str, Any]) -> float:
    mine = nodes["pool"] == nodes.label("pool", pool["name"])
    price = math.nan if pool["price_per_hour"] is None else pool["price_per_hour"]
    start, end = (np.clip(nodes[name][mine], facts.begin, facts.end) for name in ("start", "end"))
    return float((end - start).sum()) / 3600 * price


def rates(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """What CPU nodes cost over time: times, s, at which one comes or goes, ascending, and dollars per hour from each of them on."""
    nodes = facts.result.tables.get("sandbox_nodes")
    if not facts.meta.get("sandboxes") or nodes is None:
        return np.empty(0), np.empty(0)
    prices = {pool["name"]: math.nan if pool["price_per_hour"] is None else pool["price_per_hour"] for pool in facts.meta["sandboxes"]}
    price = np.array([prices[name] for name in nodes.labels["pool"]])[nodes["pool"]]
    times, change = np.concatenate([nodes["start"], nodes["end"]]), np.concatenate([price, -price])
    order = np.argsort(times, kind="stable")
    return times[order], np.cumsum(change[order])


def _pool(facts: Facts, table: Table, pool: dict[str, Any]) -> dict[str, Any]:
    nodes = facts.result.tables["sandbox_nodes"]
    mine, theirs = table["pool"] == table.label("pool", pool["name"]), nodes["pool"] == nodes.label("pool", pool["name"])
    one = {column.name: table[column.name][mine] for column in table.columns}
    node = {column.name: nodes[column.name][theirs] for column in nodes.columns}
    outcomes, wanted = table.labels["outcome"], one["workload"] != table.label("workload", "")
    there = ~np.isnan(one["placed"])
    lives, run = float((one["released"] - one["placed"])[there].sum()), facts.end
    room = float((node["end"] - np.fmax(node["ready"], node["start"]))[~np.isnan(node["ready"])].sum())
    got = wanted & ~np.isnan(one["granted"])
    held = {name: float(one[f"{name}_s"][got].sum()) for name in ("busy", "idle", "paused")}
    total, cold = sum(held.values()), got & (one["warm"] == 0)
    queue = np.maximum(one["placed"] - one["asked"], 0.0)[wanted & there]
    return {
        "asked": int(wanted.sum()),
        "outcomes": {name: count for code, name in enumerate(outcomes) if (count := int((one["outcome"][wanted] == code).sum()))},
        "wait_s": distribution((one["granted"] - one["asked"])[got]),
        "queue_s": distribution(queue),
        "boot_s": distribution((one["booted"] - one["placed"])[cold]),
        "warm_hits": _share(int((got & ~cold).sum()), int(got.sum())),
        "image_hits": _share(int(one["hit"][there & wanted].sum()), int((there & wanted).sum())),
        "pulled_gb": float(node["pulled"].sum()) / 1e9,
        "occupancy": {"mean": _share(lives, run), "peak": _most(one["placed"][there], one["released"][there]),
                      "share": _share(lives, room * pool["slots"])},
        "held": {name: _share(seconds, total) for name, seconds in held.items()},
        "execs": int(one["execs"].sum()), "killed": int(one["killed"].sum()),
        "slot_s": _share(float(one["slot_s"].sum()), int(one["execs"].sum())),
        "cpu_utilization": _share(float(node["cpu_s"].sum()), float(room * node["cores"].max(initial=0.0))),
        "memory_utilization": _share(float(one["memory_s"].sum()), float(room * node["memory"].max(initial=0.0))),
        "gb_hours": float(one["memory_s"].sum()) / 1e9 / 3600,
        "nodes": {"mean": _share(float((node["end"] - node["start"]).sum()), run),
                  "peak": _most(node["start"], node["end"])},
        "node_hours": float((node["end"] - node["start"]).sum()) / 3600,
        "usd": _usd(facts, nodes, pool),
        "usd_per_sandbox": _share(_usd(facts, nodes, pool), int(got.sum())),
    }  # fmt: skip


def _most(start: np.ndarray, end: np.ndarray) -> int:
    return int(most_at_once(start, end, np.ones(len(start))))


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def leases(tables: Tables) -> tuple[int, list[str]]:
    """Each sandbox asked for ended once, in order of its times; its seconds by state are its life; no node held more than it has; cores
    worked no more than there are, and as much as commands say. Returns the rows looked at, and what is wrong.
    """
    rows, nodes = tables.result.tables["sandboxes"], tables.result.tables["sandbox_nodes"]
    faults: list[str] = []
    for pool in tables.meta["sandboxes"]:
        mine, theirs = rows["pool"] == rows.label("pool", pool["name"]), nodes["pool"] == nodes.label("pool", pool["name"])
        one = {column.name: rows[column.name][mine] for column in rows.columns}
        node = {column.name: nodes[column.name][theirs] for column in nodes.columns}
        bad = {**_ends(rows, one, pool), **_lives(one), **_used(one, node, pool)}
        faults += [f"{pool['name']}: {what} ({int(np.count_nonzero(wrong))} rows)" for what, wrong in bad.items() if np.any(wrong)]
    return len(rows) + len(nodes), faults


def _ends(rows: Table, one: dict[str, np.ndarray], pool: dict[str, Any]) -> dict[str, Any]:
    wanted = int((one["workload"] != rows.label("workload", "")).sum())
    return {
        f"{pool['asked']} were asked for, and {wanted} ended": wanted != pool["asked"],
        "a number stands twice": len(np.unique(one["sandbox"])) != len(one["sandbox"]),
        "a sandbox ended before it was asked for": one["released"] < one["asked"] - SLACK,
        "a sandbox was ready before it had a place": one["booted"] < one["placed"] - SLACK,
        "a sandbox was granted before it was ready or asked for": one["granted"] < np.fmax(one["booted"], one["asked"]) - SLACK,
        "a sandbox without a place was ready": np.isnan(one["placed"]) & ~np.isnan(one["booted"]),
    }


def _lives(one: dict[str, np.ndarray]) -> dict[str, Any]:
    life = one["released"] - one["granted"]
    parts = one["busy_s"] + one["idle_s"] + one["paused_s"]
    return {
        "seconds by state are not its life": np.abs(np.where(np.isnan(life), 0.0, life) - parts) > SLACK * (1.0 + np.nan_to_num(life)),
        "a command ran in a sandbox nobody had": (one["execs"] > 0) & np.isnan(one["granted"]),
    }


def _used(one: dict[str, np.ndarray], node: dict[str, np.ndarray], pool: dict[str, Any]) -> dict[str, Any]:
    there = ~np.isnan(one["placed"]) & (one["released"] > one["placed"])
    most, outside = np.zeros(len(node["node"])), np.zeros(len(node["node"]), dtype=bool)
    order = np.argsort(one["node"][there], kind="stable")
    begins, ends, where = (one[name][there][order] for name in ("placed", "released", "node"))
    bounds = np.searchsorted(where, np.append(node["node"], node["node"].max(initial=-1) + 1))
    for row, (low, high) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if high > low:
            most[row] = most_at_once(begins[low:high], ends[low:high], np.ones(high - low))
            outside[row] = begins[low:high].min() < node["ready"][row] - SLACK or ends[low:high].max() > node["end"][row] + SLACK
    spent, said = float(node["cpu_s"].sum()), float(one["cpu_s"].sum())
    slack = SLACK * (1.0 + spent) + 1e-8 * one["execs"].sum()
    return {
        "a node held more sandboxes than it has room for": (most > pool["slots"]) & (not one["paused_s"].any()),
        "a sandbox lived outside the life of its node": outside,
        "more memory in use than a node has": node["peak_memory"] > node["memory"] * (1 + SLACK),
        "more disk in use than a node has": node["peak_disk"] > node["disk"] * (1 + SLACK),
        "cores worked for longer than there are": node["cpu_s"] > node["cores"] * (node["end"] - node["start"]) * (1 + SLACK) + SLACK,
        f"nodes worked {spent:.9g} core-seconds, commands took {said:.9g}": abs(spent - said) > slack,
    }
