"""A fleet that changes: replicas over time against what was asked of them, and the stages of a start one after the other."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import BINS, LEGEND, Drawing, Plot, over_time
from sim.report.section import Panel, Sheet
from sim.report.svg import SERIES
from sim.report.words import number, percent, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.starts import RISING

POOLS = 4
LENT = {"weights", "offload", "drain"}
SEEN = 0.02  # of the height of a plot: what is lower cannot be seen
STAGES = {"wait": "wait for GPUs", "provision": "node", "image": "image", "weights": "weights", "init": "engine", "capture": "CUDA graphs",
          "warm": "kept warm", "drain": "drain"}  # fmt: skip


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Replicas that came and went, in figures."""
    found = summary["scaling"]
    if not found:
        return []
    count, up, hours, held = found["replicas"], found["wanted_to_ready"], found["gpu_hours"], found["held_requests"]
    waited = [("Requests", f"{held['count']:,}"), ("Held for, mean", seconds((held["seconds"] or {}).get("mean")))] if held else []
    if _only_lent(summary):
        return [Panel("Held at the front door", waited)] if waited else []
    rows = [("Replicas, mean", number(count["mean"])), ("Replicas, most at a time", number(count["peak"]))]
    rows += [("Started", f"{found['started']:,}"), ("Of them called off", f"{found['called_off']:,}")] if found["started"] else []
    rows += [("From wanted to ready, mean", seconds(up["mean"])), ("From wanted to ready, p95", seconds(up["p95"]))] if up else []
    rows += [(f"GPU-hours, {state}", number(value)) for state, value in hours.items() if value]
    rows += [("Requests held at the front door", value) if name == "Requests" else (name, value) for name, value in waited]
    if found["stranded_gpus"] and found["stranded_gpus"]["peak"]:
        stranded = found["stranded_gpus"]
        rows.append(("GPUs free that none could use", f"{number(stranded['mean'])} on average, {stranded['peak']:,} at most"))
    return [Panel("Replicas that come and go", rows)]


def sheets(facts: Facts, summary: dict[str, Any]) -> list[Sheet]:
    """The stages of a start: how long each takes, and its share of all."""
    rising = {} if _only_lent(summary) else _rising(summary["scaling"])
    total = sum(stage["count"] * stage["mean"] for stage in rising.values())
    if not total:
        return []
    rows = [
        [STAGES[name], f"{one['count']:,}", seconds(one["mean"]), seconds(one["p95"]), percent(one["count"] * one["mean"] / total)]
        for name, one in rising.items()
    ]
    up = summary["scaling"]["wanted_to_ready"]
    if up:
        rows.append(["wanted to ready", f"{up['count']:,}", seconds(up["mean"]), seconds(up["p95"]), ""])
    note = (
        "Each stage over the starts that had it. Stages of starts that were called off count where they were over; the last row is of "
        "starts that went through without a stay in the warm pool."
    )
    return [Sheet("How a replica starts", ("Stage", "Starts", "Mean", "p95", "Share"), rows, f"{note}{_blind(facts)}")]


def _only_lent(summary: dict[str, Any]) -> bool:
    """Whether no replica came from nothing: those of pools that share GPUs wake, of which `sharing.py` tells."""
    return bool(summary["lending"]) and summary["scaling"]["stages"].keys() <= LENT


def _rising(found: dict[str, Any] | None) -> dict[str, Any]:
    """The stages of starts that took any time, in their order."""
    stages = (found or {}).get("stages") or {}
    return {name: stages[name] for name in RISING if name in stages and stages[name]["p99"]}


def _blind(facts: Facts) -> str:
    """How long a need can last before a start begins, by what the autoscalers are set to."""
    looks: dict[str, list[str]] = {}
    for pool in facts.result.scenario.cluster.pools:
        if pool.autoscale is not None:
            acts = f" and acts {seconds(pool.autoscale.lag)} later" if pool.autoscale.lag else ""
            looks.setdefault(f"it looks every {seconds(pool.autoscale.every)}{acts}", []).append(pool.name)
    if not looks:
        return ""
    said = list(looks) if len(looks) < 2 else [f"{words} ({', '.join(names)})" for words, names in looks.items()]
    return f" Before a replica is wanted its autoscaler must see the need: {'; '.join(said)}."


def plots(facts: Facts, summary: dict[str, Any]) -> Iterator[Plot]:
    """Of each pool that is scaled its replicas over time; of all starts the stages."""
    drawings = [*replicas(facts, summary).values(), *starts(facts, summary)]
    yield from (one.plot() for one in drawings)


def replicas(facts: Facts, summary: dict[str, Any]) -> dict[str, Drawing]:
    """Of the first `POOLS` pools that are scaled, by name, their replicas over time."""
    if summary["scaling"] is None or facts.span <= 0 or _only_lent(summary):
        return {}
    return {fleet.name: _replicas(facts, fleet) for fleet in _fleets(facts)[:POOLS]}


def starts(facts: Facts, summary: dict[str, Any]) -> Iterator[Drawing]:
    """The stages of starts; nothing where none took time."""
    if summary["scaling"] is not None and facts.span > 0 and not _only_lent(summary) and _rising(summary["scaling"]):
        yield _waterfall(summary["scaling"])


