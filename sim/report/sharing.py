"""Shared GPUs on a page: those that a pool lent to another one, and those that a trainer and the engines of a pool have in turn."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import BINS, LEGEND, Drawing, Plot, over_time
from sim.report.section import Panel, Sheet
from sim.report.svg import CARD, INK, SERIES, STYLE, svg
from sim.report.words import number, percent, scaled, seconds
from sim.spec.lending import lenders
from sim.study.facts import Bins
from sim.study.metrics import Facts

HOUR = 3600.0
SEEN = 0.004  # share of a bar that can be seen
# What GPUs do that a trainer has in turn with engines, in the order they are stacked: words, colour, opacity.
STATES = {
    "generating": ("engines in steps", SERIES[2], 0.75), "idle": ("engines idle", INK, 0.2), "paused": ("engines paused", SERIES[3], 0.3),
    "switch": ("changing hands", SERIES[4], 0.75), "logprob": ("log-probabilities", SERIES[0], 0.4),
    "reference": ("the reference's", SERIES[0], 0.2), "update": ("updates", SERIES[0], 0.85), "publish": ("weights out", SERIES[1], 0.85),
    "data": ("data awaited", SERIES[3], 0.55), "checkpoint": ("checkpoints", SERIES[3], 0.85), "validate": ("validation", SERIES[4], 0.4),
    "reward": ("rewards awaited", SERIES[1], 0.5), "trainer_wait": ("trainer waits", SERIES[1], 0.25), "down": ("trainer down", INK, 0.5),
}  # fmt: skip
OTHERS = (SERIES[4], 0.3)
# The same of GPUs that a pool lends: owner's first.
WORK = {"busy": ("in steps", 0.8), "idle": ("idle", 0.25), "paused": ("paused", 0.5)}
KINDS = ("lend", "take_back")


def cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, more) of GPUs that were lent."""
    return [
        (f"GPUs of {one['owner']} lent to {name}", percent(one["share"]),
         f"of their time; for {percent(one['traffic']['of_requests'])} of the requests of its workloads")
        for name, one in (summary["lending"] or {}).items()
    ]  # fmt: skip


def panels(summary: dict[str, Any]) -> list[Panel]:
    """Who lent GPUs to whom, and what became of requests."""
    return [Panel(f"GPUs of {one['owner']} lent to {name}", _rows(one)) for name, one in (summary["lending"] or {}).items()]


def _rows(one: dict[str, Any]) -> list[tuple[str, str]]:
    there, back = ([one[kind].get(key, 0) for key in ("count", "sent_on", "called_off")] for kind in KINDS)
    traffic = one["traffic"]
    return [
        ("GPU-hours lent", number(one["gpu_hours"])), ("Of the time of the owner's GPUs", percent(one["share"])),
        ("Replicas lent, taken back", f"{there[0]:,}, {back[0]:,}"),
        ("Requests sent on to other replicas", f"{there[1] + back[1]:,}"), ("Requests called off", f"{there[2] + back[2]:,}"),
        ("Requests served on lent GPUs", f"{traffic['requests']:,}"),
        ("Of all that its workloads sent", percent(traffic["of_requests"])),
        ("The same of output tokens", percent(traffic["of_output_tokens"])),
    ]  # fmt: skip


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """What a hand-over takes, part by part; what shared GPUs did."""
    lent = summary["lending"] or {}
    rows = [
        [f"{giver} to {taker}", f"{found['count']:,}", _part(found["emptied_s"], "mean"), _part(found["emptied_s"], "p99"),
         _part(found["out_s"], "mean"), _part(found["in_s"], "mean"), _part(found["switch_s"], "mean"),
         f"{found['sent_on']:,}", f"{found['called_off']:,}"]
        for name, one in lent.items()
        for found, giver, taker in ((one["lend"], one["owner"], name), (one["take_back"], name, one["owner"])) if found["count"]
    ]  # fmt: skip
    heads = ("From, to", "Times", "Until empty", "Its p99", "Weights out", "Weights in", "Both ways", "Sent on", "Called off")
    note = (
        "Means over hand-overs of a replica. Until empty: from when it takes no more requests until it has none. Both ways: from then "
        "until the other one serves; where seconds are stated for that, they count as weights in."
    )
    return [Sheet("How GPUs change hands", heads, rows, note), *_times(summary)]


def _part(spread: dict[str, float] | None, part: str) -> str:
    return seconds((spread or {}).get(part))


def _times(summary: dict[str, Any]) -> Iterator[Sheet]:
    for what, parts in _bars(summary):
        total = sum(value for *_, value in parts)
        if total:
            rows = [[words, number(value / HOUR), percent(value / total)] for words, _, _, value in parts if value]
            yield Sheet(f"What {what} did", ("State", "GPU-hours", "Share"), rows, "They sum to the GPUs times the run, whoever had them.")


