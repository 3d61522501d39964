"""How far predictions lie from measured runs: one HTML page with scatter plots, and the same tables as Markdown (ACCURACY.md).

Both are written from a `Summary` alone, so that no figure is typed by hand and every miss is shown as it is.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sim.core.errors import BadInput
from sim.report import folder as beside
from sim.report.plots import Plot
from sim.report.section import Card
from sim.report.svg import GRID, INK, SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import number, percent, seconds
from sim.spec.hardware import gpu, gpu_names
from sim.study.shelf import put
from sim.study.validate import Summary

FAMILIES = (
    ("TTFT, ms", "ttft"), ("TPOT, ms", "tpot"), ("ITL, ms", "itl"), ("E2E, ms", "e2e"), ("Output tokens per second", "output_tok_s"),
)  # fmt: skip
FOOTER = (
    "TTFT: time to first token. TPOT: time per output token. ITL: inter-token latency. E2E: end to end. Bias: median of predicted / "
    "measured - 1."
)
BAND = 0.1
MARKERS = ("o", "s", "^", "D", "v")
STATS = ("n", "median_ape", "mape", "p90", "bias")
HEAD = ("runs", "median", "mean", "p90", "bias")


class Table(NamedTuple):
    """Rows of cells; the first `texts` columns are words, the others figures."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: int
    note: str = ""


def save(summary: Summary, folder: Path) -> None:
    """Write accuracy.html and ACCURACY.md, each whole or not at all. Raises BadInput when the folder cannot be written."""
    try:
        put(folder, {"accuracy.html": page(summary), "ACCURACY.md": markdown(summary)})
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error


def page(summary: Summary) -> str:
    """One page that needs nothing else: no network, the plots and the script inline."""
    files = beside.of_accuracy(
        errors=len(summary.errors), held_out=len(summary.held), requests=len(summary.requests), could_not=len(summary.could_not)
    )
    return fill(
        "accuracy", figures=summary.figures, cards=_cards(summary), plots=_plots(summary.errors), tables=tables(summary), footer=FOOTER,
        files=files,
    )


def markdown(summary: Summary) -> str:
    """The text of ACCURACY.md: what was compared, goals, errors by group, assumptions, and what could not be done."""
    figures = summary.figures
    lines = [
        "# Accuracy", "",
        f"Written by `burstsim validate` ({figures['version']}) from {figures['table']}; do not edit. "
        f"{figures['predicted']} of {figures['rows']} measured runs were simulated. Errors are absolute percentage errors of each run's "
        "figure; bias is the median of predicted / measured - 1. Leave-one-model-out: the host's and the front end's constant of an "
        "engine on a GPU are fitted end to end on the runs of all other models.", "",
    ]  # fmt: skip
    for table in tables(summary):
        lines += [f"## {table.title}", "", *markdown_rows(table), *([f"\n{table.note}"] if table.note else []), ""]
    return "\n".join(lines).rstrip() + "\n"


def tables(summary: Summary) -> list[Table]:
    """What both forms show, in order."""
    held, errors = summary.figures["leave_one_model_out"], summary.figures["errors"]
    fine = ("metric", "source", "engine", "gpu")
    return [
        _goals(summary),
        _grouped("Errors by figure", errors["metric"], ("metric",)),
        _grouped("By source, engine and GPU", _main(errors[" x ".join(fine)]), fine),
        _grouped("By model", _main(errors["metric x model"]), ("metric", "model")),
        _grouped("Leave-one-model-out, by source, engine and GPU", _main(held[" x ".join(fine)]), fine),
        _grouped("Leave-one-model-out, by model", _main(held["metric x model"]), ("metric", "model")),
        _constants(summary), _releases(summary), _kernels(), _assumed(summary), _could_not(summary),
    ]  # fmt: skip


def _kernels() -> Table:
    """Errors of every fitted kernel, from the profiles: on the shapes held out that are cold, as an engine meets them."""
    rows = []
    for name in gpu_names():
        for fit in gpu(name).fits:
            if fit.origin == name and fit.errors is not None:
                shown = fit.errors
                rows.append((
                    name, fit.op, fit.dtype, fit.framework, fit.library, f"{fit.points:,}", f"{shown.points:,}", percent(shown.median),
                    percent(shown.p95),
                ))  # fmt: skip
    head = ("gpu", "kernel", "dtype", "framework", "library", "fitted to", "held out", "median", "p95")
    return Table("Kernels, on shapes held out", head, rows, 5)


def _goals(summary: Summary) -> Table:
    rows = [
        (goal["goal"], percent(goal["wanted"]), percent(goal["found"]), f"{goal['n']:,}", "yes" if goal["met"] else "no")
        for goal in summary.goals
    ]  # fmt: skip
    return Table("Goals", ("goal", "wanted", "found", "figures", "met"), rows, 1)


def _grouped(title: str, entries: list[dict[str, Any]], keys: tuple[str, ...]) -> Table:
    rows = [(*(entry[key] for key in keys), f"{entry['n']:,}", *(percent(entry[stat]) for stat in STATS[1:])) for entry in entries]
    return Table(title, (*keys, *HEAD), rows, len(keys))


