"""What replicas did with their GPUs' time where a trainer paused some: in steps, idle, paused and why, starting, warm. And the audit of it.

A pause counts from the end of the step in flight. `update`: all replicas of the pool stand still, and their weights change or their GPUs
are lent; `drain`: this one stands and others are not there yet, the bubble of a pause; `sleep`: its memory is free. A replica that drains
for good is in steps or idle. GPU-seconds of all states are the GPUs times the replicas' lives.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.core.record import Table
from sim.study.facts import Tables
from sim.study.starts import RISING

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SLACK = 1e-9


class Pauses(NamedTuple):
    """Rows of the table `pauses`; those that the end of the run cut off end with their replica."""

    replica: np.ndarray
    start: np.ndarray
    end: np.ndarray
    why: np.ndarray
    standing: np.ndarray


def pauses(tables: Tables) -> Pauses | None:
    """None where nobody paused a replica."""
    table = _rows(tables, "pauses")
    if table is None:
        return None
    replica = table["replica"]
    end = np.where(np.isnan(table["end"]), tables.replicas["end"][replica], table["end"])
    return Pauses(replica, table["start"], end, table["why"], table["standing"])


def replica_states(facts: Facts) -> dict[str, dict[str, float]] | None:
    """{pool: GPU-seconds of the run by state}; None where nobody paused a replica."""
    return None if pauses(facts) is None else spent_by_pool(facts)


def spent_by_pool(facts: Facts) -> dict[str, dict[str, float]]:
    """{pool: GPU-seconds of the run by state}, also where nobody paused a replica."""
    found = pauses(facts)
    start, end, gpus = facts.replicas["start"], facts.replicas["end"], facts.gpus
    pool, names = facts.work.draw.of_replica, list(facts.pools)
    states = {"busy": facts.work.draw.seconds.sum(axis=1), "idle": np.bincount(pool, (end - start) * gpus, len(names)) + 0.0}
    states["idle"] -= states["busy"]
    for state, replica, seconds in _others(facts, found):
        spent = np.bincount(pool[replica], seconds * gpus[replica], len(names))
        states[state] = states.get(state, np.zeros(len(names))) + spent
        states["idle"] -= spent
    return {name: {state: float(spent[number]) for state, spent in states.items()} for number, name in enumerate(names)}


def _others(tables: Tables, found: Pauses | None) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(state, replica, seconds) of pauses, and of the stages of starts."""
    parts = []
    if found is not None:
        labels = tables.result.tables["pauses"].labels["why"]
        parts = [(why, found.replica[found.why == code], (found.end - found.start)[found.why == code]) for code, why in enumerate(labels)]
    stages = _rows(tables, "starts")
    if stages is not None:
        replica, names = stages["replica"], stages.labels["stage"]
        until = np.where(np.isnan(stages["end"]), tables.replicas["end"][replica], stages["end"])
        for state, which in (("starting", [name for name in RISING if name != "wait"]), ("warm", ["warm"])):
            mine = np.isin(stages["stage"], [names.index(name) for name in which])
            parts.append((state, replica[mine], (until - stages["start"])[mine]))
        away = stages["stage"] == names.index("offload")
        if away.any():
            parts.append(("offload", replica[away], (until - stages["start"])[away]))
    return parts


def stood(tables: Tables) -> tuple[int, list[str]]:
    """Pauses looked at, and what is wrong: one that overlaps a step or another pause, or is not within its replica's life; a replica whose
    states are longer than its life.
    """
    found = pauses(tables)
    if found is None:
        return 0, []
    order = np.lexsort((found.end, found.start, found.replica))
    replica, start, end = found.replica[order], found.start[order], found.end[order]
    faults: list[str] = []

    def see(what: str, bad: np.ndarray) -> None:
        if bad.any():
            faults.append(f"{what}: {int(bad.sum())}, the first at {float(np.broadcast_to(start, bad.shape)[bad][0]):.6g} s")

    see("pauses that end before they begin", end < start - SLACK)
    see("pauses of one replica that overlap", np.append((replica[1:] == replica[:-1]) & (start[1:] < end[:-1] - SLACK), False))
    see("pauses beyond the life of their replica",
        (start < tables.replicas["start"][replica] - SLACK) | (end > tables.replicas["end"][replica] + SLACK))
    left: np.ndarray = tables.replicas["end"] - tables.replicas["start"]
    overlapping = 0
    by_replica = {int(one): np.flatnonzero(replica == one) for one in np.unique(replica)}
    for page in tables.stretches():
        left = left - np.bincount(page["replica"], page["seconds"], len(left))
        for one, rows in by_replica.items():
            mine = page["replica"] == one
            begin, until = page["start"][mine], page.end[mine]
            # Pauses that begin before a stretch ends, less those that end before it begins.
            overlapping += int((np.searchsorted(start[rows], until - SLACK) > np.searchsorted(end[rows], begin + SLACK)).sum())
    if overlapping:
        faults.append(f"{overlapping} stretches in a pause of their replica")
    for _, other, seconds in _others(tables, found):
        left = left - np.bincount(other, seconds, len(left))
    short = np.flatnonzero(left < -1e-6 - 1e-9 * tables.end)
    if len(short):
        faults.append(f"states of replica {short[0]} are {-left[short[0]]:.6g} s longer than its life")
    return len(start), faults


def _rows(tables: Tables, name: str) -> Table | None:
    table = tables.result.tables.get(name)
    return table if table is not None and len(table) else None
