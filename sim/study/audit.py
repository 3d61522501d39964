"""Invariants checked on the tables of every run (numbers as in the design): each entry says whether it holds, on how many rows, and what
broke first. I7 looks at the network and at lower KV tiers, I8 at trainers. Two conservation laws are added: `tokens` and
`littles_law`.

All checks are necessary conditions that hold exactly but for rounding, so a failure is a fault of the simulator, never of the scenario.
"""
from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np

from sim.core.record import Page
from sim.core.request import COMPLETED, FAILED, REJECTED, STATUSES, UNFINISHED
from sim.spec.lending import lenders
from sim.study.colocated import handed
from sim.study.facts import Tables
from sim.study.families import families
from sim.study.idle import SLACK, Gaps, by_replica, idle, keys
from sim.study.kv_waste import Waste
from sim.study.lending import turns
from sim.study.network import moves
from sim.study.result import Result
from sim.study.rl.audit import books
from sim.study.sandboxes import leases
from sim.study.starts import lives
from sim.study.states import pauses, stood
from sim.study.training import spans

Entry = dict[str, Any]


def audit(result: Result) -> dict[str, Entry]:
    """{invariant: {ok, checked, detail}}; `checked` counts the rows or replicas looked at."""
    return check(Tables(result))


def check(tables: Tables) -> dict[str, Entry]:
    """The same, from tables already opened."""
    disorder = Faults()
    gaps = _succession(tables, disorder)
    held = "every sandbox was given back, or cut off by the end; its seconds by state are its life; no node held more than it has"
    return {
        "I1": _counts(tables),
        "I2": _blocks(tables),
        "I3": _order(tables, disorder),
        "I4": _entry(*idle(tables, gaps), "no idle engine with runnable work, in any gap between stretches"),
        "I5": _content(tables),
        "I6": _roofline(tables),
        "I7": _entry(*moves(tables), "bytes sent = bytes received; no link, and no transfer from or to a KV tier, above capacity"),
        "tokens": _tokens(tables),
        "littles_law": _little(tables),
        "agents": _entry(*families(tables), "sub-agents end before whom they work for; contexts grow by what is new; one call at a time"),
        "lives": _entry(*lives(tables), "engines work while their replica is ready, its stages follow each other, a GPU is one replica's"),
    } | (
        {"replica_states": _entry(*stood(tables), "no step in a pause; a replica's states, idle time among them, are its life")}
        if len(tables.result.tables.get("pauses") or ()) else {}
    ) | (
        {"I8": _entry(*_both(spans(tables), _both(handed(tables), books(tables))), "GPU-seconds of trainers by state are their GPUs times "
                      "the run; parts of an update sum to it; no engine has a GPU while a trainer has it; every sample trained on has a "
                      "version and a staleness")}
        if tables.meta.get("trainers") else {}
    ) | (
        {"lending": _entry(*turns(tables), "pools that share GPUs have them in turn, and none makes a step while the other has them")}
        if lenders(tables.result.scenario.cluster) else {}
    ) | ({"sandboxes": _entry(*leases(tables), held)} if tables.meta.get("sandboxes") else {})


def _both(one: tuple[int, list[str]], other: tuple[int, list[str]]) -> tuple[int, list[str]]:
    """Two checks that are one invariant."""
    return one[0] + other[0], [*one[1], *other[1]]


def _entry(checked: int, faults: list[str], holds: str) -> Entry:
    return {"ok": not faults, "checked": int(checked), "detail": "; ".join(faults) if faults else holds}