class Fleet:
    """One pool as its autoscaler saw it, averaged over bins of time; what it sees stays so until it looks again."""

    def __init__(self, facts: Facts, name: str):
        table = facts.result.tables["scaling"]
        mine = table["pool"] == table.label("pool", name)
        self.name, times = name, table["time"][mine]
        # Bins shorter than two looks would show its steps as teeth.
        self.edges = np.linspace(facts.begin, facts.end, int(np.clip(len(times) // 2, 2, BINS)) + 1)
        # It was at the beginning as at the first look, as far as is known.
        since, until = np.append(facts.begin, times[1:]), np.append(times[1:], facts.end)
        self.seen = {
            column: Bins(self.edges).add(since, until, table[column][mine].astype(float)).means()
            for column in ("ready", "starting", "draining", "wanted", "in_flight", "queued")
        }


def _fleets(facts: Facts) -> list[Fleet]:
    table = facts.result.tables["scaling"]
    names = [pool.name for pool in facts.result.scenario.cluster.pools if pool.autoscale is not None and len(table)]
    seen = {table.labels["pool"][code] for code in np.unique(table["pool"]).tolist()}
    return [Fleet(facts, name) for name in names if name in seen]


def _replicas(facts: Facts, fleet: Fleet) -> Drawing:
    edges, seen = fleet.edges, fleet.seen
    held = Bins(edges)
    table = facts.result.tables["held"]
    if len(table):
        held.add(table["start"], np.where(np.isnan(table["end"]), facts.end, table["end"]))
    door = held.means()
    several = len(facts.pools) > 1
    name = f" of {fleet.name}" if several else ""
    late = " Replicas that were still starting while requests queued were wanted too late." if _too_late(seen) else ""
    note = (
        f"Ready replicas{name} went from {number(seen['ready'].min())} to {number(seen['ready'].max())}, with up to "
        f"{number(seen['starting'].max())} starting; {number(seen['in_flight'].max())} requests in flight and "
        f"{number(seen['queued'].max())} queued at most, averaged over a bin.{late}"
    )

    def there(axes: Any, clock: float) -> None:
        times, below = edges / clock, np.zeros(len(edges) - 1)
        for state, colour, alpha in (("ready", 2, 0.75), ("starting", 1, 0.75), ("draining", 3, 0.6)):
            if seen[state].any():
                axes.stairs(below + seen[state], times, baseline=below, color=SERIES[colour], fill=True, alpha=alpha, label=state)
                below = below + seen[state]
        axes.stairs(seen["wanted"], times, color=SERIES[0], linestyle="--", baseline=None, label="wanted")
        axes.set_title("replicas", pad=20)
        axes.legend(ncols=4, handlelength=1.2, **LEGEND)
        axes.set_ylim(bottom=0)

    def asked(axes: Any, clock: float) -> None:
        times = edges / clock
        axes.stairs(seen["in_flight"], times, color=SERIES[0], baseline=None, label="in flight")
        if seen["queued"].max() >= SEEN * seen["in_flight"].max():
            axes.stairs(seen["queued"], times, color=SERIES[1], fill=True, alpha=0.5, label="of them queued")
        if door.any():
            axes.stairs(door, times, color=SERIES[3], baseline=None, linestyle=":", label="held at the front door")
        axes.set_title("requests", pad=20)
        axes.legend(ncols=3, handlelength=1.2, **LEGEND)
        axes.set_ylim(bottom=0)

    def came(axes: Any, clock: float) -> None:
        _arrivals(axes, facts, clock)
        axes.set_ylim(bottom=0)

    return over_time(f"Replicas{name} against requests", note, facts, there, asked, came)


def _too_late(seen: dict[str, np.ndarray]) -> bool:
    """Whether a request and more queued at a ready replica while others were starting."""
    return bool(((seen["starting"] >= 0.5) & (seen["queued"] >= np.maximum(seen["ready"], 1.0))).any())


def _arrivals(axes: Any, facts: Facts, clock: float) -> None:
    bins = int(np.clip(len(facts.result.tables["requests"]) // 20, 12, BINS))
    edges = np.linspace(facts.begin, facts.end, bins + 1)
    counts = sum((np.histogram(page["arrival"], edges)[0] for page in facts.requests()), np.zeros(bins))
    axes.stairs(counts / np.diff(edges), edges / clock, color=SERIES[0], fill=True, alpha=0.75)
    axes.set_title("arrivals per second")


def _waterfall(found: dict[str, Any]) -> Drawing:
    """Each stage begins where the mean of those before it ended; a thin line reaches to the stage's 95th percentile."""
    stages = list(_rising(found).items())
    weights = {name: stage["count"] * stage["mean"] for name, stage in stages}
    most = max(weights, key=lambda name: weights[name])
    share = weights[most] / sum(weights.values())
    note = f"Longest: {STAGES[most]}, {share:.0%} of all starting time. Bars are means, thin lines reach to a stage's 95th percentile."
    begins = np.concatenate([[0.0], np.cumsum([stage["mean"] for _, stage in stages])])
    ends = [begin + max(stage["mean"], stage["p95"]) for (_, stage), begin in zip(stages, begins, strict=False)]

    def draw(axes: Any) -> None:
        for row, ((name, stage), begin, far) in enumerate(zip(stages, begins, ends, strict=False)):
            axes.barh(row, stage["mean"], left=begin, color=SERIES[1 if name == most else 0], alpha=0.75, height=0.6)
            axes.plot([begin + stage["mean"], begin + stage["p95"]], [row, row], color=SERIES[3], linewidth=1.4)
            axes.annotate(seconds(stage["mean"]), (far, row), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(stages)), [STAGES[name] for name, _ in stages])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * max(ends))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds since it was wanted")

    return Drawing("From wanted to ready", note, (draw,))
