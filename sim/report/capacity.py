"""A capacity as one page and as a block of text: how much traffic the cluster bears, how sure that is, and what gives first."""
from __future__ import annotations

import math

from sim.report.decision import Card, Grid, Page, Part, columns
from sim.report.decision import render as page
from sim.report.folder import of_points
from sim.report.plots import Plot
from sim.report.svg import INK, SERIES, STYLE, svg
from sim.report.words import dollars, number, percent, seconds
from sim.spec.limits import worded
from sim.spec.load import dump
from sim.study.plan.capacity import Capacity

HEADS = ("Load", "Value", "SLO met", "95 %", "TTFT p99", "TPOT p99", "Tokens/s", "$/Mtok", "Overloaded")


def render(found: Capacity) -> str:
    """The page."""
    met = bool(found.knee.low)
    least = Part("The least load that was run", [_limits(found)])
    parts = [Part("Around the knee", [_curve(found)], _plots(found)) if found.rows else least]
    mark, word = ("stable", _load(found, found.knee.low)) if met else ("overloaded", "No load meets the SLO")
    shown = Page(
        "a capacity", found.scenario.name, found.scenario.description, mark, word, answer(found), sentences(found), _cards(found), parts,
        dump(found.scenario), "Load: times the traffic of the scenario.",
        of_points("capacity", len(found.rows), "A row for each load around the knee, with its figures over replications."),
    )  # fmt: skip
    return page(shown)


def block(found: Capacity) -> str:
    """The capacity as text, ending without a newline."""
    return "\n".join([answer(found), *sentences(found), "", *columns(shown(found))])


def shown(found: Capacity) -> Grid:
    """The curve around the knee, or without one the limits at the least load that was run."""
    return _curve(found) if found.rows else _limits(found)


def answer(found: Capacity) -> str:
    """One sentence."""
    if not found.knee.low:
        return f"The SLO is met at no load that was tried, down to {number(found.knee.high)} times the traffic written: {found.binds}."
    what = "the SLO is met"
    if math.isinf(found.knee.high):
        return f"Up to {_load(found, found.knee.low)}, the most that was tried, {what}."
    return f"Up to {_load(found, found.knee.low)} {what}; at {_load(found, found.knee.high)} it is not."


def sentences(found: Capacity) -> list[str]:
    """What goes with the answer, in words."""
    said = []
    if found.met is not None and found.replications > 1:
        said.append(f"At the lower of the two {percent(found.met)} of {found.replications} runs with seeds of their own meet it.")
        sure = [row for row in found.rows if row["met"] == 1.0]
        if sure and found.met < 1.0:
            said.append(f"All of them do at {_load(found, max(row['load'] for row in sure))}.")
    if found.binds:
        said.append(f"What gives first: {found.binds}. {' '.join(found.why)}")
    low, high = found.saturation
    if found.knee.low and math.isfinite(high):
        said.append(f"Service keeps up until somewhere between {_load(found, low)} and {_load(found, high)}; beyond, queues grow for ever.")
    return [*said, f"{found.runs} runs."]


def _load(found: Capacity, load: float) -> str:
    """A load in words: in units of the key, or of the one rate there is."""
    if found.unit is None:
        return f"{number(load)} times the traffic"
    if found.key is not None:
        return f"{found.key} = {number(load * found.unit)}"
    kind = "requests/s" if found.scenario.workloads[0].get("rate") is not None else "clients"
    return f"{number(load * found.unit)} {kind}"


def _cards(found: Capacity) -> list[Card]:
    row = next((row for row in found.rows if row["load"] == found.knee.low), None)
    if row is None:
        return []
    return [
        Card("Knee", number(found.knee.low), f"times the traffic written; fails at {number(found.knee.high)}"),
        Card("Saturation", number(found.saturation.high), "times the traffic: queues grow for ever"),
        Card("SLO met at the knee", percent(row["met"]), f"of {row['runs']} runs"),
        Card("Output tokens/s at the knee", number(row["output_tokens_per_s"]), f"GPUs busy {percent(row['busy'])}"),
        Card("Per million output tokens", dollars(row["usd_per_million_output_tokens"]), "at the knee, prompts included"),
    ]  # fmt: skip


def _curve(found: Capacity) -> Grid:
    rows = [[
        number(row["load"]), number(row["value"]), percent(row["met"]),
        f"{percent(row['met_low'])} to {percent(row['met_high'])}" if row["met_low"] is not None else "", seconds(row["ttft_p99"]),
        seconds(row["tpot_p99"]), number(row["output_tokens_per_s"]), dollars(row["usd_per_million_output_tokens"]),
        percent(row["overloaded"]),
    ] for row in found.rows]  # fmt: skip
    best = tuple(place for place, row in enumerate(found.rows) if row["load"] == found.knee.low)
    note = (
        f"Means over {found.replications} runs with seeds of their own, the same for all loads. Load: times the traffic written; the knee "
        "is bold. 95 %: where the share of runs that meet the SLO may lie (Wilson). Percentiles beyond saturation measure the length of "
        "the run."
    )
    return Grid(HEADS, rows, note, best=best)


def _limits(found: Capacity) -> Grid:
    rows = [[worded(row["limit"]), seconds(row["limit_s"]), seconds(row["measured_s"])] for row in found.best]
    return Grid(("Limit", "Asked", "Reached"), rows)


def _plots(found: Capacity) -> list[Plot]:
    from matplotlib import rc_context

    with rc_context(STYLE):
        return [_drawn(found, *one) for one in (
            ("How often the SLO is met", "share of runs", "met"), ("TTFT p99", "seconds, logarithmic", "ttft_p99"),
            ("TPOT p99", "seconds", "tpot_p99"),
        )]  # fmt: skip


def _drawn(found: Capacity, title: str, label: str, key: str) -> Plot:
    """One figure over the load."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    x, note = [row["load"] for row in found.rows], "The dashed line: the knee."
    axes.plot(x, [math.nan if row[key] is None else row[key] for row in found.rows], marker="o", markersize=3.5, color=SERIES[0])
    limit = found.scenario.slo.model_dump().get(key)
    if key == "met":
        low, high = ([row["met"] if row[end] is None else row[end] for row in found.rows] for end in ("met_low", "met_high"))
        axes.fill_between(x, low, high, color=SERIES[0], alpha=0.2, linewidth=0)
        axes.set_ylim(-0.03, 1.03)
        note += " The band: where the share may lie (95 %)."
    elif limit is not None:
        axes.axhline(limit, color=SERIES[1], linewidth=1)
        note += f" The level line: the limit, {seconds(limit)}."
    if key == "ttft_p99":
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axvline(found.knee.low, color=INK, linewidth=1, linestyle="--")
    axes.set_xlabel("load, times the traffic written")
    axes.set_title(label)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))
