"""Did the cluster keep up? Said before any latency, because percentiles of an overloaded run only measure how long it ran.

* `overloaded` (open loop only): more than 5 % of the requests turned away (not counting those too long for any replica), or arrivals
  outran service in a sustained way. That means both: the backlog present at the last arrival took longer than 5 % of the arrival window to
  be admitted, and the mean number waiting in the last sixth of the window exceeded that of the fourth sixth by 10 %. A backlog that the end
  of the run cut off counts with the time it would have needed at the rate of admissions in the second half of the window.
* `backlogged`: not that, but more than 5 % of the requests queued for longer than a second (or than the SLO's loosest TTFT limit, when that
  is longer): a burst that drained, or work that was all there at once. Traffic that arrives in one instant has no rate to outrun, so it is
  never called overloaded.
* `stable`: neither. In a closed loop callers wait for answers, arrivals slow down with service, and overload cannot occur.

A backlog is of requests waiting for an engine. When instead the requests in service are still multiplying at the last arrival, the run was
too short to judge, and the reason says so. The thresholds are judgement.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sim.core.request import REJECTED, UNFINISHED
from sim.study.facts import Tables, mean_in_bins
from sim.study.result import Result

SHARE = 0.05
GROWTH = 1.1
LONG_WAIT = 1.0
# Why the front door refuses a request that no replica could ever serve; that says nothing about load.
TOO_LONG = ("max_model_len", "kv_capacity")


class Verdict(NamedTuple):
    """`word` is stable, backlogged or overloaded; `reason` one sentence with the figures behind it."""

    word: str
    reason: str


def verdict(result: Result) -> Verdict:
    """The verdict on a run, from the arrivals and admissions of its requests."""
    return judge(Tables(result))


def judge(tables: Tables) -> Verdict:
    """The same, from tables already read."""
    arrived = len(tables.col("requests", "status"))
    if not arrived:
        return Verdict("stable", "Nothing arrived.")
    closed = tables.meta["closed_loop"]
    overload = None if closed else _turned_away(tables) or _outrun(tables)
    if overload:
        return Verdict("overloaded", overload)
    begin, end = tables.waits
    limit = _long_wait(tables)
    queued = float(np.mean(end - begin > limit))
    longest = float((end - begin).max())
    more = " Callers wait for their answers, so arrivals cannot outrun service." if closed else _filling(tables)
    if queued > SHARE:
        longer = f"{queued:.0%} of the requests queued for longer than {_time(limit)}, at worst {_time(longest)}."
        return Verdict("backlogged", longer + _cause(tables) + more)
    few = f"{queued:.1%} of the requests" if queued else "no request"
    return Verdict("stable", f"Service kept up with the arrivals: {few} queued for longer than {_time(limit)}." + more)


def _long_wait(tables: Tables) -> float:
    slo = tables.result.scenario.slo
    limits = [slo.ttft_p50, slo.ttft_p90, slo.ttft_p95, slo.ttft_p99]
    return max([LONG_WAIT, *(limit for limit in limits if limit is not None)])


def _turned_away(tables: Tables) -> str:
    labels = tables.result.tables["requests"].labels["reason"]
    rejected = tables.col("requests", "reason")[tables.col("requests", "status") == REJECTED]
    counts = {label: int((rejected == code).sum()) for code, label in enumerate(labels) if label not in TOO_LONG}
    share = sum(counts.values()) / len(tables.col("requests", "status"))
    most = max(counts, key=lambda label: counts[label], default="")
    return f"{share:.0%} of the requests were turned away{f', most of them by {most}' if most else ''}." if share > SHARE else ""


def _outrun(tables: Tables) -> str:
    """Why the arrivals outran service, or nothing."""
    begin, end = tables.waits
    first, last = float(begin.min()), float(begin.max())
    window = last - first
    if window <= 0:
        return ""
    never = np.isnan(tables.col("requests", "admitted")) & (tables.col("requests", "status") == UNFINISHED)
    backlog = (end > last) | never
    drain = _drain(tables, backlog, never, first, last)
    early, late = _ends_of_second_half(begin, end)
    if drain <= SHARE * window or late <= GROWTH * early:
        return ""
    share = f"{drain / window:.0%} of" if drain < 2 * window else f"{drain / window:.3g} times"
    return (
        f"Arrivals outran service: after {_time(window)} of traffic {int(backlog.sum()):,} requests still waited, enough for "
        f"{_time(drain)} ({share} that time), and the queue was growing. Latencies measure the length of the run."
    )


def _ends_of_second_half(begin: np.ndarray, end: np.ndarray) -> tuple[float, float]:
    """Mean number present in the fourth and in the last sixth of the arrival window, of intervals that begin with the arrivals."""
    first, last = float(begin.min()), float(begin.max())
    means = mean_in_bins(begin, end, 1.0, np.linspace((first + last) / 2, last, 4))
    return float(means[0]), float(means[2])


def _filling(tables: Tables) -> str:
    """A caution when requests in the system were still multiplying at the last arrival, by more than chance (three standard deviations)."""
    arrival, last = tables.col("requests", "arrival"), tables.col("requests", "last_token")
    if np.ptp(arrival) == 0:
        return ""
    gone = np.where(tables.col("requests", "status") == UNFINISHED, np.maximum(tables.end, arrival), arrival)
    early, late = _ends_of_second_half(arrival, np.where(np.isnan(last), gone, last))
    if late - early <= max((GROWTH - 1) * early, 3 * np.sqrt(late)):
        return ""
    return f" But requests in the system still grew, from {early:.0f} to {late:.0f}, when the traffic ended: run longer to see the level."


def _drain(tables: Tables, backlog: np.ndarray, never: np.ndarray, first: float, last: float) -> float:
    """Seconds from the last arrival until the backlog of that moment was admitted, or (`never`) would have been."""
    observed = float(tables.waits[1].max()) - last if backlog.any() else 0.0
    if not never.any():
        return observed
    admitted, half = tables.col("requests", "admitted"), (last - first) / 2
    rate = float(((admitted > last - half) & (admitted <= last)).sum()) / half
    return max(observed, float(backlog.sum()) / rate if rate > 0 else np.inf)


def _cause(tables: Tables) -> str:
    arrival = tables.col("requests", "arrival")
    if np.ptp(arrival) == 0:
        return " All of them arrived at once."
    return " The queue drained." if not tables.meta["closed_loop"] and not np.isnan(tables.col("requests", "admitted")).any() else ""


def _time(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "for ever"
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= 2 * size or unit == "s":
            return f"{seconds / size:.3g} {unit}"
    return ""
