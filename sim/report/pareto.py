"""A frontier as one page and as a block of text: what is fastest for a user, yields most per GPU, or is cheapest, and what lies between."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.report.decision import Card, Grid, Page, Part, columns
from sim.report.decision import render as page
from sim.report.folder import of_points
from sim.report.plots import DASHES, Plot
from sim.report.svg import SERIES, STYLE, svg
from sim.report.words import dollars, number, percent, seconds
from sim.spec.load import dump
from sim.study.plan.pareto import PRICE, SPEED, YIELD, Pareto

Row = Mapping[str, Any]
HEADS = ("Layout", "Load", "Tokens/s of a user", "Tokens/s of a GPU", "$/Mtok", "J/token", "TTFT p99", "TPOT p99", "SLO")
LAYOUTS = 15  # lines of a drawing that can be told apart
WIDE, KEY = 78, 9  # letters beside each other in a drawing, and what a line's key and the space around it take of them
LINE, INCH = 14.0, 72.0  # points of a line of the legend, and of an inch


def render(found: Pareto) -> str:
    """The page."""
    front = _front(found)
    note = (
        "Load: requests per second, or clients, of one replica; of traffic with neither, times what is written. Tokens/s of a user: one "
        "over the mean time per output token. $/Mtok: "
        "dollars per million output tokens, prompts included. Overloaded runs are on no frontier."
    )
    parts = [
        Part("The frontier", [Grid(HEADS, [_cells(row) for row in front], note)], _plots(found)),
        Part("Every point", [Grid(HEADS, [_cells(row) for row in found.rows], best=_places(found), folded=f"{len(found.rows)} runs")]),
    ]
    if found.refused:
        parts.append(Part("What cannot be", [Grid(("Layout", "Why"), found.refused, words=True)]))
    word = f"{len(front)} of {len(found.rows)} points"
    shown = Page(
        "a frontier", found.scenario.name, found.scenario.description, "stable", word, answer(found), [], _cards(front) if front else [],
        parts, dump(found.scenario), files=of_points("pareto", len(found.rows), "A row for each run, with every figure of it."),
    )  # fmt: skip
    return page(shown)


def block(found: Pareto) -> str:
    """The frontier as text, ending without a newline."""
    return "\n".join([answer(found), "", *columns(shown(found))])


def shown(found: Pareto) -> Grid:
    """The points on the frontier, the fastest for a user first."""
    return Grid(HEADS, [_cells(row) for row in _front(found)])


def answer(found: Pareto) -> str:
    """What the frontier says, in words."""
    front = _front(found)
    if not front:
        return "No point is on the frontier: every run was overloaded."
    fast, cheap = front[0], min(front, key=lambda row: (row[PRICE] or 0.0, -row[SPEED]))
    most = max(front, key=lambda row: row[YIELD])
    share = percent(len(front) / len(found.rows))
    said = f"{share} of the points are on the frontier. Fastest for a user is {_point(fast)}; most per GPU yields {_point(most)}"
    return said + (f"; cheapest is {_point(cheap)}." if cheap is not most else ", which is the cheapest too.")


def _point(row: Row) -> str:
    price = f", {dollars(row[PRICE])} per million" if row[PRICE] is not None else ""
    return f"{row['layout']} at load {number(row['load'])} ({number(row[SPEED])} tokens/s for a user, {number(row[YIELD])} a GPU{price})"


def _front(found: Pareto) -> list[dict[str, Any]]:
    return sorted((row for row in found.rows if row["frontier"]), key=lambda row: -row[SPEED])


def _places(found: Pareto) -> tuple[int, ...]:
    return tuple(place for place, row in enumerate(found.rows) if row["frontier"])


def _cards(front: Sequence[Row]) -> list[Card]:
    fast, most = front[0], max(front, key=lambda row: row[YIELD])
    cheap = min(front, key=lambda row: row[PRICE] or 0.0)
    return [
        Card("Fastest for a user", f"{number(fast[SPEED])} tokens/s", fast["layout"]),
        Card("Most of a GPU", f"{number(most[YIELD])} tokens/s", most["layout"]),
        Card("Cheapest", f"{dollars(cheap[PRICE])} per Mtok", cheap["layout"]),
    ]


def _cells(row: Row) -> list[str]:
    met = {True: "met", False: "missed", None: ""}[row["met"]]
    return [
        row["layout"], number(row["load"]), number(row[SPEED]), number(row[YIELD]), dollars(row[PRICE]),
        number(row["joules_per_output_token"]), seconds(row["ttft_p99"]), seconds(row["tpot_p99"]),
        "overloaded" if row["verdict"] == "overloaded" else met,
    ]  # fmt: skip


def _plots(found: Pareto) -> list[Plot]:
    from matplotlib import rc_context

    rows = [row for row in found.rows if row[SPEED] and row[YIELD] and row["verdict"] != "overloaded"]
    if len(rows) < 2:
        return []
    with rc_context(STYLE):
        return [_drawn(rows, YIELD, "Speed against throughput", "output tokens/s of a GPU"),
                *([_drawn(rows, PRICE, "Speed against cost", "$ per million output tokens")] if all(row[PRICE] for row in rows) else [])]


def _drawn(rows: Sequence[Row], key: str, title: str, label: str) -> Plot:
    """One line per layout that has a point on the frontier; points of the others are marks only."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row["layout"], []).append(row)
    named = [layout for layout, mine in lines.items() if any(row["frontier"] for row in mine)][:LAYOUTS]
    beside = max(1, min(3, WIDE // (max(map(len, named), default=0) + KEY)))
    above = -(-len(named) // beside)
    figure = Figure(figsize=(4.8, 3.8 + max(0, above - LAYOUTS // 3) * LINE / INCH), layout="constrained")
    axes = figure.subplots()
    for layout, mine in lines.items():
        x, y = [row[SPEED] for row in mine], [row[key] for row in mine]
        if layout not in named:
            axes.plot(x, y, ".", color=SERIES[4], markersize=3, alpha=0.6)
            continue
        place = named.index(layout)
        colour, dash = SERIES[place % len(SERIES)], DASHES[place // len(SERIES) % len(DASHES)]
        axes.plot(x, y, marker="o", markersize=3.5, color=colour, linestyle=dash, label=layout)
        ringed = [(row[SPEED], row[key]) for row in mine if row["frontier"]]
        axes.plot(*zip(*ringed, strict=True), "o", markersize=8, markerfacecolor="none", markeredgecolor=colour)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel("output tokens/s of a user")
    axes.set_title(label, pad=6.0 + LINE * above)
    axes.legend(ncols=beside, loc="lower left", bbox_to_anchor=(-0.02, 1.0), columnspacing=1.2, borderpad=0, handlelength=1.8)
    note = "One replica at rising load, the least at the right end of a line. Ringed: on the frontier. Dots: layouts nowhere on it."
    return Plot(title, note, svg(figure, title + key, f"{title}. {note}"))