def _main(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means, medians where they are all there is, and throughput: percentiles are in summary.json."""
    wanted = re.compile(r"_mean$|_p50$|^output_tok_s|^kv_blocks$|^duration$")
    return [entry for entry in entries if wanted.search(entry["metric"])]


def _constants(summary: Summary) -> Table:
    rows = [
        (entry["engine"], entry["gpu"], f"{entry['runs']:,}",
         *(seconds(entry[which].get(name)) for name in ("host_overhead", "frontend_overhead") for which in ("in_use", "fitted")))
        for entry in summary.constants
    ]  # fmt: skip
    head = ("engine", "GPU", "runs", "host, in use", "host, fitted", "front end, in use", "front end, fitted")
    return Table("Constants of engines", head, rows, 2, "Fitted end to end on the lightly loaded runs of all models.")


def _releases(summary: Summary) -> Table:
    """What each release asks for; a profile has a figure of its own where that is nearer to models not fitted on than the one for all."""
    rows = [
        (entry["engine"], entry["gpu"], entry["release"], "host" if entry["constant"] == "host_overhead" else "front end",
         f"{entry['models']:,}", f"{entry['runs']:,}",
         *(seconds(entry[key]) for key in ("in_use", "fitted", "off_in_use", "off_release", "off_all")))
        for entry in summary.releases
    ]  # fmt: skip
    head = ("engine", "GPU", "release", "constant", "models", "light runs", "in use", "fitted", "off: in use", "of release", "of all")
    note = (
        "Off: mean distance over models of what a model's light runs ask for from a constant: the one in use, and two that were fitted "
        "without the model, to the others of its release and to those of all releases."
    )
    return Table("Constants of engines by release", head, rows, 4, note)


def _assumed(summary: Summary) -> Table:
    rows = [(text, f"{count:,}") for text, count in summary.assumed.items()]
    return Table("Assumed where the table does not say", ("assumption", "runs"), rows, 1)


def _could_not(summary: Summary) -> Table:
    """Reasons with how many rows they are for; each row is in could_not.csv."""
    reasons = Counter(entry["why"] for entry in summary.could_not)
    first = {entry["why"]: entry["run_id"] for entry in reversed(summary.could_not)}
    rows = [(why, first[why], f"{count:,}") for why, count in reasons.most_common()]
    return Table("Could not be done", ("why", "first row", "rows"), rows, 2, "" if rows else "Every chosen row was simulated.")


def markdown_rows(table: Table) -> list[str]:
    """A table as Markdown; none where it has no rows."""
    marks = ["---" if i < table.texts else "---:" for i in range(len(table.head))]
    cells = [table.head, tuple(marks), *table.rows] if table.rows else []
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells]


def _cards(summary: Summary) -> list[Card]:
    cards: list[Card] = []
    for title, family in FAMILIES:
        part = _family(summary.errors, family)
        if len(part):
            more = f"median error, {len(part):,} runs; mean {percent(float(part['ape'].mean()))}"
            cards.append(Card(title.split(",")[0], percent(float(part["ape"].median())), more))
    met = sum(goal["met"] for goal in summary.goals)
    return [*cards, Card("Goals met", f"{met} of {len(summary.goals)}", f"{number(summary.cpu_s)} CPU-seconds")]


def _family(errors: pd.DataFrame, family: str) -> pd.DataFrame:
    """One figure per run: the mean, or the median where no mean was measured."""
    if family == "output_tok_s":
        return errors[errors["metric"] == family]
    part = errors[errors["metric"].isin((f"{family}_mean", f"{family}_p50"))]
    return part.sort_values("metric").drop_duplicates("run_id")


def _plots(errors: pd.DataFrame) -> list[Plot]:
    import matplotlib

    matplotlib.use("Agg")
    drawn: list[Plot] = []
    for title, family in FAMILIES:
        part = _family(errors, family)
        if len(part):
            note = f"{len(part):,} runs, median error {percent(float(part['ape'].median()))}; the band is 10% about the diagonal."
            drawn.append(Plot(title, note, _scatter(part, "source", family)))
    for by in ("gpu", "engine"):
        for title, family in FAMILIES[:2]:
            part = _family(errors, family)
            if len(part[by].unique()) > 1:
                name = "GPU" if by == "gpu" else by
                drawn.append(Plot(f"{title}, by {name}", f"The same runs by {name}.", _scatter(part, by, family)))
    return drawn


def square(axis: Any, ends: Sequence[float]) -> None:
    """The same logarithmic scale from end to end on both sides, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axis.set_box_aspect(1)
    # Less than two decades have too few powers of ten to read a scale from.
    spans = ((4, (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)), (100, (1, 2, 5)))
    subs = next((subs for span, subs in spans if ends[1] < span * ends[0]), (1,))
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=subs, numticks=12))
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _scatter(part: pd.DataFrame, by: str, salt: str) -> str:
    from matplotlib import pyplot

    look: Any = STYLE
    groups = part[by].str.split("/").str[0] if by == "source" else part[by]
    order = groups.value_counts().index[: len(SERIES)]
    with pyplot.rc_context(look):
        figure, axis = pyplot.subplots(figsize=(4.6, 4.2), layout="constrained")
        values = part[["measured", "predicted"]].to_numpy()
        ends = np.array([values.min() / 1.3, values.max() * 1.3])
        axis.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=GRID, alpha=0.6, linewidth=0)
        axis.plot(ends, ends, color=INK, linewidth=0.8)
        for place, name in enumerate(order):
            # What is left over is drawn with the last group rather than not at all.
            some = part[(groups == name) if place < len(SERIES) - 1 else ~groups.isin(order[:place])]
            style: dict[str, Any] = {"s": 9, "alpha": 0.55, "linewidths": 0, "color": SERIES[place], "marker": MARKERS[place]}
            axis.scatter(some["measured"], some["predicted"], label=f"{name} {percent(float(some['ape'].median()))}", **style)
        axis.set(xlabel="measured", ylabel="predicted")
        square(axis, ends)
        axis.legend(loc="upper left", fontsize=8, markerscale=2, handletextpad=0.2)
        text = svg(figure, f"{salt}-{by}", f"predicted against measured, {len(part)} runs by {by}")
        pyplot.close(figure)
    return text
