"""Where requests came from and where they were served, and what became of calls: retries, hedges, callers who left."""
from __future__ import annotations

from typing import Any

from sim.report.section import Panel, Sheet
from sim.report.words import number, percent, seconds

OUTCOMES = {
    "answered": "Answered", "late": "Another was first", "rejected": "Turned away", "timeout": "Timed out", "abandoned": "User left",
    "open": "Not over",
}  # fmt: skip
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


def _attempts(attempts: dict[str, dict[str, int]]) -> list[Sheet]:
    ends = [end for end in OUTCOMES if any(end in counts for counts in attempts.values())]
    rows = [
        [KINDS[kind], f"{sum(counts.values()):,}", *(f"{counts.get(end, 0):,}" for end in ends)] for kind, counts in attempts.items()
    ]
    # First attempts that were all answered say nothing new.
    if set(attempts) <= {"first"} and set(ends) <= {"answered", "open"}:
        return []
    return [Sheet("What became of attempts", ("Attempts", "Sent", *(OUTCOMES[end] for end in ends)), rows)]
