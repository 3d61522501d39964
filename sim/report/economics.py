"""Money, energy and carbon on the page of a run: cards for the key figures, panels for where they come from, a plot over the hours."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.report.plots import Plot
from sim.report.svg import SERIES, STYLE, svg
from sim.report.words import dollars, number, percent
from sim.study.carbon import grams
from sim.study.energy import HOUR, hours, site_joules
from sim.study.metrics import Facts
from sim.study.money import usd_by_hour

LEAST_HOURS = 3  # a run of fewer has no course over the hours


def cards(summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, value, what else) of each card."""
    cost, energy, carbon = summary["cost"], summary["energy"], summary["carbon"]
    yield "Per million output tokens", dollars(cost["usd_per_million_output_tokens"]), f"{dollars(cost['usd_per_hour'])} an hour"
    yield "Energy per output token", _joules(energy["joules_per_output_token"]), f"{number(energy['kwh'])} kWh in all"
    if carbon["grams"] is not None:
        yield "Carbon per million output tokens", _grams(_millions(carbon["grams_per_output_token"])), f"{_grams(carbon['grams'])} in all"


def panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Titles with (name, value) rows. Rows that would say nothing (no storage, no failed request) are left out."""
    cost, energy = summary["cost"], summary["energy"]
    spent = [
        ("This run", dollars(cost["usd_total"])), ("Per hour, mean", dollars(cost["usd_per_hour"])),
        ("Per hour, at the peak", dollars(cost["usd_per_hour_peak"])), ("Per request", dollars(cost["usd_per_request"])),
        ("Prompts, per million input tokens", dollars(cost["input_usd_per_million"])),
        ("Answers, per million output tokens", dollars(cost["output_usd_per_million"])),
        ("Both, per million output tokens", dollars(cost["usd_per_million_output_tokens"])),
        ("Both, per million tokens", dollars(cost["usd_per_million_total_tokens"])),
        ("For idle GPU time", f"{dollars(cost['usd_idle'])}{_share(cost['usd_idle'], cost['usd_total'])}"),
    ]  # fmt: skip
    names = {"usd_wasted": "For requests that failed", "usd_storage": "Storage", "usd_egress": "Sent between regions"}
    spent += [(name, dollars(cost[key])) for key, name in names.items() if cost[key]]
    drawn = [
        ("GPUs", f"{number(energy['kwh'])} kWh"), ("With their hosts", f"{number(energy['node_kwh'])} kWh"),
        ("With the site around them", f"{number(energy['site_kwh'])} kWh"),
        ("A GPU, mean", f"{number(energy['gpu_watts'] and round(energy['gpu_watts']))} W"),
        ("Drawn between steps", percent(energy["idle_share"])),
        ("Per output token, all of the GPUs", _joules(energy["joules_per_output_token"])),
        ("Per prompt token computed", _joules(energy["prefill_joules_per_token"])),
        ("Per output token, decode alone", _joules(energy["decode_joules_per_token"])),
        *_carbon(summary["carbon"]),
    ]  # fmt: skip
    return [{"title": "Money", "rows": spent}, {"title": "Energy and carbon" if _carbon(summary["carbon"]) else "Energy", "rows": drawn}]


def plots(facts: Facts) -> list[Plot]:
    """Dollars, and kilowatts or carbon, by hour of the run's clock; none for short runs."""
    from matplotlib import rc_context

    if hours(facts) < LEAST_HOURS:
        return []
    with rc_context(STYLE):
        return [_over_the_hours(facts)]


def _over_the_hours(facts: Facts) -> Plot:
    from matplotlib.figure import Figure

    edges, carbon = np.arange(hours(facts) + 1), grams(facts)
    money, drawn = np.array(usd_by_hour(facts)), site_joules(facts).sum(axis=0) / HOUR / 1e3
    lower = (drawn, "power of the site, kW") if carbon is None else (carbon.sum(axis=0) / 1e3, "kgCO2e in each hour")
    note = f"The dearest hour costs {dollars(money.max())}; the site draws {number(drawn.max())} kW at most. The last hour is a begun one."
    title, figure = "Money and energy by hour", Figure(figsize=(4.3, 3.0), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    drawings = ((money, "dollars for GPUs in each hour", 0), (*lower, 2))
    for one, (values, words, colour) in zip(axes, drawings, strict=True):
        one.stairs(np.nan_to_num(values), edges, color=SERIES[colour], fill=True, alpha=0.75)
        one.set_title(words)
        one.set_ylim(bottom=0)
    axes[1].set_xlabel("time, h")
    axes[1].set_xlim(0, edges[-1])
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _carbon(carbon: dict[str, Any]) -> list[tuple[str, str]]:
    if carbon["grams"] is None:
        return []
    made = [("Of it, making the GPUs", _grams(carbon["embodied_grams"]))] if carbon["embodied_grams"] else []
    return [
        ("Carbon", _grams(carbon["grams"])), *made, ("Grid, by the hours used", f"{number(carbon['grams_per_kwh'])} g/kWh"),
        ("Carbon per request", _grams(carbon["grams_per_request"])),
    ]  # fmt: skip


def _share(part: float | None, whole: float | None) -> str:
    return f" ({percent(part / whole)})" if part and whole else ""


def _millions(value: float | None) -> float | None:
    return None if value is None else value * 1e6


def _joules(value: float | None) -> str:
    return f"{number(value)} J"


def _grams(value: float | None) -> str:
    """
    >>> _grams(12.3), _grams(4500), _grams(3.2e6)
    ('12.3 gCO2e', '4.5 kgCO2e', '3.2 tCO2e')
    """
    for size, unit in ((1e6, "tCO2e"), (1e3, "kgCO2e")):
        if value is not None and value >= size:
            return f"{number(value / size)} {unit}"
    return f"{number(value)} gCO2e"
