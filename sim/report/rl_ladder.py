"""A ladder of reinforcement learning, such as one over modes or over splits of the GPUs: the step of each rung and what it goes to, what
of it was gained and lost against the first, and why.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sim.report.plots import Plot
from sim.report.rl import PARTS as LONG
from sim.report.rl_plots import PARTS
from sim.report.svg import INK, SERIES, STYLE, svg
from sim.report.words import dollars, number, percent, seconds
from sim.study.rl.compare import Comparison, compare_figures

HEADS = ("Step", "GPUs", "Mode", "A step", "Times as fast", "Per GPU", "Trainer waits", "Engines idle", "Bubble", "Staleness", "$ a step")
BESIDE = ("Step", "Other requests", "Completed", "First token, p50", "p95", "End, p50", "p95", "GPUs of engines busy")
SEEN = 0.004  # share of the longest step that can be seen
# Causes in the order they are stacked: words, colour, opacity.
LOOKS = {
    "overlap": ("overlap", SERIES[2], 0.8), "generation": ("generation", SERIES[2], 0.35), "recompute": ("computed again", SERIES[3], 0.8),
    "logprob": ("log-probabilities", SERIES[0], 0.35), "update": ("updates", SERIES[0], 0.8), "reward": ("rewards", SERIES[4], 0.75),
    "sync": ("weights, switches", SERIES[1], 0.8), "other": ("the rest", INK, 0.3),
}  # fmt: skip


class Learned(NamedTuple):
    """What the page of a ladder shows: who won and why, line by line, rows of cells as in `HEADS`, drawings, and where there is other
    traffic what it got, rows of cells as in `BESIDE`.
    """

    lines: list[str]
    rows: list[list[str]]
    plots: list[Plot]
    others: list[list[str]]


def learned(rows: Sequence[Mapping[str, Any]]) -> Learned | None:
    """None where a rung has no run of reinforcement learning, or several; `rows` are those of a ladder."""
    found = compared(rows)
    if found is None:
        return None
    from matplotlib import rc_context

    with rc_context(STYLE):
        drawn = [_steps(found.rows), *([_terms(found.rows)] if len(found.rows) > 1 else [])]
    return Learned(found.lines, [cells(row) for row in found.rows], drawn, beside(rows))


def compared(rows: Sequence[Mapping[str, Any]]) -> Comparison | None:
    """Each rung against the first."""
    if not rows or not all(row.get("rl") for row in rows):
        return None
    return compare_figures({row["name"]: row["rl"] for row in rows})


def cells(row: Mapping[str, Any]) -> list[str]:
    """A rung as people read it."""
    gpus = row["gpus"]
    split = f"{gpus['all']:,}" if gpus["all"] < gpus["rollout"] + gpus["train"] else f"{gpus['rollout']:,} + {gpus['train']:,}"
    return [
        row["name"], split, row["mode"].replace("_", " "), seconds(row["step_s"]), f"× {row['speedup']:.2f}",
        f"× {row['speedup_per_gpu']:.2f}", percent(row["trainer_idle_frac"]), percent(row["rollout_idle_frac"]), percent(row["bubble"]),
        number(row["lag_mean"]), dollars(row["usd_per_step"]),
    ]  # fmt: skip


def beside(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What other traffic got on each rung; nothing where there is none."""
    if not all(row.get("others") for row in rows):
        return []
    return [[
        row["name"], f"{one['requests']:,}", f"{one['completed']:,}",
        *(seconds(one[name]) for name in ("ttft_p50", "ttft_p95", "e2e_p50", "e2e_p95")), percent(row["busy"]),
    ] for row in rows for one in [row["others"]]]  # fmt: skip


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table as text, and why; empty where there is nothing to compare."""
    found = compared(rows)
    if found is None:
        return []
    others = beside(rows)
    return [*_table([list(HEADS), *(cells(row) for row in found.rows)]), *(_table([list(BESIDE), *others]) if others else []), *found.lines]


def _table(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    widths[0] *= -1
    return ["  ".join(f"{cell:{'<' if w < 0 else '>'}{abs(w)}}" for cell, w in zip(line, widths, strict=True)) for line in table]


def _steps(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """One bar for each rung, its parts one after the other."""
    title = "A step of each rung, and what it goes to"
    longest = max(row["step_s"] for row in rows)
    shares = [{part: max(spent, 0.0) / sum(row["breakdown"].values()) for part, spent in row["breakdown"].items()} for row in rows]
    used = [part for part in LONG if any(share[part] * row["step_s"] > SEEN * longest for share, row in zip(shares, rows, strict=True))]
    note = "What the trainer does or waits for, mean seconds: " + "; ".join(_most(row) for row in rows) + "."
    axes, figure = _bars(rows)
    left = [0.0] * len(rows)
    for part in used:
        words, colour, alpha = PARTS["wait" if part == "generate" else part]
        widths = [share[part] * row["step_s"] for share, row in zip(shares, rows, strict=True)]
        axes.barh(range(len(rows)), widths, left=left, color=colour, alpha=alpha, height=0.62, label=words)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    for place, row in enumerate(rows):
        axes.annotate(seconds(row["step_s"]), (left[place], place), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.16 * longest)
    axes.set_xlabel("seconds")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _most(row: Mapping[str, Any]) -> str:
    part = max(row["breakdown"], key=lambda name: row["breakdown"][name])
    return f"{row['name']} {seconds(row['step_s'])}, most of it {LONG[part][0].lower()}{LONG[part][1:]}"


def _terms(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Seconds that each rung saves and loses against the first, by cause, to the right and to the left."""
    title = f"Gained and lost against {rows[0]['name']}"
    others = rows[1:]
    most = max(max(abs(value) for value in row["terms"].values()) for row in others)
    used = [name for name in LOOKS if any(abs(row["terms"][name]) > 0.02 * most for row in others)]
    note = "Seconds of a step: what gains is right of the line, what loses left of it; the dot is what is left of both."
    axes, figure = _bars(others)
    ahead, behind = [0.0] * len(others), [0.0] * len(others)
    for name in used:
        words, colour, alpha = LOOKS[name]
        for place, row in enumerate(others):
            side, value = (ahead if row["terms"][name] >= 0 else behind), row["terms"][name]
            axes.barh(place, value, left=side[place], color=colour, alpha=alpha, height=0.62, label="" if place else words)
            side[place] += value
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.plot([row["saved_s"] for row in others], range(len(others)), "o", color=INK, markersize=5)
    for place, row in enumerate(others):
        axes.annotate(f"{'+' if row['saved_s'] > 0 else '−'}{seconds(abs(row['saved_s']))}", (ahead[place], place), (7, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    axes.margins(x=0.14)
    axes.set_xlabel("seconds of a step")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _bars(rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """A figure with one line for each rung, the first on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, max(2.4, 1.3 + 0.3 * len(rows))), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return axes, figure