class Faults:
    """Rows that break a rule, counted over the pages of a table."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int]] = {}

    def see(self, what: str, bad: np.ndarray, rows: np.ndarray | int = 0) -> None:
        """Note the rows where `bad` holds; `rows` gives their numbers, or that of the first."""
        at = np.flatnonzero(bad)
        if len(at):
            count, first = self._found.get(what, (0, int(at[0] + rows if isinstance(rows, int) else rows[at].min())))
            self._found[what] = count + len(at), first

    def lines(self) -> list[str]:
        """A line for each rule broken, naming the first row."""
        return [f"{what}: {count} rows, first row {first}" for what, (count, first) in self._found.items()]


def _counts(tables: Tables) -> Entry:
    """I1: every arrival is there once and ended one way; per pool, what was sent there is what ended there."""
    number, replicas = len(tables.result.tables["requests"]), len(tables.replicas)
    arrived = tables.meta.get("arrived", number)
    seen, sent, found = np.zeros(arrived, dtype=bool), np.zeros(replicas + 1, dtype="i8"), Faults()
    for page in tables.requests():
        numbers, status, replica, at = page["request"], page["status"], page["replica"], page.first
        done, never = status == COMPLETED, np.isnan(page["last_token"])
        seen[numbers[(numbers >= 0) & (numbers < arrived)]] = True
        found.see("no known status", (status < 0) | (status >= len(STATUSES)), at)
        found.see("completed without a replica or a last token", done & ((replica < 0) | never), at)
        found.see("unfinished with a last token", (status == UNFINISHED) & ~never, at)
        found.see("rejected after admission", (status == REJECTED) & ~np.isnan(page["admitted"]), at)
        found.see("completed too short", done & (page["output_tokens"] != page["wanted_tokens"]), at)
        found.see("served by a replica that does not exist", replica >= replicas, at)
        sent += np.bincount(np.clip(replica, -1, replicas - 1) + 1, minlength=replicas + 1)
    faults = found.lines()
    if number != arrived or not seen.all():
        faults.insert(0, f"{arrived} requests arrived, {number} rows with {seen.sum()} of their numbers ended")
    return _entry(number, faults, f"arrived = completed + rejected + failed + unfinished; {_per_pool(tables, sent)}")


def _per_pool(tables: Tables, sent: np.ndarray) -> str:
    pools = Counter[str]()
    for name, count in zip([*tables.pool_of_replica, "no replica"], np.roll(sent, -1).tolist(), strict=True):
        pools[name] += count
    return ", ".join(f"{name} {count}" for name, count in pools.items() if count)


def _blocks(tables: Tables) -> Entry:
    """I2: KV blocks taken = given back + still held; nothing held once all requests ended; never above capacity."""
    replicas, found = tables.replicas, Faults()
    blocks, left = replicas["blocks"], replicas["left_blocks"]
    found.see("taken is not returned + left", replicas["taken_blocks"] != replicas["returned_blocks"] + left)
    found.see("peak above capacity", replicas["peak_blocks"] > blocks)
    for page in tables.stretches():
        found.see("stretch above capacity", page["blocks"] > blocks[page["replica"]], page.first)
    may_hold = np.zeros(len(blocks), dtype=bool)
    for rows in tables.requests():
        may_hold[rows["replica"][(rows["status"] == UNFINISHED) & (rows["replica"] >= 0)]] = True
    found.see("blocks left without an unfinished request", (left != 0) & ~may_hold)
    return _entry(len(blocks), found.lines(), "KV blocks taken = returned + left, never above capacity")


def _succession(tables: Tables, found: Faults) -> Gaps:
    """The gaps between the stretches of each replica; a stretch that begins before the one recorded before it ends is a fault."""
    before = np.full(len(tables.replicas), -np.inf)
    gaps = []
    for page in tables.stretches():
        order = by_replica(page["replica"])
        replica, start, end = page["replica"][order], page["start"][order], page.end[order]
        same = replica[1:] == replica[:-1]
        heads, tails = np.append(True, ~same), np.append(~same, True)
        previous = np.roll(end, 1)
        previous[heads] = before[replica[heads]]
        before[replica[tails]] = end[tails]
        found.see("stretch of negative length", page["seconds"] < 0, page.first)
        found.see("stretch begins before the one recorded before it ends", start < previous - SLACK, page.first + order)
        at = start - previous > SLACK
        gaps.append(Gaps(replica[at], previous[at], start[at]))
    replica, low, high = (np.concatenate(parts) for parts in zip(*gaps, strict=True)) if gaps else np.empty((3, 0))
    order = np.lexsort((high, replica))
    return Gaps(replica[order], low[order], high[order])


def _order(tables: Tables, found: Faults) -> Entry:
    """I3: a request's times are in order, within the run; stretches of a replica neither overlap nor run backwards."""
    for page in tables.requests():
        arrival, admitted, first, last = (page[name] for name in ("arrival", "admitted", "first_token", "last_token"))
        for early, late, what in ((arrival, admitted, "admitted before arrival"), (admitted, first, "first token before admission"),
                                  (first, last, "last token before first"), (arrival, first, "first token before arrival")):  # fmt: skip
            found.see(what, late < early - SLACK, page.first)
        without = (np.isnan(admitted) & ~np.isnan(first)) | (np.isnan(first) & ~np.isnan(last))
        found.see("a token without what comes before it", without, page.first)
        latest = np.fmax(np.fmax(arrival, admitted), np.fmax(first, last))
        found.see("outside the run", (arrival < -SLACK) | (latest > tables.end + SLACK), page.first)
    checked = len(tables.result.tables["requests"]) + len(tables.result.tables["stretches"])
    return _entry(checked, found.lines(), "arrival <= admitted <= first token <= last token; stretches of a replica in order")


