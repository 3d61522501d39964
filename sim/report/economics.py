"""Money, energy and carbon on the page of a run: cards for the key figures, panels for where they come from, a plot over the hours."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sim.report.plots import BINS, Drawing, Part, Plot, over_time
from sim.report.section import Sheet
from sim.report.svg import SERIES
from sim.report.words import dollars, number, percent
from sim.study.carbon import grams
from sim.study.energy import HOUR, gpu_hours, hours, site_joules, step_power
from sim.study.facts import Bins
from sim.study.metrics import Facts
from sim.study.money import idle_usd, paid, pool_usd, usd_by_hour
from sim.study.training import site_joules_by_hour, trainers_usd_per_hour

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
    names = {"usd_sandboxes": "For CPU nodes of sandboxes", "usd_judges": "For rented judges", "usd_wasted": "For requests that failed",
             "usd_storage": "Storage", "usd_egress": "Sent between regions"}  # fmt: skip
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


BOUGHT = {"on_demand": "on demand", "reserved_1y": "for a year", "reserved_3y": "for three years", "spot": "spot"}


def sheets(facts: Facts) -> list[Sheet]:
    """Money by pool and by how its GPUs are bought, where a price book says so; and carbon, where there are grids."""
    prices, emitted = facts.result.scenario.prices, grams(facts)
    if prices is None:
        return []
    reserved = any(pool["reserved"] for pool in facts.pools.values())
    rows, carbon = [], {} if emitted is None else dict(zip(facts.pools, emitted.sum(axis=1).tolist(), strict=True))
    for name, usd, idle, time in zip(facts.pools, pool_usd(facts), idle_usd(facts), gpu_hours(facts).sum(axis=1), strict=True):
        pool, kind = facts.pools[name], prices.commitment.get(name, "on_demand")
        kept = [f"{pool['reserved']:,}", dollars(pool["beyond_price_per_hour"])] if pool["reserved"] else ["", ""]
        rows.append([
            name, BOUGHT[kind], dollars(pool["price_per_hour"]), *(kept if reserved else []), number(time), dollars(usd),
            f"{dollars(idle)}{_share(idle, usd)}",
            *([_grams(carbon[name])] if carbon else []),
        ])  # fmt: skip
    note = f"Prices of the book {prices.book}."
    if reserved:
        note += (
            " Reserved replicas are paid all the time, whether they are there or not; what a pool has beyond them is bought on demand. "
            "Idle GPU time: paid for, and without a step."
        )
    extra = ("Reserved", "Beyond them") if reserved else ()
    heads = ("Pool", "Bought", "A GPU-hour", *extra, "GPU-hours", "This run", "Idle GPU time", *["Carbon"][: len(carbon)])
    return [Sheet("Money by pool", heads, rows, note)]


def plots(facts: Facts) -> list[Plot]:
    """Dollars, kilowatts and carbon by hour of the run's clock. A shorter run has a course only where replicas come and go."""
    comes_and_goes = len(facts.result.tables["scaling"]) or len(facts.result.tables["starts"])
    return [course(facts).plot()] if hours(facts) >= LEAST_HOURS or (comes_and_goes and facts.span > 0) else []


def course(facts: Facts) -> Drawing:
    """Money first, then power, then carbon where grids are known: by the hour, or from moment to moment in a run of few hours."""
    return _over_the_hours(facts) if hours(facts) >= LEAST_HOURS else _moments(facts)


def _moments(facts: Facts) -> Drawing:
    """What GPUs cost and draw at a time: replicas there times their price; idle watts, and those of steps above them."""
    edges = np.linspace(facts.begin, facts.end, BINS + 1)
    spent, drawn = Bins(edges), Bins(edges)
    for name in facts.pools:
        one = paid(facts, name)
        spent.add(one.times[:-1], one.times[1:], one.rates)
    start = np.maximum(facts.replicas["start"], facts.begin)
    drawn.add(start, start + facts.lifetimes, facts.per_replica("idle_watts") * facts.gpus)
    for page in facts.stretches():
        drawn.add(page["start"], page.end, (step_power(page) - page.per_pool("idle_watts")) * page.gpus)
    money, watts = spent.means() + trainers_usd_per_hour(facts), drawn.means() / 1e3
    whose = "engines" if facts.meta.get("trainers") else "its GPUs"
    note = f"The fleet costs {dollars(money.max())} an hour at most, {whose} draw {number(watts.max())} kW at most, averaged over a bin."

    def draw(values: np.ndarray, words: str, colour: int) -> Callable[[Any, float], None]:
        return lambda axes, clock: _filled(axes, edges / clock, values, words, colour)

    parts = draw(money, "dollars an hour", 0), draw(watts, f"power of {whose.replace('its', 'the')}, kW", 2)
    return over_time("Money and power over time", note, facts, *parts)


def _filled(axes: Any, edges: np.ndarray, values: np.ndarray, words: str, colour: int) -> None:
    axes.stairs(np.nan_to_num(values), edges, color=SERIES[colour], fill=True, alpha=0.75)
    axes.set_title(words)
    axes.set_ylim(bottom=0)


def _over_the_hours(facts: Facts) -> Drawing:
    edges, carbon = np.arange(hours(facts) + 1), grams(facts)
    money, drawn = np.array(usd_by_hour(facts)), _site_watts(facts) / 1e3
    emitted = [] if carbon is None else [(carbon.sum(axis=0) / 1e3, "kgCO2e in each hour", 1)]
    drawings = [(money, "dollars for GPUs in each hour", 0), (drawn, "power of the site, kW", 2), *emitted]
    note = f"The dearest hour costs {dollars(money.max())}; the site draws {number(drawn.max())} kW at most. The last hour is a begun one."

    def part(values: np.ndarray, words: str, colour: int) -> Part:
        def draw(axes: Any) -> None:
            _filled(axes, edges, values, words, colour)
            axes.set_xlabel("time, h")
            axes.set_xlim(0, edges[-1])

        return draw

    return Drawing("Money and energy by hour", note, tuple(part(*one) for one in drawings), (4.3, 3.0 + 1.3 * len(emitted)))


def _site_watts(facts: Facts) -> np.ndarray:
    """What engines and trainers draw at the site, on average in each hour of the run's clock."""
    trainers = (site_joules_by_hour(facts, one) for one in facts.meta.get("trainers", []))
    found: np.ndarray = (site_joules(facts).sum(axis=0) + sum(trainers)) / HOUR
    return found


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
