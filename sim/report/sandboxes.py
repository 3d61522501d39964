"""Sandboxes on a page: waits and boots, what was held and what of it was used, what it cost; and all of them over time, by state."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import BINS, LEGEND, Drawing, Plot, over_time
from sim.report.section import Panel, Sheet
from sim.report.svg import SERIES
from sim.report.words import dollars, number, percent, scaled, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts

POOLS = 4
ENDS = {
    "released": "given back", "withdrawn": "not wanted any more", "crashed": "crashed", "idle": "taken away idle",
    "boot_failed": "failed to boot", "timeout": "boot timed out", "quota": "refused by quota", "full": "refused, line full",
    "warm": "warm, not taken", "unfinished": "not over",
}  # fmt: skip
HELD = {"busy": "with a command", "idle": "idle", "paused": "paused"}
# States in the order in which they are stacked: colour, opacity.
LOOKS = {"with commands": (2, 0.75), "idle": (2, 0.3), "paused": (4, 0.5), "booting": (1, 0.75), "warm": (3, 0.35)}


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Each pool in figures."""
    found = summary["sandboxes"] or {}
    return [Panel(f"Sandboxes {name}" if len(found) > 1 else "Sandboxes", _rows(pool)) for name, pool in found.items()]


def _rows(pool: dict[str, Any]) -> list[tuple[str, str]]:
    held, place, nodes = pool["held"], pool["occupancy"], pool["nodes"]
    rows = [("Asked for", f"{pool['asked']:,}")]
    rows += [(f"Of them {ENDS[how]}", f"{count:,}") for how, count in pool["outcomes"].items() if how != "released"]
    peak, mean = place["peak"], place["mean"]
    rows.append(("On nodes, mean and most", f"{number(mean)}, {peak:,}"))
    if mean and peak:
        rows.append(("Mean over peak", percent(mean / peak)))
    rows.append(("Of the room there was", percent(place["share"])))
    rows += [(f"Held {words}", percent(held[state])) for state, words in HELD.items() if held[state]]
    rows += [
        ("Cores at work", percent(pool["cpu_utilization"])), ("Memory in use", percent(pool["memory_utilization"])),
        ("Memory, GB-hours", number(pool["gb_hours"])), ("Nodes, mean and most", f"{number(nodes['mean'])}, {nodes['peak']:,}"),
    ]  # fmt: skip
    if pool["warm_hits"]:
        rows.append(("Found warm", percent(pool["warm_hits"])))
    if pool["image_hits"] != 1.0:
        rows.append(("Image on the node already", percent(pool["image_hits"])))
    if pool["pulled_gb"]:
        rows.append(("Images pulled", f"{scaled(pool['pulled_gb'] * 1e9)}B"))
    if pool["killed"]:
        rows.append(("Commands killed for want of memory", f"{pool['killed']:,} of {pool['execs']:,}"))
    return [*rows, ("Cost", f"{dollars(pool['usd'])}, {dollars(pool['usd_per_sandbox'])} each")]


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """How long sandboxes took to come, part by part."""
    found = summary["sandboxes"] or {}
    rows = [
        [f"{name}: {words}" if len(found) > 1 else words, *(seconds((pool[key] or {}).get(part)) for part in ("mean", "p50", "p95", "p99"))]
        for name, pool in found.items()
        for key, words in (("queue_s", "for a place"), ("boot_s", "from placed to ready"), ("wait_s", "in all"))
    ]  # fmt: skip
    note = "From asked for to there; of those that came. From placed to ready there is the image's pull, the line for a boot, and the boot."
    return [Sheet("How long sandboxes take to come", ("Wait", "Mean", "p50", "p95", "p99"), rows, note)] if rows else []


def plots(facts: Facts, summary: dict[str, Any]) -> Iterator[Plot]:
    """Of each pool its sandboxes over time."""
    yield from (one.plot() for one in drawings(facts, summary).values())


def drawings(facts: Facts, summary: dict[str, Any]) -> dict[str, Drawing]:
    """Those of the first `POOLS` pools, by name; none where nothing was asked for."""
    found = summary["sandboxes"] or {}
    asked = [name for name in list(found)[:POOLS] if found[name]["asked"] and facts.span > 0]
    return {name: _over_time(facts, name, len(found) > 1, found[name]["occupancy"]["mean"]) for name in asked}


