"""Traffic in pictures and tables: its rate at two scales of time, its Fano curve, its gaps, its lengths; one workload or several.

Views are made by whoever has the traffic: objects with `name` and pairs of arrays `coarse`, `fine` (edges and rates), `fano` (windows and
factors), `gaps`, `input` and `output` (values and shares). One drawing serves the page and the picture.
"""
from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sim.report.plots import DASHES, Plot
from sim.report.section import Mark
from sim.report.svg import SERIES, STYLE, VARIABLES, light, svg
from sim.report.template import fill
from sim.report.words import number

MOST = len(SERIES)
LEGEND = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "columnspacing": 1.2, "borderpad": 0, "handlelength": 1.8}


class Table(NamedTuple):
    """Rows of cells; the first `texts` columns are words, the others figures. `marks`: the class of cells that are a verdict."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""
    marks: Mapping[str, str] = MappingProxyType({})


class Drawing(NamedTuple):
    """A titled drawing onto one axes; `draw` takes the axes, the views and the colours."""

    title: str
    note: str
    draw: Callable[[Any, Sequence[Any], Sequence[str]], None]


def shown(views: Sequence[Any]) -> Sequence[Any]:
    """As many of the views as can be told apart: the last (the sum, where there is one) and the busiest of the others."""
    if len(views) <= MOST:
        return views
    rest = sorted(views[:-1], key=lambda view: -float(np.mean(view.coarse[1])))[: MOST - 1]
    return [*(view for view in views[:-1] if any(view is one for one in rest)), views[-1]]


def plots(views: Sequence[Any], bars: Mapping[float, tuple[float, float]] | None = None) -> list[Plot]:
    """Inline drawings for a page. `bars`: of the last view, the lowest and highest Fano factor that chance gives, by window."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = []
    look: Any = STYLE
    with rc_context(look):
        for drawing in _drawings(bars):
            figure = Figure(figsize=(4.6, 3.2), layout="constrained")
            drawing.draw(figure.subplots(), shown(views), SERIES)
            drawn.append(Plot(drawing.title, drawing.note, svg(figure, drawing.title, f"{drawing.title}. {drawing.note}")))
    return drawn


