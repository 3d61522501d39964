"""A sweep of speed against cost as one page and as a block of text."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.report import folder
from sim.report.plots import DASHES, Plot
from sim.report.svg import SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import DASH, dollars, number, seconds
from sim.spec.load import dump
from sim.study.speed_cost import NOTHING, Sweep

LEGEND = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "columnspacing": 1.2, "borderpad": 0, "handlelength": 1.8}
PER_ROW = 3  # names of layouts side by side in a legend


def render(found: Sweep) -> str:
    """The page."""
    rows = found.rows
    # Whether a point is on the frontier comes last, for the first cell of a row is its head.
    told = [cells(row, rows) for row in rows]
    return fill(
        "curve", name=found.scenario.name, description=found.scenario.description, done=len(rows), wanted=found.wanted,
        heads=[*heads(rows)[1:], "frontier"], rows=[[*line[1:], line[0]] for line in told], said=sentences(rows), plots=plots(rows),
        best=[place for place, row in enumerate(rows) if row["frontier"]], scenario=dump(found.scenario),
        files=folder.of_points("curve", len(rows), "A row for each point, with every figure of it."),
    )  # fmt: skip


def block(found: Sweep) -> str:
    """The table as text, ending without a newline."""
    table = [heads(found.rows), *(cells(row, found.rows) for row in found.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in table]
    return "\n".join([*lines, "* on the frontier: no other point gives both more to a user and more per GPU."])


def heads(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the columns; carbon only where there is a grid."""
    named = ["", "layout"] if any(row["layout"] != NOTHING for row in rows) else [""]
    carbon = ["gCO2e/Mtok"] if _carbon(rows) else []
    return [*named, "clients", "tok/s/user", "tok/s/GPU", "TTFT p50", "TPOT p50", "$/Mtok", "W/GPU", "J/tok", *carbon]


def cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of a point as people read them, in the order of `heads`."""
    named = [row["layout"]] if any(one["layout"] != NOTHING for one in rows) else []
    grams = row["grams_per_output_token"]
    return [
        "*" if row["frontier"] else "", *named, number(row["concurrency"]), number(row["tokens_per_s_per_user"]),
        number(row["output_tokens_per_s_per_gpu"]), seconds(row["ttft_p50"]), seconds(row["tpot_p50"]),
        dollars(row["usd_per_million_output_tokens"]), number(row["gpu_watts"] and round(row["gpu_watts"])),
        number(row["joules_per_output_token"]), *([DASH if grams is None else number(grams * 1e6)] if _carbon(rows) else []),
    ]  # fmt: skip


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the sweep says, in words."""
    speed, price = "tokens_per_s_per_user", "usd_per_million_output_tokens"
    whole = [row for row in rows if row[speed] and row[price]]
    if len(whole) < 2:
        return []
    fast, cheap = max(whole, key=lambda row: row[speed]), min(whole, key=lambda row: row[price])
    said = [f"{_point(fast)} is the fastest for a user ({number(fast[speed])} tokens/s) and costs {dollars(fast[price])} per million "
            f"output tokens. {fast['held_back']}"]  # fmt: skip
    if cheap is not fast:
        said.append(f"{_point(cheap)} is the cheapest ({dollars(cheap[price])}): {number(fast[price] / cheap[price])} times cheaper, and a "
                    f"user gets tokens {number(fast[speed] / cheap[speed])} times more slowly. {cheap['held_back']}")  # fmt: skip
    off = len(rows) - sum(row["frontier"] for row in rows)
    if off:
        said.append(f"{off} of {len(rows)} points are not on the frontier: another one gives at least as much to a user and per GPU.")
    return said


def plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Speed against throughput; dollars and joules of a token against speed. None without two points."""
    from matplotlib import rc_context

    if sum(1 for row in rows if row["tokens_per_s_per_user"]) < 2:
        return []
    with rc_context(STYLE):
        return [_frontier(rows), _cost(rows)]


def _frontier(rows: Sequence[Mapping[str, Any]]) -> Plot:
    from matplotlib.figure import Figure

    title, loads = "Speed against throughput", sorted({row["concurrency"] for row in rows})
    note = f"{loads[0]:,} to {loads[-1]:,} clients, the fewest at the right end of a line. Right and up is better; ringed: on the frontier."
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axes = figure.subplots()
    lines = _lines(rows)
    for place, (layout, mine) in enumerate(lines.items()):
        colour, dash = SERIES[place % len(SERIES)], DASHES[place // len(SERIES) % len(DASHES)]
        x, y = ([row[key] for row in mine] for key in ("tokens_per_s_per_user", "output_tokens_per_s_per_gpu"))
        axes.plot(x, y, marker="o", markersize=3.5, color=colour, linestyle=dash, label=layout)
        axes.plot(*zip(*[(a, b) for a, b, row in zip(x, y, mine, strict=True) if row["frontier"]] or [(float("nan"),) * 2], strict=True),
                  "o", markersize=8, markerfacecolor="none", markeredgecolor=colour)  # fmt: skip
    axes.set_xlabel("output tokens/s of a user")
    axes.set_title("output tokens/s of a GPU", pad=_pad(lines))
    _logarithmic(axes, "y", [row["output_tokens_per_s_per_gpu"] for mine in lines.values() for row in mine])
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    _legend(axes, lines)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _cost(rows: Sequence[Mapping[str, Any]]) -> Plot:
    from matplotlib.figure import Figure

    title = "What a token costs"
    note = "All costs and all energy of the GPUs over output tokens, prompts and idle time included; logarithmic."
    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    both = figure.subplots(2, 1, sharex=True)
    lines = _lines(rows)
    kinds = (("usd_per_million_output_tokens", "$ per Mtok"), ("joules_per_output_token", "J per token"))
    for axes, (key, words) in zip(both, kinds, strict=True):
        for place, (layout, mine) in enumerate(lines.items()):
            style = {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place // len(SERIES) % len(DASHES)], "label": layout}
            values = [row[key] if row[key] else float("nan") for row in mine]
            axes.plot([row["tokens_per_s_per_user"] for row in mine], values, marker="o", markersize=3.5, **style)
        axes.set_title(words, pad=_pad(lines) if axes is both[0] else None)
        _logarithmic(axes, "y", [row[key] for mine in lines.values() for row in mine if row[key]])
    both[1].set_xlabel("output tokens/s of a user")
    both[1].set_xlim(left=0)
    _legend(both[0], lines)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Points that have figures by layout, in order of their clients."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["concurrency"]):
        if row["tokens_per_s_per_user"] and row["output_tokens_per_s_per_gpu"]:
            lines.setdefault(row["layout"], []).append(row)
    return {row["layout"]: lines[row["layout"]] for row in rows if row["layout"] in lines}


def _legend(axes: Any, lines: Mapping[str, Any]) -> None:
    if list(lines) != [NOTHING]:
        axes.legend(ncols=PER_ROW, **LEGEND)


def _pad(lines: Mapping[str, Any]) -> float:
    """Room for the legend between the drawing and its title."""
    return 6.0 if list(lines) == [NOTHING] else 6.0 + 14.0 * -(-len(lines) // PER_ROW)


def _logarithmic(axes: Any, which: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not values:
        return
    decades = max(values) / min(values)
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 60 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _carbon(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["grams_per_output_token"] is not None for row in rows)


def _point(row: Mapping[str, Any]) -> str:
    clients = f"{row['concurrency']:,} client{'s' if row['concurrency'] > 1 else ''}"
    return clients if row["layout"] == NOTHING else f"{row['layout']} with {clients}"
