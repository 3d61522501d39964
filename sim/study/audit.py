"""Invariants checked on the tables of every run (numbers as in the design): each entry says whether it holds, on how many rows, and what
broke first. I7 and I8 wait for the tables they need. Two conservation laws are added: `tokens` and `littles_law`.

All checks are necessary conditions that hold exactly but for rounding, so a failure is a fault of the simulator, never of the scenario.
"""
from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from sim.core.request import COMPLETED, FAILED, REJECTED, STATUSES, UNFINISHED
from sim.study.facts import Tables
from sim.study.result import Result

SLACK = 1e-9
Entry = dict[str, Any]


def audit(result: Result) -> dict[str, Entry]:
    """{invariant: {ok, checked, detail}}; `checked` counts the rows or replicas looked at."""
    return check(Tables(result))


def check(tables: Tables) -> dict[str, Entry]:
    """The same, from tables already read."""
    return {
        "I1": _counts(tables),
        "I2": _blocks(tables),
        "I3": _order(tables),
        "I4": _idle(tables),
        "I5": _content(tables),
        "I6": _roofline(tables),
        "tokens": _tokens(tables),
        "littles_law": _little(tables),
    }


def _entry(checked: int, faults: list[str], holds: str) -> Entry:
    return {"ok": not faults, "checked": int(checked), "detail": "; ".join(faults) if faults else holds}


def _fault(bad: np.ndarray, what: str) -> list[str]:
    """A line for the rows where `bad` holds, naming the first."""
    rows = np.flatnonzero(bad)
    return [f"{what}: {len(rows)} rows, first row {rows[0]}"] if len(rows) else []


def _counts(tables: Tables) -> Entry:
    """I1: every arrival is there once and ended one way; per pool, what was sent there is what ended there."""
    number, status = tables.col("requests", "request"), tables.col("requests", "status")
    replica, last = tables.col("requests", "replica"), tables.col("requests", "last_token")
    arrived = tables.meta.get("arrived", len(number))
    faults = []
    if len(number) != arrived or (np.sort(number) != np.arange(arrived)).any():
        faults.append(f"{arrived} requests arrived, {len(number)} rows with {len(np.unique(number))} numbers ended")
    done = status == COMPLETED
    faults += _fault((status < 0) | (status >= len(STATUSES)), "no known status")
    faults += _fault(done & ((replica < 0) | np.isnan(last)), "completed without a replica or a last token")
    faults += _fault((status == UNFINISHED) & ~np.isnan(last), "unfinished with a last token")
    faults += _fault((status == REJECTED) & ~np.isnan(tables.col("requests", "admitted")), "rejected after admission")
    faults += _fault(done & (tables.col("requests", "output_tokens") != tables.col("requests", "wanted_tokens")), "completed too short")
    faults += _fault(replica >= len(tables.pool_of_replica), "served by a replica that does not exist")
    return _entry(len(number), faults, f"arrived = completed + rejected + failed + unfinished; {_per_pool(tables) if not faults else ''}")


def _per_pool(tables: Tables) -> str:
    names = np.array([*tables.pool_of_replica, "no replica"])
    where = names[tables.col("requests", "replica")]
    return ", ".join(f"{name} {int((where == name).sum())}" for name in dict.fromkeys(names) if (where == name).any())


def _blocks(tables: Tables) -> Entry:
    """I2: KV blocks taken = given back + still held; nothing held once all requests ended; never above capacity."""
    blocks, left = tables.col("replicas", "blocks"), tables.col("replicas", "left_blocks")
    taken, returned = tables.col("replicas", "taken_blocks"), tables.col("replicas", "returned_blocks")
    faults = _fault(taken != returned + left, "taken is not returned + left")
    faults += _fault(tables.col("replicas", "peak_blocks") > blocks, "peak above capacity")
    faults += _fault(tables.col("stretches", "blocks") > blocks[tables.col("stretches", "replica")], "stretch above capacity")
    unfinished = tables.col("requests", "replica")[tables.col("requests", "status") == UNFINISHED]
    may_hold = np.isin(np.arange(len(blocks)), unfinished)
    faults += _fault((left != 0) & ~may_hold, "blocks left without an unfinished request")
    return _entry(len(blocks), faults, "KV blocks taken = returned + left, never above capacity")


def _order(tables: Tables) -> Entry:
    """I3: a request's times are in order, within the run; stretches of a replica neither overlap nor run backwards."""
    arrival, admitted, first, last = (tables.col("requests", name) for name in ("arrival", "admitted", "first_token", "last_token"))
    faults = []
    for early, late, what in ((arrival, admitted, "admitted before arrival"), (admitted, first, "first token before admission"),
                              (first, last, "last token before first"), (arrival, first, "first token before arrival")):  # fmt: skip
        faults += _fault(late < early - SLACK, what)
    faults += _fault((np.isnan(admitted) & ~np.isnan(first)) | (np.isnan(first) & ~np.isnan(last)), "a token without what comes before it")
    latest = np.fmax.reduce([arrival, admitted, first, last])
    faults += _fault((arrival < -SLACK) | (latest > tables.end + SLACK), "outside the run")
    start, seconds, replica = (tables.col("stretches", name) for name in ("start", "seconds", "replica"))
    faults += _fault(seconds < 0, "stretch of negative length")
    same = replica[np.argsort(replica, kind="stable")]
    begins, ends = _by_replica(tables)
    faults += _fault((same[1:] == same[:-1]) & (begins[1:] < ends[:-1] - SLACK), "stretch begins before the one recorded before it ends")
    return _entry(len(arrival) + len(start), faults, "arrival <= admitted <= first token <= last token; stretches of a replica in order")


