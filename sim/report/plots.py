"""The plots of a report as inline SVG. Colours are CSS variables of the page, so that one drawing serves light, dark and print; a series is
told apart by its dashes or its place as well as by its colour. Time is cut into at most `BINS` bins, however long the run.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sim.report.svg import SERIES, STYLE, svg
from sim.report.words import number, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.slo import request_limits
from sim.study.training import passes

BINS = 240
POINTS = 160
SOME = 1e-6  # GPUs, and requests: fewer are none
SAME = 1e-6  # of a latency: what differs by no more is one value
LATENCIES = {"ttft": "Time to first token", "tpot": "Time per output token", "e2e": "End-to-end latency"}
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
LEGEND = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.98), "columnspacing": 1.2, "borderpad": 0}


Part = Callable[[Any], None]  # draws on one pair of axes


class Plot(NamedTuple):
    """A titled drawing; `note` says in words what it shows, for the caption and for those who cannot see it. A `broad` one is two wide."""

    title: str
    note: str
    svg: str
    broad: bool = False


class Drawing(NamedTuple):
    """A plot before it is drawn: each of its parts, one below the other, draws on axes of whoever shows it, a page or a notebook."""

    title: str
    note: str
    parts: tuple[Part, ...]
    size: tuple[float, float] = (4.3, 3.0)

    def plot(self) -> Plot:
        """As the page has it."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(STYLE):
            drawn = Figure(figsize=self.size, layout="constrained")
            axes = drawn.subplots(len(self.parts), 1, sharex=True, squeeze=False)[:, 0]
            for one, draw in zip(axes, self.parts, strict=True):
                draw(one)
            for one in axes[:-1]:
                one.set_xlabel("")
            return Plot(self.title, self.note, svg(drawn, self.title, f"{self.title}. {self.note}"))