def _bars(summary: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str, float, float]]]]:
    """What GPUs these are; of each state its words, colour, opacity and GPU-seconds, in the order they are stacked."""
    for name, one in (summary["lending"] or {}).items():
        of = one["gpu_seconds"]
        parts = [(f"{pool} {words}", SERIES[2 * place], alpha, of[pool][state])
                 for place, pool in enumerate((one["owner"], name)) for state, (words, alpha) in WORK.items()]  # fmt: skip
        parts.insert(len(WORK), ("changing hands", SERIES[4], 0.75, sum(of[pool]["switch"] for pool in of)))
        yield f"the GPUs of {one['owner']}", parts
    for name, spent in (summary["shared_gpus"] or {}).items():
        known = [(words, colour, alpha, spent.get(state, 0.0)) for state, (words, colour, alpha) in STATES.items()]
        others = [(state.replace("_", " "), *OTHERS, value) for state, value in spent.items() if state not in STATES]
        yield f"the GPUs that {name} shares", known + others


def plots(facts: Facts, summary: dict[str, Any]) -> Iterator[Plot]:
    """Where the time of shared GPUs went, and who had those that were lent."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        for what, parts in _bars(summary):
            if sum(value for *_, value in parts):
                yield _bar(what, parts)
    yield from (one.plot() for one in turns(facts).values())


def turns(facts: Facts) -> dict[str, Drawing]:
    """Who had the GPUs that were lent, by the name of the borrower."""
    every = lenders(facts.result.scenario.cluster) if facts.span > 0 else {}
    return {name: _turns(facts, name, owner.name) for name, owner in every.items()}


def _bar(what: str, parts: list[tuple[str, str, float, float]]) -> Plot:
    from matplotlib.figure import Figure

    total = sum(value for *_, value in parts)
    biggest = sorted(parts, key=lambda part: -part[3])[:3]
    title = f"What {what} did"
    said = ", ".join(f"{words} {percent(value / total)}" for words, *_, value in biggest if value)
    note = f"Of {scaled(total / HOUR)} GPU-hours: {said}."
    drawn = Figure(figsize=(4.3, 2.2), layout="constrained")
    axes, left = drawn.subplots(), 0.0
    for words, colour, alpha, value in parts:
        share = 100 * value / total
        if share / 100 > SEEN:
            axes.barh(0, share, left=left, color=colour, alpha=alpha, height=0.8, label=words)
            if share >= 9:
                axes.annotate(f"{share:.0f}%", (left + share / 2, 0), ha="center", va="center", fontsize=8.5, color=INK,
                              bbox={"boxstyle": "round,pad=0.15", "facecolor": CARD, "edgecolor": "none", "alpha": 0.85})  # fmt: skip
            left += share
    axes.set_xlim(0, 100)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the time of these GPUs, %")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=1.2, columnspacing=1.2, borderpad=0)
    return Plot(title, note, svg(drawn, title, f"{title}. {note}"))


def _turns(facts: Facts, borrower: str, owner: str) -> Drawing:
    """GPUs of replicas that serve, the owner's and the borrower's, and those between the two."""
    edges, table, replicas = np.linspace(facts.begin, facts.end, BINS + 1), facts.result.tables["lendings"], facts.replicas
    end, ready = replicas["end"].copy(), np.where(np.isnan(replicas["ready"]), replicas["end"], replicas["ready"])
    gone = ~np.isnan(table["empty"])
    end[table["giver"][gone]] = table["empty"][gone]
    pools = np.array(facts.pool_of_replica)
    serving = [Bins(edges).add(ready[pools == name], end[pools == name], facts.gpus[pools == name]).means() for name in (owner, borrower)]
    moved = gone & np.isin(table["giver"], np.flatnonzero(np.isin(pools, [owner, borrower])))
    until = np.where(np.isnan(table["served"]), facts.end, table["served"])
    between = Bins(edges).add(table["empty"][moved], until[moved], facts.gpus[table["giver"][moved]]).means()
    most = max(float(serving[1].max()), 0.0)
    note = f"{borrower} had up to {number(most)} of the GPUs of {owner}, averaged over a bin; {len(table)} hand-overs of a replica."

    def draw(axes: Any, clock: float) -> None:
        below, times = np.zeros(len(edges) - 1), edges / clock
        for words, values, colour, alpha in (
            (owner, serving[0], SERIES[0], 0.75), ("changing hands", between, SERIES[4], 0.75), (borrower, serving[1], SERIES[2], 0.75),
        ):  # fmt: skip
            axes.stairs(below + values, times, baseline=below, color=colour, alpha=alpha, fill=True, label=words.lstrip("_"))
            below = below + values
        axes.set_title("GPUs", pad=20)
        axes.set_ylim(bottom=0)
        axes.legend(ncols=3, handlelength=1.2, **LEGEND)

    return over_time(f"Who had the GPUs of {owner}", note, facts, draw)