def _content(tables: Tables) -> Entry:
    """I5: a digest of requests and stretches, to compare with another run of the same scenario and seed. One run cannot check it."""
    digest, rows = hashlib.sha256(), 0
    for name in ("requests", "stretches"):
        table = tables.result.tables[name]
        rows += len(table)
        columns = {c.name: hashlib.sha256(f"{name}.{c.name}:{table.labels.get(c.name, '')}".encode()) for c in table.columns}
        for page in table.pages():
            for column, content in columns.items():
                content.update(np.ascontiguousarray(page[column]))
        digest.update(b"".join(content.digest() for content in columns.values()))
    return {"ok": True, "checked": rows, "detail": f"not checked by one run; equal digests mean equal tables: sha256 {digest.hexdigest()}"}


def _roofline(tables: Tables) -> Entry:
    """I6: no stretch shorter than its FLOP at peak or its bytes at full bandwidth, and no first step shorter than its own floor.

    Bytes are a floor: the weights that even one token needs, and the decoders' keys and values.
    """
    found, margin = Faults(), np.inf
    for page in tables.stretches():
        peak, bandwidth = page.per_pool("peak_flops"), page.per_pool("bandwidth")
        weights, per_token = page.per_pool("active_weight_floor"), page.per_pool("kv_bytes_per_token")
        total = np.maximum(page.flops / peak, (weights * page["steps"] + page.kv_read) / bandwidth)
        single = np.maximum(page.per_pool("flops_per_token") * page["decoders"] / peak, (weights + per_token * page["held"]) / bandwidth)
        found.see("stretch faster than the roofline", page["seconds"] < total * (1 - SLACK), page.first)
        found.see("first step faster than the roofline", page["first_step"] < single * (1 - SLACK), page.first)
        margin = min(margin, float((page["seconds"] / np.maximum(total, 1e-300)).min()))
    closest = f"; the closest took {margin:.3g} times as long" if np.isfinite(margin) else ""
    holds = f"no step faster than the roofline at 100 % of peak{closest}"
    return _entry(len(tables.result.tables["stretches"]), found.lines(), holds)


