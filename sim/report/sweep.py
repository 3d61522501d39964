"""A sweep as one page and as a block of text: which values give which figures, each figure drawn against each key."""
from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from sim.report import folder
from sim.report.intervals import SHARES, give_or_take, shown
from sim.report.plots import DASHES, Plot
from sim.report.svg import SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import DASH, number
from sim.spec.load import dump
from sim.study.figures import main
from sim.study.replicate.interval import student
from sim.study.sweep.result import Sweep

MOST_FIGURES, MOST_KEYS, MOST_ROWS, MOST_LINES = 6, 6, 500, 40  # drawn, drawn, in the page's table, in the text's
# One or two of each kind of what people look at, where none are asked for.
FIRST = (
    "agents.task_time_s.p95", "rl.*.step_s.mean", "rl.*.trainer_idle_frac", "training.*.mfu", "ttft_s.p99", "tpot_s.p99",
    "throughput.output_tokens_per_s", "slo.attainment", "gpu.busy_fraction", "cost.usd_per_million_output_tokens",
)  # fmt: skip
TICKS = 8
DECADE = 10.0  # from the smallest to the largest value: beyond it an axis is logarithmic
WIDE, BROAD, LABEL = 14, 60, 60  # letters of a label under a plot, of a cell of the text, and of the name of a line


def render(found: Sweep) -> str:
    """The page."""
    names = chosen(found)
    heads, rows = table(found, names)
    lost = [(*row[: 1 + len(found.keys)], row[-1]) for row in rows if row[-1]] if found.failed else []
    rows = [row[:-1] for row in rows] if found.failed else rows
    return fill(
        "sweep", lost=lost[:MOST_ROWS], name=found.scenario.name, description=found.scenario.description,
        said=said(found), done=len(found.rows), wanted=found.wanted, heads=heads[: len(rows[0])], rows=rows[:MOST_ROWS], all=len(rows),
        ends=ends(found, names), plots=plots(found, names), scenario=dump(found.scenario), files=folder.of_sweep(len(found.rows)),
    )  # fmt: skip


