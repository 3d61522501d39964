"""What moved over the network: the busiest links over time, transfers by kind, and which links held them back."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import BINS, DASHES, LEGEND, Drawing, Plot, over_time
from sim.report.section import Sheet
from sim.report.svg import SERIES
from sim.report.words import percent, scaled, seconds
from sim.study.facts import Bins
from sim.study.metrics import Facts

LINES = 4
LITTLE = 0.05  # of what the busiest link carries; what carries less is not shown
ROWS = 6


def sheets(summary: dict[str, Any]) -> list[Sheet]:
    """Transfers by kind; the busiest links; who held transfers back."""
    found = summary["network"]
    if not found:
        return []
    kinds = [
        [name, f"{kind['count']:,}", f"{scaled(kind['bytes'])}B", seconds((kind["seconds"] or {}).get("mean")),
         seconds((kind["seconds"] or {}).get("p99")), f"{kind['cut_off']:,}"]
        for name, kind in found["transfers"].items()
    ]  # fmt: skip
    links = [
        [link["link"], link["kind"], f"{scaled(link['bytes'])}B", percent(link["mean"]), percent(min(link["peak"], 1.0)),
         seconds(link["full_s"])]
        for link in found["busiest"][:ROWS] if link["mean"] > LITTLE * found["busiest"][0]["mean"]
    ]  # fmt: skip
    bound = [
        [row["link"] or "no link, but a limit of their own", f"{row['count']:,}", seconds(row["seconds"]),
         seconds(row["seconds"] / row["count"])]
        for row in found["binding"][:ROWS]
    ]  # fmt: skip
    sheets = [
        Sheet("Transfers", ("Kind", "Transfers", "Bytes", "Time, mean", "Time, p99", "Cut off"), kinds,
              "Time is from asked for to arrived."),
        Sheet("Busiest links", ("Link", "Kind", "Carried", "Mean use", "Peak use", "Full for"), links,
              f"Peak use is over bins of {seconds(found['bin_s'])}; full: it carried all it can."),
        Sheet("What held transfers back", ("Link", "Transfers", "Their time", "Each"), bound,
              "A transfer counts at the link that was its bottleneck for most of its time."),
    ]  # fmt: skip
    return [sheet for sheet in sheets if sheet.rows]


def plots(facts: Facts) -> Iterator[Plot]:
    """Use of the busiest links over time."""
    yield from (one.plot() for one in use(facts))


def use(facts: Facts) -> Iterator[Drawing]:
    """Nothing where no network carried anything."""
    tables = facts.result.tables
    if not len(tables["links"]) or not len(tables["usage"]) or facts.span <= 0:
        return
    chosen = _busiest(facts)
    if not chosen:
        return
    yield _use(facts, chosen)


def _busiest(facts: Facts) -> list[int]:
    """Rows of `links` that carried the largest share of what they can, one of those that carried the same: cards of one host are alike."""
    links = facts.result.tables["links"]
    used = links["bytes"] / links["capacity"]
    found: dict[tuple[int, str], int] = {}
    for number in np.argsort(-used, kind="stable").tolist():
        if len(found) == LINES or used[number] <= LITTLE * used.max():
            break
        found.setdefault((int(links["kind"][number]), f"{used[number]:.3g}"), number)
    return list(found.values())


def _use(facts: Facts, chosen: list[int]) -> Drawing:
    """A usage row says what a link carried in a bin of its own; rows are spread over the bins of the plot as they overlap."""
    tables = facts.result.tables
    links, usage = tables["links"], tables["usage"]
    edges = np.linspace(facts.begin, facts.end, BINS + 1)
    carried = np.zeros((len(chosen), BINS))
    for page in usage.pages():
        for row, number in enumerate(chosen):
            mine = page["link"] == number
            start, long = page["start"][mine], np.maximum(page["seconds"][mine], 1e-12)
            carried[row] += _spread(edges, start, start + long, page["bytes"][mine])
    shares = 100 * carried / (np.diff(edges) * links["capacity"][chosen][:, None])
    names = [links.labels["link"][links["link"][number]] for number in chosen]
    used = zip(names, shares.mean(axis=1), np.minimum(shares.max(axis=1), 100.0), strict=True)
    note = "; ".join(f"{name} {mean:.2g}% on average, {most:.3g}% at most" for name, mean, most in used)

    def draw(axes: Any, clock: float) -> None:
        middles = (edges[:-1] + edges[1:]) / 2 / clock
        for number, (name, values) in enumerate(zip(names, shares, strict=True)):
            axes.plot(middles, values, color=SERIES[number], linestyle=DASHES[number], label=name)
        axes.set_title("share of what the link can carry, %", pad=20 if len(names) < 3 else 34)
        axes.set_ylim(0, 104)
        axes.legend(ncols=2, handlelength=1.8, **LEGEND)

    return over_time("The busiest links", f"{note}.", facts, draw)


def _spread(edges: np.ndarray, start: np.ndarray, end: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Amounts, each spent evenly from start to end, by the bin of `edges`."""
    return Bins(edges).add(start, end, amount / (end - start)).means() * np.diff(edges)
