"""No idle engine with runnable work: what each replica held in the times when it had no step under way.

A replica's gaps are the times between its stretches. A request is at its replica from its arrival to its end; one that is handed on is at
the prefill replica until its first token, and at the decode replica once its keys and values are there. An engine may also idle while keys
and values are on their way to it or from it, or stay until they are fetched: what waits may need those, or the blocks they take. And it
idles while a trainer has paused it.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sim.core.record import Page
from sim.core.request import FAILED, REJECTED, UNFINISHED
from sim.study.facts import Tables
from sim.study.states import pauses

SLACK = 1e-9


class Gaps(NamedTuple):
    """When a replica had no step under way, by replica and time: after `low` (-inf: before its first stretch), before `high`, seconds."""

    replica: np.ndarray
    low: np.ndarray
    high: np.ndarray


def by_replica(replica: np.ndarray) -> np.ndarray:
    """The order that puts rows replica by replica; codes of 16 bits sort in linear time."""
    return np.argsort(replica.astype("u2") if replica.max(initial=0) < 2**16 - 1 else replica, kind="stable")


def keys(replica: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Keys that sort by replica, then by time: numpy orders complex numbers so."""
    found = np.empty(len(time), dtype=complex)
    found.real, found.imag = replica, time
    return found


Times = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Replicas, and from when to when, s."""


class Moves(NamedTuple):
    """Finished transfers that somebody waited for: of which request, whether it was handed on, from and to which replica, when (s)."""

    request: np.ndarray
    handoff: np.ndarray
    source: np.ndarray
    target: np.ndarray
    start: np.ndarray
    end: np.ndarray


def idle(tables: Tables, gaps: Gaps) -> tuple[int, list[str]]:
    """I4: in a gap between two stretches of a replica, every request that was there before the gap's end had ended by the gap's begin.
    Returns the gaps looked at, and what is wrong.

    The time before the first stretch counts as a gap. The time after the last does not: a step that the end of the run cut is not recorded.
    Failed requests are left out: what they were waiting for when they were called off is not recorded. So are those that the end of the run
    cut off where keys and values come back from a lower tier or were swapped.
    """
    opens, closes = keys(gaps.replica, gaps.low + SLACK), keys(gaps.replica, gaps.high - SLACK)
    change, finished = np.zeros(len(opens) + 1, dtype="i8"), np.zeros(len(tables.replicas), dtype=bool)
    moves = _moves(tables)
    waits = [(moves.source, moves.start, moves.end), (moves.target, moves.start, moves.end)] if moves is not None else []
    stood = pauses(tables)
    if stood is not None:
        waits.append((stood.replica, stood.start, stood.end))
    for page in tables.requests():
        stays, left = _stays(page, moves, tables)
        waits += left
        for replica, since, until in stays:
            # A request is there from the first gap that closes after its arrival to the first that opens after its end.
            comes = np.searchsorted(closes, keys(replica, since), side="right")
            goes = np.searchsorted(opens, keys(replica, np.where(np.isnan(until), np.inf, until)))
            change += np.bincount(comes, minlength=len(change)) - np.bincount(goes, minlength=len(change))
            finished[replica[~np.isnan(until)]] = True
    bad = np.flatnonzero((np.cumsum(change)[:-1] > 0) & ~_covered(gaps, waits))
    broken, firsts = np.unique(gaps.replica[bad], return_index=True)
    starts = np.maximum(gaps.low, 0)[bad][firsts]
    faults = [f"replica {index:.0f} idle with work at {time:.6g} s" for index, time in zip(broken, starts, strict=True)]
    worked = np.isin(np.arange(len(finished)), gaps.replica)
    faults += [f"replica {index} finished requests without a step" for index in np.flatnonzero(finished & ~worked)]
    return len(opens), faults


def _moves(tables: Tables) -> Moves | None:
    table = tables.result.tables.get("transfers")
    if table is None or not len(table):
        return None
    kinds = table.labels["kind"]
    rows = table["kind"] != kinds.index("offload")
    handed = table["kind"][rows] == kinds.index("handoff")
    return Moves(table["request"][rows], handed, *(table[name][rows] for name in ("source", "target", "start", "end")))


def _stays(page: Page, moves: Moves | None, tables: Tables) -> tuple[list[Times], list[Times]]:
    """(replica, since, until) of the requests of a page at their replicas, by replica; NaN: still there at the end of the run. And, the
    same way, from when to when prefill replicas held blocks of those they had handed on.
    """
    rows = np.flatnonzero((page["replica"] >= 0) & (page["status"] != REJECTED) & (page["status"] != FAILED))
    rows = rows[(page["status"][rows] != UNFINISHED) | ~tables.brings[page["replica"][rows]]]
    rows = rows[by_replica(page["replica"][rows])]
    replica, since, until = page["replica"][rows], _sent(page, rows, tables), page["last_token"][rows]
    decodes, prefills = tables.in_role("decode"), tables.in_role("prefill")
    workload = page["workload"][rows]
    if not prefills.any():
        return [(replica, since + tables.away[workload, replica], until)], []
    handed, source, end = np.zeros(0, dtype="i8"), np.zeros(0, dtype="i4"), np.zeros(0)
    if moves is not None:
        order = np.argsort(moves.request[moves.handoff], kind="stable")
        handed, source, end = (values[moves.handoff][order] for values in (moves.request, moves.source, moves.end))
    at = np.searchsorted(handed, page["request"][rows])
    was = np.append(handed, -1)[at] == page["request"][rows]
    first = page["first_token"][rows]
    # Who was cut off on the way to a decode replica was never runnable there, and left blocks nobody knows where.
    lost = ~was & (page["status"][rows] == UNFINISHED) & ~np.isnan(first)
    here = ~lost | (~decodes[replica] & ~prefills[replica])
    entry = replica.copy()
    entry[was] = source[at[was]]
    since = since + tables.away[workload, entry]
    arrived = since.copy()
    arrived[was] = end[at[was]]
    stays = [(replica[here], arrived[here], until[here]), (source[at[was]], since[was], first[was])]
    left = [(source[at[was]], first[was], end[at[was]]), *_failed(page, prefills, tables)]
    for index in np.flatnonzero(prefills) if lost.any() else ():
        left.append((np.full(int(lost.sum()), index), first[lost], np.full(int(lost.sum()), np.inf)))
    return stays, left


def _failed(page: Page, prefills: np.ndarray, tables: Tables) -> list[Times]:
    """From when to when requests that failed may have had blocks at prefill replicas, of which nobody knows the one."""
    rows = np.flatnonzero((page["status"] == FAILED) & ~np.isnan(page["first_token"]))
    if not len(rows):
        return []
    first, over = page["first_token"][rows], tables.losses.left(page["request"][rows])
    return [(np.full(len(rows), index), first, over) for index in np.flatnonzero(prefills)]


def _sent(page: Page, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """When requests were sent to their first replica, or to that which they went to from another one: when they came, or when they were
    held no more.
    """
    since = _requeued(page["request"][rows], page["arrival"][rows], tables)
    for name in ("gate", "held"):
        held = tables.result.tables.get(name)
        if held is None or not len(held):
            continue
        order = np.lexsort((held["start"], held["request"]))
        request, start, end = (held[name][order] for name in ("request", "start", "end"))
        # A request may be held again, for a decode replica.
        at = np.minimum(np.searchsorted(keys(request, start), keys(page["request"][rows], since)), len(request) - 1)
        was = (request[at] == page["request"][rows]) & (start[at] == since)
        since = np.where(was, end[at], since)
    return since


def _requeued(requests: np.ndarray, since: np.ndarray, tables: Tables) -> np.ndarray:
    """Of those that had to leave a replica, when they last did."""
    again = tables.result.tables.get("requeues")
    if again is None or not len(again):
        return since
    order = np.lexsort((again["time"], again["request"]))
    known, time = again["request"][order], again["time"][order]
    at = np.searchsorted(known, requests, side="right") - 1
    found: np.ndarray = np.where((at >= 0) & (known[at] == requests), time[at], since)
    return found


def _covered(gaps: Gaps, waits: list[Times]) -> np.ndarray:
    """Gaps that lasted until a wait at their replica was over, or did not outlast it."""
    found = np.zeros(len(gaps.replica), dtype=bool)
    for side, begin, over in waits:
        if not len(side):
            continue
        order = np.lexsort((begin, side))
        replica, start, end = side[order], begin[order], over[order]
        # Latest end among the waits at a replica that began before the gap's end.
        heads = np.flatnonzero(np.append(True, replica[1:] != replica[:-1]))
        latest = np.concatenate([np.maximum.accumulate(part) for part in np.split(end, heads[1:])])
        at = np.searchsorted(keys(replica, start), keys(gaps.replica, gaps.high)) - 1
        known = (at >= 0) & (replica[at] == gaps.replica)
        found |= known & (latest[at] >= gaps.high - 2 * SLACK)
    return found