def _over_time(facts: Facts, name: str, several: bool, average: float) -> Drawing:
    table, nodes = facts.result.tables["sandboxes"], facts.result.tables["sandbox_nodes"]
    mine, theirs = table["pool"] == table.label("pool", name), nodes["pool"] == nodes.label("pool", name)
    asked, placed, booted, granted, released = (table[key][mine] for key in ("asked", "placed", "booted", "granted", "released"))
    edges = np.linspace(facts.begin, facts.end, BINS + 1)

    def mean(start: np.ndarray, end: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        return Bins(edges).add(start, np.maximum(start, end), weight).means()

    there, got = ~np.isnan(placed), ~np.isnan(granted)
    # Whoever never had a place waited until it was over.
    line = mean(asked, np.where(there, placed, released))
    life = np.maximum(released - granted, 1e-12)[got]
    used = {words: table[key][mine][got] / life for words, key in (("with commands", "busy_s"), ("idle", "idle_s"), ("paused", "paused_s"))}
    up = there & ~np.isnan(booted)
    parts = {words: mean(granted[got], released[got], np.clip(share, 0.0, 1.0)) for words, share in used.items()}
    parts["booting"] = mean(placed[there], np.where(np.isnan(booted), released, booted)[there])
    parts["warm"] = mean(booted[up], np.where(got, granted, released)[up])
    room = mean(nodes["ready"][theirs], nodes["end"][theirs]) * next(
        pool["slots"] for pool in facts.meta["sandboxes"] if pool["name"] == name
    )
    total = sum(parts.values())
    most = float(total.max(initial=0.0))
    waits = f", and {number(float(line.max()))} wait for a place" if line.max() > 0.5 else ""
    note = (
        f"At most {number(most)} on nodes{waits}, averaged over a bin; {number(average)} on average. What a sandbox did while "
        "it was held is spread evenly over that time."
    )

    waiting, changing = bool(line.max(initial=0.0) > 0.5), bool(np.ptp(nodes["start"][theirs]) or np.ptp(nodes["end"][theirs]))

    def held(axes: Any, clock: float) -> None:
        times, below = edges / clock, np.zeros(len(edges) - 1)
        for state, (colour, alpha) in LOOKS.items():
            if parts[state].max(initial=0.0) > 0.005 * most:
                above = below + parts[state]
                axes.stairs(above, times, baseline=below, color=SERIES[colour], fill=True, alpha=alpha, label=state)
                below = above
        if room.max() < 4 * most:
            axes.stairs(room, times, color=SERIES[0], linestyle="--", baseline=None, label="room")
        axes.set_title("sandboxes on nodes", pad=34)
        axes.legend(ncols=3, handlelength=1.2, **LEGEND)
        axes.set_ylim(bottom=0)

    def lined_up(axes: Any, clock: float) -> None:
        axes.stairs(line, edges / clock, color=SERIES[1], fill=True, alpha=0.75)
        axes.set_title("waiting for a place")
        axes.set_ylim(bottom=0)

    def fleet(axes: Any, clock: float) -> None:
        _nodes(axes, nodes, theirs, (edges, clock))
        axes.set_ylim(bottom=0)

    draws = [held, *([lined_up] if waiting else []), *([fleet] if changing else [])]
    return over_time(f"Sandboxes{f' of {name}' if several else ''} over time", note, facts, *draws)


def _nodes(axes: Any, nodes: Any, theirs: np.ndarray, when: tuple[np.ndarray, float]) -> None:
    edges, clock = when
    start, ready, end = (nodes[key][theirs] for key in ("start", "ready", "end"))
    paid = Bins(edges).add(start, end).means()
    up = Bins(edges).add(np.where(np.isnan(ready), end, ready), end).means()
    axes.stairs(up, edges / clock, color=SERIES[0], fill=True, alpha=0.35, label="ready")
    if (paid - up).max() > 0.01:
        axes.stairs(paid, edges / clock, color=SERIES[3], linestyle="--", baseline=None, label="paid")
        axes.legend(ncols=2, handlelength=1.2, **LEGEND)
    axes.set_title("nodes", pad=20 if (paid - up).max() > 0.01 else None)