def _by_replica(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each stretch, replica by replica in the order recorded."""
    order = np.argsort(tables.col("stretches", "replica"), kind="stable")
    start = tables.col("stretches", "start")[order]
    return start, start + tables.col("stretches", "seconds")[order]


def _idle(tables: Tables) -> Entry:
    """I4: in a gap between two stretches of a replica, every request sent to it before the gap's end had ended by the gap's begin.

    The time before the first stretch counts as a gap. The time after the last does not: a step that the end of the run cut is not recorded.
    Failed requests are left out, as the table does not say when they failed.
    """
    status, sent = tables.col("requests", "status"), tables.col("requests", "replica")
    ran = tables.col("stretches", "replica")
    begins, ends = _by_replica(tables)
    bounds = np.searchsorted(np.sort(ran), np.arange(len(tables.pool_of_replica) + 1))
    faults, checked = [], 0
    for index in range(len(bounds) - 1):
        mine = (sent == index) & (status != REJECTED) & (status != FAILED)
        arrivals, lasts = np.sort(tables.col("requests", "arrival")[mine]), np.sort(tables.col("requests", "last_token")[mine])
        begin, end = begins[bounds[index] : bounds[index + 1]], ends[bounds[index] : bounds[index + 1]]
        low, high = np.concatenate([[-np.inf], end[:-1]])[: len(begin)], begin
        gap = high - low > SLACK
        present = np.searchsorted(arrivals, high[gap] - SLACK) - np.searchsorted(lasts, low[gap] + SLACK, side="right")
        checked += int(gap.sum())
        faults += [f"replica {index} idle with work at {t:.6g} s" for t in np.maximum(low, 0)[gap][present > 0][:1]]
        if len(arrivals) and not len(begin) and not np.isnan(lasts).all():
            faults.append(f"replica {index} finished requests without a step")
    return _entry(checked, faults, "no idle engine with runnable work, in any gap between stretches")


def _content(tables: Tables) -> Entry:
    """I5: a digest of requests and stretches, to compare with another run of the same scenario and seed. One run cannot check it."""
    digest, rows = hashlib.sha256(), 0
    for name in ("requests", "stretches"):
        table = tables.result.tables[name]
        rows += len(table)
        for column in table.columns:
            digest.update(f"{name}.{column.name}:{table.labels.get(column.name, '')}".encode())
            digest.update(np.ascontiguousarray(tables.col(name, column.name)).tobytes())
    return {"ok": True, "checked": rows, "detail": f"not checked by one run; equal digests mean equal tables: sha256 {digest.hexdigest()}"}


def _roofline(tables: Tables) -> Entry:
    """I6: no stretch shorter than its FLOP at peak or its bytes at full bandwidth, and no first step shorter than its own floor.

    Bytes are a floor: the weights that even one token needs, and the decoders' keys and values.
    """
    seconds, first = tables.col("stretches", "seconds"), tables.col("stretches", "first_step")
    peak, bandwidth = tables.per_stretch("peak_flops"), tables.per_stretch("bandwidth")
    weights, per_token = tables.per_stretch("active_weight_floor"), tables.per_stretch("kv_bytes_per_token")
    total = np.maximum(tables.flops / peak, (weights * tables.col("stretches", "steps") + tables.kv_read) / bandwidth)
    single = np.maximum(
        tables.per_stretch("flops_per_token") * tables.col("stretches", "decoders") / peak,
        (weights + per_token * tables.col("stretches", "held")) / bandwidth,
    )
    faults = _fault(seconds < total * (1 - SLACK), "stretch faster than the roofline")
    faults += _fault(first < single * (1 - SLACK), "first step faster than the roofline")
    margin = float((seconds / np.maximum(total, 1e-300)).min()) if len(seconds) else np.inf
    return _entry(len(seconds), faults, f"no step faster than the roofline at 100 % of peak; the closest took {margin:.3g} times as long")


def _tokens(tables: Tables) -> Entry:
    """Tokens of the requests = one per decoder and step, one first token each, and one after each preemption stall."""
    asked = int(tables.col("requests", "output_tokens").sum(dtype="i8"))
    decoded = int((tables.col("stretches", "decoders").astype("i8") * tables.col("stretches", "steps")).sum())
    emitted = decoded + int((~np.isnan(tables.col("requests", "first_token"))).sum()) + len(tables.col("stalls", "start"))
    if (tables.col("requests", "status") == FAILED).any():
        return _entry(0, [], "skipped: tokens of failed requests are not told apart")
    faults = [] if asked == emitted else [f"requests hold {asked} tokens, engines emitted {emitted}"]
    return _entry(asked, faults, "tokens of requests = tokens emitted by engines")


def _little(tables: Tables) -> Entry:
    """Little's law over decoding: seconds from first to last token, summed over requests, = decoders integrated over time, plus stalls.

    The left side comes from the requests, the right side from the engines. Holds when every accepted request completed.
    """
    status = tables.col("requests", "status")
    if ((status == FAILED) | (status == UNFINISHED)).any():
        return _entry(0, [], "skipped: requests were cut off or failed while decoding")
    done = tables.completed
    sojourn = float((tables.col("requests", "last_token") - tables.col("requests", "first_token"))[done].sum())
    present = float((tables.col("stretches", "decoders") * tables.col("stretches", "seconds")).sum())
    present += float((tables.col("stalls", "end") - tables.col("stalls", "start")).sum())
    # Sums of millions of differences of clock times: rounding grows with the clock, not with the sum.
    close = abs(sojourn - present) <= 1e-6 * max(sojourn, present) + 1e-12 * tables.end * max(len(status), 1)
    faults = [] if close else [f"requests decoded for {sojourn:.9g} s in all, engines held decoders for {present:.9g} s"]
    return _entry(int(done.sum()), faults, "mean number decoding = completions per second x mean decode time")