def _tokens(tables: Tables) -> Entry:
    """Tokens of the requests = one per decoder and step, one first token each, and one after each preemption stall.

    All members of a static batch generate as many as its longest answer. With speculation the steps of a request count at the expected
    pace, and what it got beyond that when it leaves.
    """
    stopped = tables.counts[UNFINISHED] or tables.counts[FAILED] or tables.result.tables["pauses"]["forgotten"].any()
    if tables.drafted and stopped:
        return _entry(0, [], "skipped: requests were cut off whose steps are recorded at the expected pace")
    pads = Waste(tables).pads
    if pads.any() and tables.counts[FAILED]:
        return _entry(0, [], "skipped: static batches went on without those called off, whose padding is not recorded")
    batches, emitted = Batches(), float(sum(len(stalls) for stalls in tables.stalls()))
    asked = 0
    for rows in tables.requests():
        asked += int(rows["output_tokens"].sum(dtype="i8"))
        if pads.any():
            batches.add(rows, (rows["replica"] >= 0) & pads[rows["replica"]] & ~np.isnan(rows["first_token"]))
        emitted += int((~np.isnan(rows["first_token"])).sum())
    found = Faults()
    for page in tables.stretches():
        emitted += float(page.decoded.sum())
        if not tables.drafted:
            found.see("tokens are not decoders x steps", page.decoded != page["decoders"] * page["steps"].astype("i8"), page.first)
    asked += batches.padding()
    close = abs(asked - emitted) <= (1e-9 * asked if tables.drafted else 0.0)
    faults = [] if close else [f"requests hold {asked} tokens, engines emitted {emitted:.15g}"]
    return _entry(asked, faults + found.lines(), "tokens of requests = tokens emitted by engines")


class Batches:
    """Members of static batches, told apart by replica and time of the first token, which the members of a batch share."""

    def __init__(self) -> None:
        self._pieces: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, rows: Page, which: np.ndarray) -> None:
        """Note the output tokens of those rows of `requests`."""
        self._pieces.append((keys(rows["replica"][which], rows["first_token"][which]), rows["output_tokens"][which].astype("i8")))

    def padding(self) -> int:
        """Tokens generated beyond what the members asked for."""
        if not self._pieces:
            return 0
        keys, outputs = (np.concatenate(parts) for parts in zip(*self._pieces, strict=True))
        _, batch = np.unique(keys, return_inverse=True)
        longest = np.zeros(len(keys), dtype="i8")
        np.maximum.at(longest, batch, outputs)
        return int((longest[batch] - outputs).sum())


def _little(tables: Tables) -> Entry:
    """Little's law over decoding: seconds from first to last token, summed over requests, = decoders integrated over time, plus stalls.
    Decoders that pause count, also those of replicas that are paused.

    The left side comes from the requests, the right side from the engines. Holds when every accepted request completed, or was called off.
    """
    if tables.counts[UNFINISHED]:
        return _entry(0, [], "skipped: requests were cut off while decoding")
    sojourn = 0.0
    for rows in tables.requests():
        sojourn += float((rows["last_token"] - rows["first_token"])[rows["status"] == COMPLETED].sum())
        failed = (rows["status"] == FAILED) & ~np.isnan(rows["first_token"])
        if failed.any():
            sojourn += float((tables.losses.decoding_until(rows["request"][failed]) - rows["first_token"][failed]).sum())
    present = sum(float(((page["decoders"] + page["paused"]) * page["seconds"]).sum()) for page in tables.stretches())
    present += sum(float(stalls.sum()) for stalls in tables.stalls())
    still = pauses(tables)
    if still is not None:
        present += float(((still.end - still.start) * still.standing).sum())
    # Sums of millions of differences of clock times: rounding grows with the clock, not with the sum.
    close = abs(sojourn - present) <= 1e-6 * max(sojourn, present) + 1e-12 * tables.end * max(int(tables.counts.sum()), 1)
    faults = [] if close else [f"requests decoded for {sojourn:.9g} s in all, engines held decoders for {present:.9g} s"]
    return _entry(int(tables.counts[[COMPLETED, FAILED]].sum()), faults, "mean number decoding = completions per second x mean decode time")
