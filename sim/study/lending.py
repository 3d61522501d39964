"""GPUs that two pools share: how long each had them, what changing hands took, what became of requests; and the audit that no two had one.

Each pool is paid, counted and powered for the lives of its own replicas, which take turns on the GPUs, so that all books have a GPU once.
While GPUs change hands they belong to the replica that gives them up until its weights are out, and to the other one from then on.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.core.record import Table
from sim.spec.lending import lenders
from sim.study.facts import Tables
from sim.study.metric import ratio
from sim.study.spread import distribution
from sim.study.states import spent_by_pool

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SLACK = 1e-9
SWITCH = ("starting", "offload")


def lending(facts: Facts) -> dict[str, Any] | None:
    """{borrower: figures}; None where no GPUs are shared. Seconds, GPU-hours and requests, from the begin of the run to its end.

    `traffic` is what the borrower served of all that its workloads sent. `gpu_seconds`, of owner and borrower, sum to the owner's GPUs
    times the run: in steps, idle, paused by a trainer, and changing hands.
    """
    owners = lenders(facts.result.scenario.cluster)
    return {name: _figures(facts, name, owner.name) for name, owner in owners.items()} or None


def _figures(facts: Facts, borrower: str, owner: str) -> dict[str, Any]:
    table, replicas = facts.result.tables.get("lendings"), facts.replicas
    lives = (replicas["end"] - replicas["start"]) * facts.gpus / 3600
    mine, both = (np.isin(facts.pool_of_replica, names) for names in ([borrower], [borrower, owner]))
    found: dict[str, Any] = {
        "owner": owner, "gpu_hours": float(lives[mine].sum()), "share": ratio(float(lives[mine].sum()), float(lives[both].sum())),
        "traffic": _traffic(facts, borrower), "gpu_seconds": {name: _spent(facts, name) for name in (owner, borrower)},
    }  # fmt: skip
    for code, kind in enumerate(("lend", "take_back")):
        rows = None if table is None or not len(table) else (table["kind"] == code) & (table["borrower"] == _code(table, borrower))
        found[kind] = _hand_overs(facts, table, rows) if table is not None and rows is not None else {"count": 0}
    return found


def _traffic(facts: Facts, borrower: str) -> dict[str, Any]:
    """Requests and output tokens that the borrower served last, and of how many that workloads sent of which it served any."""
    mine = np.array([name == borrower for name in facts.pool_of_replica])
    names = facts.result.tables["requests"].labels["workload"]
    every, here = np.zeros((2, len(names))), np.zeros((2, len(names)))
    for page in facts.requests():
        served = (page["replica"] >= 0) & mine[page["replica"]]
        for count, rows in ((every, slice(None)), (here, served)):
            of = page["workload"][rows]
            count += np.bincount(of, minlength=len(names)), np.bincount(of, page["output_tokens"][rows], len(names))
    (requests, tokens), (all_requests, all_tokens) = here.sum(axis=1).tolist(), every[:, here[0] > 0].sum(axis=1).tolist()
    return {"requests": int(requests), "output_tokens": int(tokens), "of_requests": ratio(requests, all_requests),
            "of_output_tokens": ratio(tokens, all_tokens)}  # fmt: skip


def _spent(facts: Facts, pool: str) -> dict[str, float]:
    states = spent_by_pool(facts)[pool]
    found = {"busy": states["busy"], "idle": states["idle"], "paused": 0.0, "switch": 0.0}
    for state, seconds in states.items():
        if state not in found:
            found["switch" if state in SWITCH else "paused"] += seconds
    return found


def _hand_overs(facts: Facts, table: Table, rows: np.ndarray) -> dict[str, Any]:
    start, empty, served = (table[name][rows] for name in ("start", "empty", "served"))
    done = ~np.isnan(served)
    away, back = _stage(facts, "offload", table["giver"][rows]), _stage(facts, "weights", table["taker"][rows][done])
    return {
        "count": int(rows.sum()), "served": int(done.sum()),
        "emptied_s": distribution((empty - start)[~np.isnan(empty)]), "switch_s": distribution((served - empty)[done]),
        "out_s": distribution(away[~np.isnan(away)]), "in_s": distribution(back[~np.isnan(back)]),
        "sent_on": int(table["sent_on"][rows].sum()), "called_off": int(table["called_off"][rows].sum()),
    }  # fmt: skip


def _stage(facts: Facts, name: str, replicas: np.ndarray) -> np.ndarray:
    """Seconds that a stage of each of these replicas took; NaN where it had none, or it was not over."""
    table, found = facts.result.tables.get("starts"), np.full(len(facts.replicas), np.nan)
    if table is not None and len(table):
        mine = table["stage"] == table.labels["stage"].index(name)
        found[table["replica"][mine]] = (table["end"] - table["start"])[mine]
    seconds: np.ndarray = found[replicas]
    return seconds


def _code(table: Table, borrower: str) -> int:
    labels: list[str] = table.labels["borrower"]
    return labels.index(borrower) if borrower in labels else -1


def turns(tables: Tables) -> tuple[int, list[str]]:
    """Hand-overs looked at, and what is wrong: two replicas that had GPUs at one time, or made a step; GPUs that came from nowhere or went
    to two; times that are not in order; more replicas at a time than there are GPUs; requests sent on that nobody counted.
    """
    faults: list[str] = []
    table, replicas = tables.result.tables.get("lendings"), tables.replicas
    rows = len(table) if table is not None else 0
    if table is not None and rows:
        faults += _in_turn(tables, table)
    start, end = replicas["start"], replicas["end"]
    pools = np.array(tables.pool_of_replica)
    for borrower, owner in lenders(tables.result.scenario.cluster).items():
        mine = np.isin(pools, [borrower, owner.name])
        most = _most(start[mine], end[mine])
        if most > owner.replicas:
            faults.append(f"{most} replicas of {owner.name} and {borrower} at a time, on the GPUs of {owner.replicas}")
    return rows, faults


def _in_turn(tables: Tables, table: Table) -> list[str]:
    replicas, faults = tables.replicas, []
    giver, taker, begun, empty, served = (table[name] for name in ("giver", "taker", "start", "empty", "served"))
    first, last = np.full(len(replicas), np.inf), np.full(len(replicas), -np.inf)
    for page in tables.stretches():
        np.minimum.at(first, page["replica"], page["start"])
        np.maximum.at(last, page["replica"], page.end)

    def see(what: str, bad: np.ndarray) -> None:
        if bad.any():
            faults.append(f"{what}: {int(bad.sum())}, the first at {float(begun[np.flatnonzero(bad)[0]]):.6g} s")

    over = taker >= 0
    begins, ends = replicas["start"][taker], replicas["end"][giver]
    see("replicas that had the GPUs of another one at one time", over & (begins < ends - SLACK))
    see("steps of two replicas that share GPUs at one time", over & (first[taker] < last[giver] - SLACK))
    see("steps of a replica that had no request left", last[giver] > np.where(np.isnan(empty), np.inf, empty) + SLACK)
    see("hand-overs whose times are not in order", (empty < begun - SLACK) | (over & (ends < empty - SLACK)) | (served < begins - SLACK))
    for what, replica in (("from one replica", giver[over]), ("to one replica", taker[over])):
        twice = len(replica) - len(np.unique(replica))
        if twice:
            faults.append(f"GPUs went {what} twice: {twice}")
    requeues = tables.result.tables.get("requeues")
    sent = len(requeues) if requeues is not None else 0
    if sent != table["sent_on"].sum():
        faults.append(f"{sent} requests went through the front door again, and hand-overs count {table['sent_on'].sum()}")
    return faults


def _most(start: np.ndarray, end: np.ndarray) -> int:
    """The most intervals at a time; where one ends within rounding of another's begin they do not meet."""
    lasting = end - start > SLACK
    times = np.concatenate([end[lasting] - SLACK, start[lasting]])
    changes = np.concatenate([np.full(int(lasting.sum()), -1), np.ones(int(lasting.sum()), dtype=int)])
    return int(np.cumsum(changes[np.argsort(times, kind="stable")]).max(initial=0))
