"""Did the cluster keep up? Said before any latency, because percentiles of an overloaded run only measure how long it ran.

* `overloaded` (open loop only): more than 5 % of the requests turned away (not counting those too long for any replica), or called off by
  callers who had waited too long, or arrivals outran service in a sustained way. The last means both: the backlog present at the last
  arrival took longer than 5 % of the arrival window to be admitted, and the mean number waiting in the last sixth of the window exceeded
  that of the fourth sixth by 10 %. A backlog that the end of the run cut off counts with the time it would have needed at the rate of
  admissions in the second half of the window.
* `backlogged`: not that, but more than 5 % of the requests queued for longer than a second (or than the SLO's loosest TTFT limit, when that
  is longer): a burst that drained, or work that was all there at once. Traffic that arrives in one instant has no rate to outrun, so it is
  never called overloaded.
* `stable`: neither. In a closed loop callers wait for answers, arrivals slow down with service, and overload cannot occur.

A backlog is of requests waiting for an engine. When instead the requests in service still multiply at the last arrival, faster than they
come, the run was too short to judge, and the reason says so. The thresholds are judgement.

Two waits say nothing about load, are not counted, and are told. A run of reinforcement learning sends its requests when it likes and waits
for them, so that beside other traffic only that is judged. And who is held for a pool until another one lends it GPUs waits as long as the
scenario says; when they are there and do not suffice, that is a backlog like any other, and so is what was still held when the run ended.
Requests of the pool that lends do count: its GPUs are away by choice, but its callers did not make it.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sim.core.record import Page
from sim.core.request import FAILED, REJECTED, UNFINISHED
from sim.spec.lending import lenders
from sim.study.facts import Bins, Tables
from sim.study.replicate.window import Cut
from sim.study.result import Result

SHARE = 0.05
GROWTH = 1.1
LONG_WAIT = 1.0
# Why the front door refuses a request that no replica could ever serve; that says nothing about load.
TOO_LONG = ("max_model_len", "kv_capacity")
# Why callers call off what they sent; that another copy of it was first says nothing about load.
IMPATIENT = ("timeout", "abandoned")


class Verdict(NamedTuple):
    """`word` is stable, backlogged or overloaded; `reason` one sentence with the figures behind it."""

    word: str
    reason: str


def verdict(result: Result) -> Verdict:
    """The verdict on a run, from the arrivals and admissions of its requests."""
    return judge(Tables(result))


def judge(tables: Tables) -> Verdict:
    """The same, from tables already opened."""
    everything = int(tables.counts.sum())
    tables = _untrained(tables)
    arrived = int(tables.counts.sum())
    if not arrived:
        return Verdict("stable", "Nobody sent a request: the cluster trains." if tables.meta.get("trainers") else "Nothing arrived.")
    closed, limit = tables.meta["closed_loop"], _long_wait(tables)
    load = _load(tables, limit)
    apart = _apart(load, everything - arrived)
    overload = None if closed else _turned_away(load, arrived) or _called_off(load, arrived) or _outrun(load)
    if overload:
        return Verdict("overloaded", overload + apart)
    queued = load.queued / arrived
    if closed and tables.meta.get("rl") and arrived == everything:
        who = "All load comes of training, which waits for what it asks, so that nothing can outrun service"
        some = f"{_share(load.queued, arrived)} of the requests" if queued else "no request"
        return Verdict("stable", f"{who}; {some} queued for longer than {_time(limit)}.{apart}")
    too_long = f" But {_share(load.too_long, arrived)} of the requests were longer than any replica can hold." if load.too_long else ""
    more = " Callers wait for their answers, so arrivals cannot outrun service." if closed else _filling(load)
    if queued > SHARE:
        longer = f"{queued:.0%} of the requests queued for longer than {_time(limit)}, at worst {_time(load.longest)}."
        return Verdict("backlogged", longer + _cause(load, closed) + more + too_long + apart)
    few = f"{_share(load.queued, arrived)} of the requests" if queued else "no request"
    return Verdict("stable", f"Service kept up with the arrivals: {few} queued for longer than {_time(limit)}." + more + too_long + apart)


@dataclass
class Load:
    """What the verdict rests on: counts of requests, seconds, and the bins of the fourth to the last sixth of the arrival window."""

    first: float
    last: float
    waiting: Bins
    present: Bins
    came: np.ndarray
    refused: Counter[str] = field(default_factory=Counter)
    too_long: int = 0
    called_off: int = 0
    unadmitted: int = 0
    never: int = 0
    backlog: int = 0
    queued: int = 0
    admitted_late: int = 0
    longest: float = 0.0
    settled: float = 0.0
    lent_to: int = 0
    held: float = 0.0

    @property
    def window(self) -> float:
        """Seconds from the first arrival to the last."""
        return self.last - self.first


def _load(tables: Tables, limit: float) -> Load:
    """One walk over the requests. `never`: unfinished and not admitted; `backlog`: waiting at the last arrival, or never; `queued`: for
    longer than `limit`; `admitted_late`: in the second half of the window; `settled`: end of the last wait, less what passed after the
    last arrival until GPUs were lent; `lent_to`: those that waited for that, longer than `limit`, and `held`: seconds, all of them.
    """
    first, last = tables.arrivals
    middle = (first + last) / 2
    edges = np.linspace(middle, last, 4)
    load, holds = Load(first, last, Bins(edges), Bins(edges), np.zeros(3)), _Holds(tables)
    labels = tables.result.tables["requests"].labels["reason"]
    for page in tables.requests():
        held, admitted, end = holds.of(page), page["admitted"], tables.admissions(page)
        begin = page["arrival"] + held
        unadmitted = np.isnan(admitted)
        never = unadmitted & (page["status"] == UNFINISHED)
        refused = np.bincount(page["reason"][page["status"] == REJECTED], minlength=len(labels)).tolist()
        for label, count in zip(labels, refused, strict=True):
            if label in TOO_LONG:
                load.too_long += count
            elif count:
                load.refused[label] += count
        impatient = [code for code, label in enumerate(labels) if label in IMPATIENT]
        load.called_off += int(((page["status"] == FAILED) & np.isin(page["reason"], impatient)).sum())
        load.unadmitted += int(unadmitted.sum())
        load.never += int(never.sum())
        load.backlog += int(((end > last) & (begin <= last) | never).sum())
        load.queued += int((end - begin > limit).sum())
        load.admitted_late += int(((admitted > middle) & (admitted <= last)).sum())
        load.longest = max(load.longest, float((end - begin).max()))
        load.settled = max(load.settled, float((end - np.maximum(begin - last, 0.0)).max()))
        load.lent_to, load.held = load.lent_to + int((held > limit).sum()), load.held + float(held[held > limit].sum())
        load.came += np.histogram(page["arrival"], edges)[0] if load.window > 0 else 0
        load.waiting.add(begin, end)
        load.present.add(begin, tables.departures(page))
    return load


class _Holds:
    """Times that requests were held for a pool that borrows GPUs, each until it was sent on."""

    def __init__(self, tables: Tables):
        borrowers = list(lenders(tables.result.scenario.cluster))
        self._borrows = np.isin(tables.pool_of_replica, borrowers)
        table = tables.result.tables["held"]
        rows = np.flatnonzero(~np.isnan(table["end"])) if borrowers else np.empty(0, dtype=int)
        self._requests, self._start, self._end = (table[name][rows] for name in ("request", "start", "end"))

    def of(self, page: Page) -> np.ndarray:
        """Seconds before its first admission that each request of a page was held for GPUs that were to be lent."""
        found = np.zeros(len(page))
        if not len(self._requests):
            return found
        order = np.argsort(page["request"], kind="stable")
        at = np.minimum(np.searchsorted(page["request"][order], self._requests), len(page) - 1)
        rows, replicas = order[at], page["replica"][order[at]]
        mine = (page["request"][rows] == self._requests) & (replicas >= 0) & self._borrows[replicas]
        seconds = np.fmin(self._end, page["admitted"][rows]) - self._start
        np.add.at(found, rows[mine], np.maximum(seconds[mine], 0.0))
        return found


def _untrained(tables: Tables) -> Tables:
    """Without requests of reinforcement learning, where there are others."""
    names = [one["name"] for one in tables.meta.get("rl") or ()]
    result, table = tables.result, tables.result.tables["requests"]
    codes = [code for code, name in enumerate(table.labels["workload"]) if name in names]
    if not codes or len(codes) == len(table.labels["workload"]):
        return tables
    rest = Cut(table, lambda page: (np.flatnonzero(~np.isin(page["workload"], codes)), {}))
    return Tables(Result(result.scenario, {**result.tables, "requests": rest}, result.meta))


def _apart(load: Load, trained: int) -> str:
    """What the verdict does not rest on, in words."""
    lent = training = ""
    if load.lent_to:
        lent = f" Apart from that, {load.lent_to:,} requests waited for GPUs to be lent, {_time(load.held / load.lent_to)} on average."
    if trained:
        training = f" Training waits for what it asks: its {trained:,} requests are not judged."
    return lent + training


def _long_wait(tables: Tables) -> float:
    slo = tables.result.scenario.slo
    limits = [slo.ttft_p50, slo.ttft_p90, slo.ttft_p95, slo.ttft_p99]
    return max([LONG_WAIT, *(limit for limit in limits if limit is not None)])


def _turned_away(load: Load, arrived: int) -> str:
    share = load.refused.total() / arrived
    most = max(load.refused, key=lambda label: load.refused[label], default="")
    return f"{share:.0%} of the requests were turned away{f', most of them by {most}' if most else ''}." if share > SHARE else ""


def _called_off(load: Load, arrived: int) -> str:
    share = load.called_off / arrived
    return f"Callers waited in vain for {share:.0%} of the requests: they timed out, or the user left." if share > SHARE else ""


def _outrun(load: Load) -> str:
    """Why the arrivals outran service, or nothing."""
    if load.window <= 0:
        return ""
    drain = _drain(load)
    early, _, late = load.waiting.means()
    if drain <= SHARE * load.window or late <= GROWTH * early:
        return ""
    share = f"{drain / load.window:.0%} of" if drain < 2 * load.window else f"{drain / load.window:.3g} times"
    return (
        f"Arrivals outran service: after {_time(load.window)} of traffic {load.backlog:,} requests still waited, enough for "
        f"{_time(drain)} ({share} that time), and the queue was growing. Latencies measure the length of the run."
    )


def _drain(load: Load) -> float:
    """Seconds from the last arrival until the backlog of that moment was admitted, or (`never`) would have been."""
    observed = load.settled - load.last if load.backlog else 0.0
    if not load.never:
        return observed
    rate = load.admitted_late / (load.window / 2)
    return max(observed, load.backlog / rate if rate > 0 else np.inf)


def _filling(load: Load) -> str:
    """A caution when requests in the system were still multiplying at the last arrival, by more than chance (three standard deviations)
    and faster than they came.
    """
    if load.window <= 0:
        return ""
    early, _, late = load.present.means()
    if late * load.came[0] <= GROWTH * early * load.came[2]:
        return ""
    if late - early <= max((GROWTH - 1) * early, 3 * np.sqrt(late)):
        return ""
    return f" But requests in the system still grew, from {early:.0f} to {late:.0f}, when the traffic ended: run longer to see the level."


def _share(part: int, whole: int) -> str:
    """A share that is not nothing does not read as nothing.

    >>> _share(30, 100), _share(3, 10_000), _share(1, 1_000_000)
    ('30.0%', '0.03%', '0.0001%')
    """
    share = part / whole
    return f"{share:.1%}" if share >= 0.001 else f"{float(f'{100 * share:.1g}'):.10f}".rstrip("0") + "%"


def _cause(load: Load, closed: bool) -> str:
    if load.window <= 0:
        return " All of them arrived at once."
    return " The queue drained." if not closed and not load.unadmitted else ""


def _time(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "for ever"
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= 2 * size or unit == "s":
            return f"{seconds / size:.3g} {unit}"
    return ""
