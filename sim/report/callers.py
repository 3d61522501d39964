"""Where requests came from and where they were served, and what became of calls: retries, hedges, callers who left."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import DASHES, LEGEND, Drawing, Plot, over_time
from sim.report.section import Panel, Sheet
from sim.report.svg import SERIES
from sim.report.words import number, percent, seconds
from sim.study.metrics import Facts

OUTCOMES = {
    "answered": "Answered", "late": "Another was first", "rejected": "Turned away", "timeout": "Timed out", "abandoned": "User left",
    "open": "Not over",
}  # fmt: skip
PARTS = 48  # of the run, for what came from a region and what was served elsewhere
KINDS = {"first": "First attempts", "retry": "Retries", "hedge": "Hedges"}


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Calls, where callers have patience."""
    calls = summary["calls"]
    if not calls:
        return []
    latency, wasted = calls["latency_s"] or {}, calls["wasted"]
    rows = [
        ("Calls", f"{calls['calls']:,}"), ("Answered", f"{calls['answered']:,} ({percent(calls['answered_share'])} of those that ended)"),
        ("Given up", f"{calls['given_up']:,}"), ("Attempts per call", number(calls["attempts_per_call"])),
        ("From call to answer, median", seconds(latency.get("p50"))), ("From call to answer, p99", seconds(latency.get("p99"))),
        ("Computed for nobody", f"{percent(wasted['share'])} of all tokens"),
    ]  # fmt: skip
    return [Panel("Calls", rows)]


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """Origins against regions, and attempts against outcomes."""
    return [*_regions(summary["regions"] or {}), *_attempts((summary["calls"] or {}).get("attempts", {}))]


def _regions(regions: dict[str, Any]) -> list[Sheet]:
    if not regions:
        return []
    reached = {place for origin in regions.values() for place in origin["served"]}
    places = [*(name for name in regions if name in reached), *sorted(reached - set(regions))]
    rows = [
        [name, f"{origin['requests']:,}", *(f"{origin['served'].get(place, 0):,}" for place in places), percent(origin["spilled"]),
         *(seconds((origin["ttft_s"] or {}).get(part)) for part in ("p50", "p99"))]
        for name, origin in regions.items()
    ]  # fmt: skip
    heads = ("From", "Requests", *(f"In {place}" for place in places), "Elsewhere", "TTFT p50", "TTFT p99")
    note = "Rows are where requests came from, columns where they were served. Latency has the way there and back in it."
    return [Sheet("Where requests were served", heads, rows, note)]


def plots(facts: Facts, summary: dict[str, Any]) -> Iterator[Plot]:
    """What came from each region over time, and the share of it that was served in another."""
    yield from (one.plot() for one in origins(facts, summary))


def origins(facts: Facts, summary: dict[str, Any]) -> Iterator[Drawing]:
    """Arrivals by region, and what of them was served elsewhere; nothing with fewer than two regions."""
    if len(summary["regions"] or {}) > 1 and facts.span > 0:
        yield _origins(facts)


def _origins(facts: Facts) -> Drawing:
    edges = np.linspace(*facts.arrivals, PARTS + 1)
    homes = {pool.name: pool.region for pool in facts.result.scenario.cluster.pools}
    # The last entry is of replica -1: none.
    served = np.array([*(homes[pool] for pool in facts.pool_of_replica), ""])
    origins = np.array([options.get("region", "") for options in facts.result.scenario.workloads])
    names = [name for name in dict.fromkeys(origins.tolist()) if name][: len(SERIES)]
    came, away = np.zeros((len(names), PARTS)), np.zeros((len(names), PARTS))
    for page in facts.requests():
        origin, place = origins[page["workload"]], served[page["replica"]]
        for row, name in enumerate(names):
            mine = origin == name
            came[row] += np.histogram(page["arrival"][mine], edges)[0]
            away[row] += np.histogram(page["arrival"][mine & (place != name) & (place != "")], edges)[0]
    shares = 100 * away / np.maximum(came, 1.0)
    peaks = [f"from {name} up to {most:.0f}%" for name, most in zip(names, shares.max(axis=1), strict=True)]
    note = f"Of what comes {peaks[0]} is served elsewhere, {', '.join(peaks[1:])}, in any of {PARTS} parts of the run."

    def lines(axes: Any, clock: float, values: np.ndarray) -> None:
        for row, name in enumerate(names):
            style = {"color": SERIES[row], "linestyle": DASHES[row], "linewidth": 1.4}
            axes.stairs(values[row], edges / clock, baseline=None, label=name, **style)
        axes.set_ylim(bottom=0)

    def arrived(axes: Any, clock: float) -> None:
        lines(axes, clock, came / np.diff(edges))
        axes.set_title("arrivals per second", pad=20)
        axes.legend(ncols=len(names), handlelength=1.8, **LEGEND)

    def elsewhere(axes: Any, clock: float) -> None:
        lines(axes, clock, shares)
        axes.set_title("of them served elsewhere, %")

    return over_time("Where requests came from", note, facts, arrived, elsewhere)


def _attempts(attempts: dict[str, dict[str, int]]) -> list[Sheet]:
    ends = [end for end in OUTCOMES if any(end in counts for counts in attempts.values())]
    rows = [
        [KINDS[kind], f"{sum(counts.values()):,}", *(f"{counts.get(end, 0):,}" for end in ends)] for kind, counts in attempts.items()
    ]
    # First attempts that were all answered say nothing new.
    if set(attempts) <= {"first"} and set(ends) <= {"answered", "open"}:
        return []
    return [Sheet("What became of attempts", ("Attempts", "Sent", *(OUTCOMES[end] for end in ends)), rows)]
