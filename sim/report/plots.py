"""The plots of a report as inline SVG. Colours are CSS variables of the page, so that one drawing serves light, dark and print; a series is
told apart by its dashes or its place as well as by its colour. Time is cut into at most `BINS` bins, however long the run.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sim.report.svg import SERIES, STYLE, svg
from sim.report.words import seconds
from sim.study.facts import mean_in_bins
from sim.study.metrics import Facts, request_limits

BINS = 240
POINTS = 160
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
LEGEND = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.98), "columnspacing": 1.2, "borderpad": 0}


class Plot(NamedTuple):
    """A titled drawing; `note` says in words what it shows, for the caption and for those who cannot see it."""

    title: str
    note: str
    svg: str


def plots(facts: Facts) -> list[Plot]:
    """Every plot the run has data for, in the order of the page."""
    from matplotlib import rc_context

    drawn: list[Plot] = []
    with rc_context(STYLE):
        if facts.span > 0 and len(facts.col("stretches", "start")):
            drawn += [_traffic(facts), _batch(facts), _gpu_time(facts)]
            if len(facts.pools) > 1:
                drawn.append(_pools(facts))
        for measure, title in (("ttft", "Time to first token"), ("tpot", "Time per output token"), ("e2e", "End-to-end latency")):
            values = facts.times[measure][facts.completed]
            values = values[~np.isnan(values)]
            if len(values):
                drawn.append(_spread(facts, measure, title, values))
    return drawn


def _traffic(facts: Facts) -> Plot:
    arrival = facts.col("requests", "arrival")
    coarse = np.linspace(facts.begin, facts.end, int(np.clip(len(arrival) // 20, 12, BINS)) + 1)
    rate = np.histogram(arrival, coarse)[0] / np.diff(coarse)
    edges = _edges(facts)
    waiting = mean_in_bins(*facts.waits, 1.0, edges)
    note = f"Arrivals peak at {rate.max():.3g} a second; at most {waiting.max():.3g} requests wait at once, averaged over a bin."

    def draw(axes: Any, clock: float) -> None:
        axes[0].stairs(rate, coarse / clock, color=SERIES[0], fill=True, alpha=0.75)
        axes[0].set_title("arrivals per second")
        _area(axes[1], edges / clock, waiting, SERIES[1], "requests waiting for a first admission")

    return _over_time("Traffic and queue", note, facts, draw)


def _batch(facts: Facts) -> Plot:
    edges = _edges(facts)
    admitted, last = facts.col("requests", "admitted"), facts.col("requests", "last_token")
    begun = ~np.isnan(admitted)
    running = mean_in_bins(admitted[begun], np.where(np.isnan(last), facts.end, last)[begun], 1.0, edges)
    start, length = facts.col("stretches", "start"), facts.col("stretches", "seconds")
    capacity = max(facts.col("replicas", "blocks").sum(), 1)
    used = 100 * mean_in_bins(start, start + length, facts.col("stretches", "blocks"), edges) / capacity
    note = f"At most {running.max():.3g} requests in service at once and {used.max():.3g}% of all KV blocks in use, averaged over a bin."

    def draw(axes: Any, clock: float) -> None:
        _area(axes[0], edges / clock, running, SERIES[0], "requests in service")
        _area(axes[1], edges / clock, used, SERIES[2], "KV blocks in use, %")

    return _over_time("Batch and KV cache", note, facts, draw)


def _gpu_time(facts: Facts) -> Plot:
    edges = _edges(facts)
    start, length = facts.col("stretches", "start"), facts.col("stretches", "seconds")
    prompts = facts.col("stretches", "prefills") > 0
    there = _present(facts, edges)
    shares = [100 * mean_in_bins(start[m], (start + length)[m], facts.stretch_gpus[m], edges) / there for m in (~prompts, prompts)]
    total = max((facts.lifetimes * facts.col("replicas", "gpus")).sum(), 1e-300)
    decode, mixed = (float((length * facts.stretch_gpus)[m].sum() / total) for m in (~prompts, prompts))
    note = f"{decode:.0%} of all GPU time went to steps that only decode, {mixed:.0%} to steps with prompt chunks; the rest was idle."

    def draw(axes: Any, clock: float) -> None:
        filled = {"fill": True, "alpha": 0.75}
        axes[0].stairs(shares[0], edges / clock, color=SERIES[0], label="decode only", **filled)
        axes[0].stairs(sum(shares), edges / clock, baseline=shares[0], color=SERIES[1], label="with prompt chunks", **filled)
        axes[0].set_title("share of GPU time, %", pad=20)
        axes[0].set_ylim(0, 100)
        axes[0].legend(ncols=2, handlelength=1.2, **LEGEND)

    return _over_time("What the GPUs did", note, facts, draw, rows=1)


def _pools(facts: Facts) -> Plot:
    edges = _edges(facts)
    start, length = facts.col("stretches", "start"), facts.col("stretches", "seconds")
    pools = np.array(facts.pool_of_replica)
    names = list(facts.pools)
    mine = {name: pools[facts.col("stretches", "replica")] == name for name in names}
    busy = {name: 100 * mean_in_bins(start[m], (start + length)[m], facts.stretch_gpus[m], edges) / _present(facts, edges, pools == name)
            for name, m in mine.items()}  # fmt: skip
    note = "; ".join(f"{name} {values.mean():.3g}%" for name, values in busy.items()) + " busy on average."

    def draw(axes: Any, clock: float) -> None:
        for number, (name, values) in enumerate(busy.items()):
            style = {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}
            # matplotlib leaves out of a legend what begins with an underscore.
            axes[0].plot((edges[:-1] + edges[1:]) / 2 / clock, values, label=name.lstrip("_"), **style)
        axes[0].set_title("GPUs busy, %", pad=20)
        axes[0].set_ylim(0, 101)
        axes[0].legend(ncols=4, handlelength=1.8, **LEGEND)

    return _over_time("Busy GPUs by pool", note, facts, draw, rows=1)


def _spread(facts: Facts, measure: str, title: str, values: np.ndarray) -> Plot:
    """Share of completed requests at or below each value."""
    shares = np.unique(np.concatenate([np.linspace(0, 1, POINTS), [0.5, 0.99, 0.999]]))
    points = np.quantile(values, shares)
    half, tail = np.quantile(values, [0.5, 0.99])
    limit = request_limits(facts.result.scenario.slo).get(measure)
    note = f"Half of the completed requests take {seconds(half)} or less, 99% take {seconds(tail)} or less."
    if limit is not None:
        note += f" The dashed line is the limit of {seconds(limit)}."
    unit, size = ("ms", 1e-3) if tail < 2 else ("s", 1.0) if half < 7200 else ("h", 3600.0)

    def draw(axes: Any) -> None:
        axes.plot(points / size, 100 * shares, color=SERIES[0])
        for value, share, name in ((half, 50, "p50"), (tail, 99, "p99")):
            axes.plot([value / size], [share], "o", color=SERIES[0], markersize=4)
            axes.annotate(f"{name} {seconds(value)}", (value / size, share), **_beside(value, points, share == 50))
        if limit is not None:
            axes.axvline(limit / size, ymax=100 / 112, color=SERIES[1], linestyle="--", zorder=1)
        if points[0] > 0 and points[-1] > 8 * points[0]:
            axes.set_xscale("log")
            _plain_decades(axes, float(np.log10(points[-1] / points[0])))
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel(f"{measure.upper()}, {unit}")
        axes.set_title("completed requests at or below, %")

    return _figure(title, note, draw)


def _beside(value: float, points: np.ndarray, half: bool) -> dict[str, Any]:
    """Where the name of a marked point goes: the median's to the side that has room, the tail's above."""
    shape = np.log if points[-1] > 8 * points[0] > 0 else float
    low, at, high = shape(points[0]), shape(value), shape(points[-1])
    place = (at - low) / (high - low) if high > low else 0.0
    if half:
        side = {"xytext": (6, -8), "ha": "left"} if place < 0.6 else {"xytext": (-7, 3), "ha": "right"}
    else:
        side = {"xytext": (0, 5), "ha": "left" if place < 0.2 else "center" if place < 0.8 else "right"}
    return side | {"textcoords": "offset points"}


def _plain_decades(axes: Any, decades: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.8 else (1, 3) if decades < 2.6 else (1,), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _edges(facts: Facts) -> np.ndarray:
    return np.linspace(facts.begin, facts.end, BINS + 1)


def _present(facts: Facts, edges: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
    """GPUs in existence, averaged over each bin."""
    start, end = facts.col("replicas", "start"), facts.col("replicas", "end")
    gpus = facts.col("replicas", "gpus") * (True if which is None else which)
    return np.maximum(mean_in_bins(start, np.where(np.isnan(end), facts.end, end), gpus, edges), 1e-12)


def _area(axes: Any, edges: np.ndarray, values: np.ndarray, colour: str, title: str) -> None:
    axes.stairs(values, edges, color=colour, fill=True, alpha=0.25)
    axes.stairs(values, edges, color=colour, baseline=None)
    axes.set_ylim(bottom=0)
    axes.set_title(title)


def _over_time(title: str, note: str, facts: Facts, draw: Callable[[Any, float], None], rows: int = 2) -> Plot:
    """A figure of `rows` axes that share the clock, in the unit that suits the run's length."""
    from matplotlib.figure import Figure

    unit, clock = next(((u, s) for s, u in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")) if facts.end >= 2 * s), ("s", 1.0))
    figure = Figure(figsize=(4.3, 3.0), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    draw(axes, clock)
    axes[-1].set_xlabel(f"time, {unit}")
    axes[-1].set_xlim(facts.begin / clock, facts.end / clock)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _figure(title: str, note: str, draw: Callable[[Any], None]) -> Plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3, 3.0), layout="constrained")
    draw(figure.subplots())
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))