def picture(views: Sequence[Any], title: str) -> bytes:
    """All drawings on one sheet, as a PNG in the light colours of the pages."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    colours = light()
    look: Any = {key: colours[VARIABLES[value]] if isinstance(value, str) and value in VARIABLES else value for key, value in STYLE.items()}
    drawings = _drawings(None)
    with rc_context(look):
        figure = Figure(figsize=(11.5, 10.5), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
        figure.suptitle(title, fontsize=13, x=0.01, ha="left")
        pen = [colours[VARIABLES[colour]] for colour in SERIES]
        for axes, drawing in zip(figure.subplots(3, 2).ravel(), drawings, strict=True):
            drawing.draw(axes, shown(views), pen)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=120, facecolor=colours["--card"])
    return out.getvalue()


def page(kind: str, name: str, **parts: Any) -> str:
    """One page that needs nothing else. `parts`: lead (sentences), tables, plots, remarks, yaml (text)."""
    given = {"lead": (), "remarks": (), "yaml": ""} | parts
    marked = [
        one._replace(rows=[[Mark(one.marks[cell], cell) if cell in one.marks else cell for cell in row] for row in one.rows])
        for one in given.pop("tables", ())
    ]
    return fill("traffic", kind=kind, name=name, tables=marked, plots=given.pop("plots", ()), **given)


def figures(columns: Mapping[str, Mapping[str, float]], words: Mapping[str, str]) -> Table:
    """Figures of several workloads side by side, by their names; those that none has are left out. `words` says each figure."""
    names = [key for key in words if any(not np.isnan(column[key]) for column in columns.values())]
    rows = [[words[key], *(number(column[key]) for column in columns.values())] for key in names]
    return Table("Figures", ["", *columns], rows, note="A dash: too little traffic to tell." if any("–" in row for row in rows) else "")


def text(table: Table) -> str:
    """A table as text, ending without a newline."""
    lines = [list(table.head), *map(list, table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    cells = [[f"{cell:<{w}}" if at < table.texts else f"{cell:>{w}}" for at, (cell, w) in enumerate(zip(line, widths, strict=True))]
             for line in lines]  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in cells)


def _drawings(bars: Mapping[float, tuple[float, float]] | None) -> list[Drawing]:
    return [
        Drawing("Rate over time", "Requests per second, averaged over a 120th of the time.", _rate("coarse")),
        Drawing("Rate, seen closely", "The busiest thirtieth of the time, from its beginning on.", _rate("fine")),
        Drawing("Fano factor by window", "Variance over mean of the requests in windows of each length; 1 is Poisson."
                + (" Bars: nine of ten draws of the generator." if bars else ""), _fano(bars or {})),
        Drawing("Gaps between requests", "Share of gaps that are longer; straight down is regular, a long tail is bursty.", _gaps),
        Drawing("Input tokens", "Share of requests at or below.", _tokens("input")),
        Drawing("Output tokens", "Share of requests at or below.", _tokens("output")),
    ]  # fmt: skip


def _rate(which: str) -> Callable[[Any, Sequence[Any], Sequence[str]], None]:
    def draw(axes: Any, views: Sequence[Any], pen: Sequence[str]) -> None:
        edges = [_parts(view)[which][0] for view in views]
        ends = max(float(edge[-1]) for edge in edges)
        unit, clock = next(((u, s) for s, u in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")) if ends >= 2 * s), ("s", 1.0))
        for place, view in enumerate(views):
            at, rate = _parts(view)[which]
            alone = {"fill": True, "alpha": 0.75} if len(views) == 1 else {"linestyle": DASHES[place % 4], "linewidth": 1.1}
            axes.stairs(rate, at / clock, color=pen[place], label=view.name, baseline=0 if len(views) == 1 else None, **alone)
        axes.set_xlabel(f"time, {unit}")
        axes.set_xlim(min(float(edge[0]) for edge in edges) / clock, ends / clock)
        axes.set_ylim(bottom=0)
        _titled(axes, views, "requests per second" if which == "coarse" else "requests per second, closely")

    return draw


def _fano(bars: Mapping[float, tuple[float, float]]) -> Callable[[Any, Sequence[Any], Sequence[str]], None]:
    def draw(axes: Any, views: Sequence[Any], pen: Sequence[str]) -> None:
        for place, view in enumerate(views):
            windows, values = view.fano
            axes.plot(windows, values, color=pen[place], linestyle=DASHES[place % 4], label=view.name)
        for window, (low, high) in bars.items():
            axes.plot([window, window], [low, high], color=pen[len(views) - 1], linewidth=3, alpha=0.4)
        axes.set(xscale="log", yscale="log", xlabel="window, s")
        axes.axhline(1.0, color=axes.xaxis.label.get_color(), linewidth=0.8)
        _decades(axes.yaxis)
        _decades(axes.xaxis)
        _titled(axes, views, "Fano factor")

    return draw


def _gaps(axes: Any, views: Sequence[Any], pen: Sequence[str]) -> None:
    for place, view in enumerate(views):
        values, share = view.gaps
        kept = share > 0
        axes.plot(values[kept], 100 * share[kept], color=pen[place], linestyle=DASHES[place % 4], label=view.name)
    lows = [np.quantile(view.gaps[0], 0.02) for view in views if len(view.gaps[0])]
    axes.set(xscale="log", yscale="log", xlabel="gap, s")
    if lows:
        axes.set_xlim(left=max(float(min(lows)), 1e-6))
    _decades(axes.xaxis)
    _decades(axes.yaxis)
    _titled(axes, views, "gaps that are longer, %")


def _tokens(side: str) -> Callable[[Any, Sequence[Any], Sequence[str]], None]:
    def draw(axes: Any, views: Sequence[Any], pen: Sequence[str]) -> None:
        for place, view in enumerate(views):
            values, share = _parts(view)[side]
            axes.plot(np.maximum(values, 1), 100 * share, color=pen[place], linestyle=DASHES[place % 4], label=view.name)
        axes.set(xscale="log", xlabel=f"{side} tokens", ylim=(0, 102))
        _decades(axes.xaxis)
        _titled(axes, views, "requests at or below, %")

    return draw


def _parts(view: Any) -> Mapping[str, Any]:
    """The parts of a view by name."""
    found: Mapping[str, Any] = view._asdict()
    return found


def _titled(axes: Any, views: Sequence[Any], words: str) -> None:
    axes.set_title(words, pad=20 if len(views) > 1 else 6)
    if len(views) > 1:
        axes.legend(ncols=min(len(views), 4), **LEGEND)


def _decades(axis: Any) -> None:
    """Few plain numbers beside a logarithmic axis, however many decades it has."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.6 else (1,), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