class Timeline:
    """What the plots over time need, binned in one walk over the requests and one over the stretches; averages over each bin."""

    def __init__(self, facts: Facts):
        self.edges = np.linspace(facts.begin, facts.end, BINS + 1)
        self.coarse = np.linspace(facts.begin, facts.end, int(np.clip(len(facts.result.tables["requests"]) // 20, 12, BINS)) + 1)
        arrivals, waiting, running, used = np.zeros(len(self.coarse) - 1), *(Bins(self.edges) for _ in range(3))
        busy = {(pool, prompts): Bins(self.edges) for pool in facts.pools for prompts in (False, True)}
        for page in facts.requests():
            admitted = page["admitted"]
            begun = ~np.isnan(admitted)
            arrivals += np.histogram(page["arrival"], self.coarse)[0]
            waiting.add(page["arrival"], facts.admissions(page))
            running.add(admitted[begun], facts.departures(page)[begun])
        pools = np.array(facts.pool_of_replica)
        for stretches in facts.stretches():
            start, end, gpus, kinds = stretches["start"], stretches.end, stretches.gpus, stretches["prefills"] > 0
            used.add(start, end, stretches["blocks"])
            for (pool, prompts), bins in busy.items():
                mine = (kinds == prompts) & (pools == pool)[stretches["replica"]]
                bins.add(start[mine], end[mine], gpus[mine])
        self.rate = arrivals / np.diff(self.coarse)
        self.waiting, self.running, self.blocks = waiting.means(), running.means(), used.means()
        # GPUs in steps that only decode and in steps with prompt chunks, by pool.
        self.busy = {name: (busy[name, False].means(), busy[name, True].means()) for name in facts.pools}
        self.gpus = {name: self._present(facts, pools == name) for name in facts.pools}
        # GPUs in passes of a trainer that shares them, by pool.
        self.passes = {name: self._passes(facts, name) for name in facts.pools}
        replicas = facts.replicas
        end = np.where(np.isnan(replicas["end"]), facts.end, replicas["end"])
        ready = np.where(np.isnan(replicas["ready"]), end, replicas["ready"])
        self.room = np.maximum(Bins(self.edges).add(ready, end, replicas["blocks"].astype(float)).means(), 1.0)

    def _passes(self, facts: Facts, pool: str) -> np.ndarray:
        bins = Bins(self.edges)
        for gpus, start, end in passes(facts, pool):
            bins.add(start, end, gpus)
        return bins.means()

    def _present(self, facts: Facts, which: np.ndarray) -> np.ndarray:
        """GPUs in existence, of some replicas."""
        start, end = facts.replicas["start"], facts.replicas["end"]
        return np.maximum(Bins(self.edges).add(start, np.where(np.isnan(end), facts.end, end), facts.gpus * which).means(), 1e-12)


def plots(facts: Facts) -> list[Plot]:
    """Every plot the run has data for, in the order of the page."""
    drawn: list[Drawing] = []
    if facts.span > 0 and len(facts.result.tables["stretches"]):
        line = Timeline(facts)
        drawn += [traffic(facts, line), batch(facts, line), gpu_time(facts, line)]
        if len(facts.pools) > 1:
            drawn.append(pools(facts, line))
    for measure in LATENCIES:
        values = facts.times(measure)
        if len(values):
            drawn.append(latency(facts, measure, values))
    return [one.plot() for one in drawn]


def latency(facts: Facts, measure: str, values: np.ndarray) -> Drawing:
    """One of `LATENCIES`, of all requests that have it, s; puts them in another order."""
    limit = request_limits(facts.result.scenario.slo).get(measure)
    return spread(LATENCIES[measure], values, ("completed requests", measure.upper()), limit)


def traffic(facts: Facts, line: Timeline) -> Drawing:
    """Arrivals, and the queue."""
    rate, waiting = line.rate, np.where(line.waiting > SOME, line.waiting, 0.0)
    most = f"at most {number(float(waiting.max()))} requests wait at once, averaged over a bin"
    note = f"Arrivals peak at {number(float(rate.max()))} a second; {most}."

    def came(axes: Any, clock: float) -> None:
        axes.stairs(rate, line.coarse / clock, color=SERIES[0], fill=True, alpha=0.75)
        axes.set_title("arrivals per second")

    def queued(axes: Any, clock: float) -> None:
        _area(axes, line.edges / clock, waiting, SERIES[1], "requests waiting for a first admission")

    return over_time("Traffic and queue", note, facts, came, queued)


def batch(facts: Facts, line: Timeline) -> Drawing:
    """Requests in service, and the KV cache."""
    running, used = line.running, 100 * np.minimum(line.blocks / line.room, 1.0)
    most = f"{number(float(running.max()))} requests in service at once and {used.max():.3g}% of the KV blocks of ready replicas in use"
    note = f"At most {most}, averaged over a bin."

    def served(axes: Any, clock: float) -> None:
        _area(axes, line.edges / clock, running, SERIES[0], "requests in service")

    def held(axes: Any, clock: float) -> None:
        _area(axes, line.edges / clock, used, SERIES[2], "KV blocks in use, %")

    return over_time("Batch and KV cache", note, facts, served, held)


def gpu_time(facts: Facts, line: Timeline) -> Drawing:
    """What GPUs did, as shares of their time."""
    there = sum(line.gpus.values())
    shares = [100 * sum(parts) / there for parts in (*zip(*line.busy.values(), strict=True), tuple(line.passes.values()))]
    total = max((facts.lifetimes * facts.gpus).sum(), 1e-300)
    decode, mixed, passed = (float((share * there * np.diff(line.edges)).sum() / 100 / total) for share in shares)
    trained = f", {passed:.0%} to passes of a trainer" if passed else ""
    note = f"{decode:.0%} of all GPU time went to steps that only decode, {mixed:.0%} to steps with prompt chunks{trained}"
    shared = any(facts.result.summary[kind] for kind in ("shared_gpus", "lending"))
    note += "; in the rest they were idle, or changed hands." if shared else "; the rest was idle."

    def draw(axes: Any, clock: float) -> None:
        filled = {"fill": True, "alpha": 0.75}
        axes.stairs(shares[0], line.edges / clock, color=SERIES[0], label="decode only", **filled)
        steps = shares[0] + shares[1]
        axes.stairs(steps, line.edges / clock, baseline=shares[0], color=SERIES[1], label="with prompt chunks", **filled)
        if passed:
            axes.stairs(steps + shares[2], line.edges / clock, baseline=steps, color=SERIES[3], label="trainer", **filled)
        axes.set_title("share of GPU time, %", pad=20)
        axes.set_ylim(0, 100)
        axes.legend(ncols=3, handlelength=1.2, **LEGEND)

    return over_time("What the GPUs did", note, facts, draw)


def pools(facts: Facts, line: Timeline) -> Drawing:
    """How busy the GPUs of each pool were."""
    working = {name: sum(parts) + line.passes[name] for name, parts in line.busy.items()}
    # Where a pool has no GPU its line breaks.
    busy = {name: np.where(line.gpus[name] > SOME, 100 * values / line.gpus[name], np.nan) for name, values in working.items()}
    means = {name: 100 * float(values.sum() / line.gpus[name].sum()) for name, values in working.items()}
    note = "; ".join(f"{name} {mean:.3g}%" for name, mean in means.items()) + " busy on average."

    def draw(axes: Any, clock: float) -> None:
        for place, (name, values) in enumerate(busy.items()):
            style = {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place % len(DASHES)]}
            # matplotlib leaves out of a legend what begins with an underscore.
            axes.plot((line.edges[:-1] + line.edges[1:]) / 2 / clock, values, label=name.lstrip("_"), **style)
        axes.set_title("GPUs busy, %", pad=20)
        axes.set_ylim(0, 101)
        axes.legend(ncols=4, handlelength=1.8, **LEGEND)

    return over_time("Busy GPUs by pool", note, facts, draw)


def spread(title: str, values: np.ndarray, words: tuple[str, str], limit: float | None = None) -> Drawing:
    """Share of values (s) at or below each; `words` say what has them, and what they are. Puts them in another order."""
    shares = np.unique(np.concatenate([np.linspace(0, 1, POINTS), [0.5, 0.99, 0.999]]))
    points = np.quantile(values, shares, overwrite_input=True)
    if points[-1] - points[0] <= SAME * abs(points[-1]):
        points = np.full_like(points, np.median(points))  # what differs by rounding alone would stretch the axis to show it
    half, tail = np.interp([0.5, 0.99], shares, points)
    least, most = float(points[0]), max(float(points[-1]), limit or 0.0)
    log = most > 8 * least > 0
    note = f"Half of the {words[0]} take {seconds(half)} or less, 99% take {seconds(tail)} or less."
    if limit is not None:
        note += f" The dashed line is the limit of {seconds(limit)}."
    unit, size = ("ms", 1e-3) if tail < 2 else ("s", 1.0) if half < 7200 else ("h", 3600.0)

    def draw(axes: Any) -> None:
        axes.plot(points / size, 100 * shares, color=SERIES[0])
        for value, share, name in ((half, 50, "p50"), (tail, 99, "p99")):
            axes.plot([value / size], [share], "o", color=SERIES[0], markersize=4)
            axes.annotate(f"{name} {seconds(value)}", (value / size, share), **_beside(value, (least, most, log), share == 50))
        if limit is not None:
            axes.axvline(limit / size, ymax=100 / 112, color=SERIES[1], linestyle="--", zorder=1, label="limit")
        if log:
            axes.set_xscale("log")
            _plain_decades(axes, float(np.log10(most / least)))
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel(f"{words[1]}, {unit}")
        axes.set_title(f"{words[0]} at or below, %")

    return Drawing(title, note, (draw,))


def _beside(value: float, axis: tuple[float, float, bool], half: bool) -> dict[str, Any]:
    """Where the name of a marked point goes: the median's to the side that has room, the tail's above. `axis`: where it begins and ends,
    and whether it is logarithmic.
    """
    shape = np.log if axis[2] else float
    low, at, high = shape(axis[0]), shape(value), shape(axis[1])
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


def _area(axes: Any, edges: np.ndarray, values: np.ndarray, colour: str, title: str) -> None:
    axes.stairs(values, edges, color=colour, fill=True, alpha=0.25)
    axes.stairs(values, edges, color=colour, baseline=None)
    axes.set_ylim(bottom=0)
    axes.set_title(title)


def clock(facts: Facts) -> tuple[str, float]:
    """The unit of time that suits the run's length, and its seconds."""
    return next(((u, s) for s, u in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")) if facts.end >= 2 * s), ("s", 1.0))


def over_time(title: str, note: str, facts: Facts, *draws: Callable[[Any, float], None]) -> Drawing:
    """Parts that share the clock; each is told the seconds of its unit."""
    unit, size = clock(facts)

    def part(draw: Callable[[Any, float], None]) -> Part:
        def whole(axes: Any) -> None:
            draw(axes, size)
            axes.set_xlabel(f"time, {unit}")
            axes.set_xlim(facts.begin / size, facts.end / size)

        return whole

    return Drawing(title, note, tuple(map(part, draws)), (4.3, max(3.0, 1.45 * len(draws))))
