"""A latency by the time at which requests came: its median, its 95th percentile, and the limit of the SLO."""
from __future__ import annotations

from typing import Any

import numpy as np

from sim.core.request import COMPLETED
from sim.report.plots import DASHES, LATENCIES, LEGEND, Drawing, over_time
from sim.report.svg import INK, SERIES
from sim.report.words import seconds
from sim.study.measures import MEASURES
from sim.study.metrics import Facts
from sim.study.slo import request_limits

EACH, MOST = 40, 80  # requests of a bin, at least on average; bins
SHARES = {"p50": 0.5, "p95": 0.95}
WIDE = 20.0  # from here on what is drawn is on a logarithmic scale


def over_arrival(facts: Facts, measure: str) -> Drawing:
    """Of a measure of `LATENCIES` that some completed request has; bins in which nothing came are gaps."""
    done = [(page["arrival"], np.where(page["status"] == COMPLETED, MEASURES[measure](page), np.nan)) for page in facts.requests()]
    arrival, values = (np.concatenate(column) for column in zip(*done, strict=True))
    there = ~np.isnan(values)
    edges = np.linspace(*facts.arrivals, int(np.clip(there.sum() // EACH, 4, MOST)) + 1)
    place = np.clip(np.searchsorted(edges, arrival[there], side="right") - 1, 0, len(edges) - 2)
    bins = [values[there][place == number] for number in range(len(edges) - 1)]
    found = {name: np.array([np.quantile(some, share) if len(some) else np.nan for some in bins]) for name, share in SHARES.items()}
    limit = request_limits(facts.result.scenario.slo).get(measure)
    low, high = float(np.nanmin(found["p50"])), float(np.nanmax(found["p95"]))
    note = f"Of what came in {len(bins)} parts of the run, 95% took {seconds(high)} or less, half took {seconds(low)} or more."

    def draw(axes: Any, clock: float) -> None:
        for number, (name, line) in enumerate(found.items()):
            axes.stairs(line, edges / clock, baseline=None, color=SERIES[number], linestyle=DASHES[number], label=name, linewidth=1.4)
        if limit is not None:
            axes.axhline(limit, color=INK, linestyle=":", linewidth=1.0, label="limit")
        if low > 0 and high > WIDE * low:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(f"{measure.upper()} by time of arrival, s", pad=20)
        axes.legend(ncols=3, handlelength=1.8, **LEGEND)

    return over_time(f"{LATENCIES[measure]} over time", note, facts, draw)
