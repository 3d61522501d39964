"""The drawings of a plan: what its cost hangs on, and what all runs gave to a user and per GPU."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sim.report.plots import Plot
from sim.report.svg import CARD, INK, SERIES, STYLE, svg
from sim.report.words import dollars

if TYPE_CHECKING:
    from sim.study.plan.plan import Plan


def tornado(plan: Plan) -> Plot:
    """Bars of dollars per hour with an assumption lower and higher."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    title = "Dollars per hour, with one assumption 20 % lower or higher"
    rows = list(reversed(plan.tornado))
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.5 * len(rows) + 1.1), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            was = row["was_usd_per_hour"]
            for side, colour in (("low", SERIES[0]), ("high", SERIES[1])):
                value = row[f"{side}_usd_per_hour"]
                if value is None or was is None:
                    continue
                axes.barh(place, value - was, left=was, height=0.55, color=colour, hatch="" if side == "low" else "///", edgecolor=CARD)
                inner = "right" if value < was else "left"
                axes.annotate(
                    f"{'−' if side == 'low' else '+'}20 %" if value != was else "", (value, place), ha=inner, va="center",
                    xytext=(-3 if inner == "right" else 3, 0), textcoords="offset points", fontsize=8, color=INK,
                )  # fmt: skip
            if was is not None:
                axes.plot([was, was], [place - 0.36, place + 0.36], color=INK, linewidth=1.2)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: dollars(value))
        # Bars hold the margins to their ends otherwise, and the line that they start from is cut off.
        axes.use_sticky_edges = False
        axes.margins(x=0.16, y=0.08)
        axes.grid(axis="y", visible=False)
        note = (
            "Blue: the assumption 20 % lower; hatched: 20 % higher; the line: as assumed, the answer. No bar: not a whole "
            "replica more or fewer."
        )
        return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def plots(plan: Plan) -> list[Plot]:
    """Speed for a user against yield per GPU, and what a token costs; nothing without two runs."""
    from matplotlib import rc_context

    rows = _shown(plan)
    if len(rows) < 2:
        return []
    best = plan.best
    with rc_context(STYLE):
        return [
            _scatter(rows, best, "output_tokens_per_s_per_gpu", "Speed against throughput", "output tokens/s of a GPU"),
            _scatter(rows, best, "usd_per_hour", "Speed against cost", "dollars per hour"),
        ]


def _shown(plan: Plan) -> list[dict[str, Any]]:
    """Of each layout and number the longest run under the traffic of today, with the seed of the scenario."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row in sorted(plan.runs, key=lambda row: row["share"]):
        own = row["growth"] == plan.answers[0]["growth"] and row["replication"] == 0
        if own and row["tokens_per_s_per_user"] and row["output_tokens_per_s_per_gpu"]:
            found[row["place"], row["replicas"]] = row
    return list(found.values())


def _scatter(rows: Sequence[dict[str, Any]], best: dict[str, Any] | None, key: str, title: str, label: str) -> Plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.3), layout="constrained")
    axes = figure.subplots()
    for met, colour, marker, words in ((True, SERIES[2], "o", "meets the SLO"), (False, SERIES[1], "x", "does not")):
        mine = [row for row in rows if bool(row["met"]) is met]
        x, y = [row["tokens_per_s_per_user"] for row in mine], [row[key] for row in mine]
        axes.plot(x, y, marker, color=colour, markersize=5, label=words)
    if best is not None:
        own = [row for row in rows if row["place"] == best["place"] and row["replicas"] == best["replicas"]][:1]
        axes.plot([row["tokens_per_s_per_user"] for row in own], [row[key] for row in own], "o", markersize=12, markerfacecolor="none",
                  markeredgecolor=INK, label="the answer")  # fmt: skip
    axes.set_xlabel("output tokens/s of a user")
    axes.set_title(label, pad=20)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.99), borderpad=0, columnspacing=1.2, handletextpad=0.4)
    note = (
        "Each mark is a layout with some number of replicas under the traffic of today, by a run of the scenario's own seed; the answer "
        "holds with further seeds too."
    )
    return Plot(title, note, svg(figure, title + label, f"{title}. {note}"))