def block(found: Sweep) -> str:
    """The table as text, ending without a newline."""
    heads, rows = table(found, chosen(found)[:MOST_FIGURES])
    lines = [heads, *([cell if len(cell) <= BROAD else f"{cell[: BROAD - 3]}..." for cell in row] for row in rows[:MOST_LINES])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    more = [f"and {len(rows) - MOST_LINES:,} more points"] if len(rows) > MOST_LINES else []
    return "\n".join([*text, *more, said(found)])


def chosen(found: Sweep) -> list[str]:
    """The figures that are shown: those asked for, else those people look at first."""
    assert found.scenario.sweep is not None
    asked = [name for name in found.scenario.sweep.figures if name in found.figures]
    first = [name for pattern in FIRST for name in found.figures if fnmatchcase(name, pattern)]
    return asked or first or main(found.figures) or found.figures[:MOST_FIGURES]


def said(found: Sweep) -> str:
    """How much was run, in words."""
    assert found.scenario.sweep is not None
    spec, count = found.scenario.sweep, len({row["point"] for row in found.rows})
    times = f", {spec.replications} replications each with the same seeds" if spec.replications > 1 else ""
    ways = {"grid": "every combination of the values", "list": "the points of a list", "random": "points drawn at random",
            "latin_hypercube": "a Latin hypercube"}  # fmt: skip
    failed = f" {found.failed} of {len(found.rows)} runs have no figures." if found.failed else ""
    broken = sum(row["audit_ok"] is False for row in found.rows)
    audit = f" The audit of {broken} runs failed: do not use their figures." if broken else ""
    return f"{count:,} point{'s' * (count != 1)} ({ways[spec.way]}){times}.{failed}{audit}"


def table(found: Sweep, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows, one row for each point: its keys, its verdict, its figures, and why it has none."""
    failed = bool(found.failed)
    heads = ["point", *_short(found.keys), "verdict", *names, *(["error"] if failed else [])]
    return heads, [_row(number_, mine, found.keys, names, failed) for number_, mine in found.frame.groupby("point")]


def _row(point: Any, mine: pd.DataFrame, keys: Sequence[str], names: Sequence[str], failed: bool) -> list[str]:
    errors = mine["error"].dropna().tolist()
    verdicts = mine["verdict"].value_counts().to_dict()
    verdict = ", ".join(verdicts if len(verdicts) < 2 else [f"{count} {word}" for word, count in verdicts.items()]) or DASH
    cells = [_figure(name, mine[name].dropna().astype(float).tolist()) for name in names]
    return [str(point), *(_value(mine[key].iloc[0]) for key in keys), verdict, *cells, *([errors[0] if errors else ""] if failed else [])]


def ends(found: Sweep, names: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """Of each figure its least and its greatest mean, and where they are."""
    means, lines = found.means(list(names)), []
    for name in names:
        column = means[name].dropna()
        if len(column) > 1 and column.min() < column.max():
            low, high = means.loc[column.idxmin()], means.loc[column.idxmax()]
            least, most = shown(name, [float(low[name])])[0], shown(name, [float(high[name])])[0]
            if least != most:
                lines.append((name, least, _where(found, low), most, _where(found, high)))
    return lines


def plots(found: Sweep, names: Sequence[str]) -> list[Plot]:
    """Each figure against each key that has several values; means over replications."""
    from matplotlib import rc_context

    means, short = found.means(list(names)), dict(zip(found.keys, _short(found.keys), strict=True))
    means = means[means["runs"] > 0]
    several = [key for key in found.keys if not _same(means[key])]
    figures = [name for name in names if len({shown(name, [float(mean)])[0] for mean in means[name].dropna()}) > 1][:MOST_FIGURES]
    with rc_context(STYLE):
        return [_plot(means, name, key, several, short) for name in figures for key in several[:MOST_KEYS]]


def _plot(means: pd.DataFrame, name: str, key: str, keys: Sequence[str], short: dict[str, str]) -> Plot:
    """A line for each combination of the other keys where they are few; else all points, and the median of each value of the key."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axes = figure.subplots()
    here, others = means.dropna(subset=[name]), [one for one in keys if one != key]
    numeric = pd.api.types.is_numeric_dtype(here[key]) and not pd.api.types.is_bool_dtype(here[key])
    places = here[key].astype(float) if numeric else pd.Series(pd.factorize(here[key])[0], index=here.index).astype(float)
    lines = list(here.groupby(others, sort=all(pd.api.types.is_numeric_dtype(here[one]) for one in others))) if others else [((), here)]
    if len(lines) <= len(SERIES) and (not others or len(lines) < len(here)):
        for number_, (values, line) in enumerate(lines):
            order = places[line.index].sort_values(kind="stable").index
            label = ", ".join(f"{short[one]} {_value(value)}" for one, value in zip(others, values, strict=True))
            axes.plot(places[order], line.loc[order, name], marker="o", markersize=3.5, color=SERIES[number_], linestyle=DASHES[number_],
                      label=label if len(label) <= LABEL else f"{label[: LABEL - 1]}…")  # fmt: skip
        note = "Means over replications." if (means["runs"] > 1).any() else "One run of each point."
        if others:
            longest = max(len(text) for text in axes.get_legend_handles_labels()[1])
            figure.legend(loc="outside upper left", ncols=min(max(LABEL // (longest + 6), 1), 3), borderpad=0, columnspacing=1.2)
    else:
        axes.plot(places, here[name], "o", markersize=2.5, color=SERIES[0], alpha=0.6)
        middle = here[name].groupby(places).median()
        if len(middle) < len(here) / 2:
            axes.plot(middle.index, middle, color=SERIES[1])
        vary = "varies" if len(others) == 1 else "vary"
        note = f"Each dot a point of the sweep; {', '.join(short[one] for one in others)} {vary} as well." + (
            " The line joins medians." if len(middle) < len(here) / 2 else "")  # fmt: skip
    axes.set_xlabel(short[key])
    if numeric:
        _scale(axes, "x", places, few=True)
    else:
        labels = list(dict.fromkeys(_value(value) for value in here[key]))
        axes.set_xticks(range(len(labels)), [label if len(label) <= WIDE else f"{label[: WIDE - 1]}…" for label in labels])
    _scale(axes, "y", here[name], share=name.endswith(SHARES))
    title = f"{name} by {short[key]}"
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _same(values: pd.Series[Any]) -> bool:
    return bool((values == values.iloc[0]).all()) if len(values) else True


def _scale(axes: Any, which: str, values: pd.Series[Any], few: bool = False, share: bool = False) -> None:
    """A logarithmic axis for what differs by more than a decade, but for shares of a whole; else one from 0 where it is the figure's.
    `few`: the ticks are the values themselves, where they are few.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if not share and values.min() > 0 and values.max() / values.min() > DECADE:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() / values.min() < 6 * DECADE else (1,)))
        axis.set_minor_formatter(NullFormatter())
    elif not few and values.min() >= 0:
        axes.set_ylim(0, 1.05 * values.max() or None)
    if few and values.nunique() <= TICKS:
        axis.set_ticks(sorted(values.unique()))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _figure(name: str, values: Sequence[float]) -> str:
    """The mean of the replications, give or take half its interval where there are several."""
    if not values:
        return DASH
    return give_or_take(name, student(values)) if len(values) > 1 else shown(name, [values[0]])[0]


def _short(keys: Sequence[str]) -> list[str]:
    """The last words of keys, as many as tell them apart.

    >>> _short(["cluster.pools.0.replicas", "cluster.pools.1.replicas", "workloads.0.rate"])
    ['0.replicas', '1.replicas', 'rate']
    """
    found = []
    for key in keys:
        words = key.split(".")
        ways = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        found.append(next(way for way in ways if sum(other == way or other.endswith(f".{way}") for other in keys) == 1 or way == key))
    return found


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    if value is None or value != value:
        return DASH
    return value if isinstance(value, str) else number(float(value)) if abs(value) < 1e6 else f"{value:.4g}"


def _where(found: Sweep, row: pd.Series[Any]) -> str:
    return ", ".join(f"{short} {_value(row[key])}" for key, short in zip(found.keys, _short(found.keys), strict=True))
