"""A comparison as one page and as a block of text: which figures differ by more than chance, and which change did what.

Both are written from what `comparison.json` holds, so that a page can be written anew without a run.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.report import folder
from sim.report.intervals import shown
from sim.report.plots import Plot
from sim.report.section import Sheet
from sim.report.svg import SERIES, STYLE, svg
from sim.report.template import fill
from sim.report.words import DASH, percent

SAME = "the same scenario"
MINUS = "−"
Said = Mapping[str, Any]


def render(said: Said) -> str:
    """The page."""
    return fill(
        "compare", version=said["version"], scenarios=said["scenarios"], said=sentences(said), remarks=[*_audits(said), *said["remarks"]],
        plots=plots(said), sheets=[*sheets(said), *falls(said)], changes=said["changes"],
        files=folder.of_comparison(len(said["differences"])),
    )  # fmt: skip


def block(said: Said) -> str:
    """The tables as text, ending without a newline."""
    lines = [*_audits(said), *(f"Note: {text}" for text in said["remarks"])]
    for sheet, changes in zip(sheets(said), said["changes"], strict=True):
        keys = "; ".join(one["text"] for one in changes["keys"]) or SAME
        lines += [sheet.title, f"  {keys}", *_table(sheet), sheet.note]
    for sheet in falls(said):
        lines += [sheet.title, *_table(sheet), *([sheet.note] if sheet.note else [])]
    return "\n".join(lines)


def sentences(said: Said) -> list[str]:
    """What each scenario does to the figures of the first, in words; nothing where chance cannot be told from it."""
    found = []
    for changes in said["changes"]:
        name = changes["scenario"]
        mine = [row for row in said["differences"] if row["scenario"] == name]
        if any(row["significant"] is None for row in mine):
            continue
        parts = []
        for word, up in (("Lower", False), ("Higher", True)):
            ways = [f"{row['figure']} ({_relative(row)})" for row in mine if row["significant"] and (row["difference"] > 0) == up]
            parts += [f"{word}: {', '.join(ways)}."] if ways else []
        rest = sum(not row["significant"] for row in mine)
        more = f"{rest} of {len(mine)} figures differ by no more than chance."
        found.append(f"{name} against {said['scenarios'][0]['name']}. {' '.join([*parts, more] if rest else parts)}")
    return found


def sheets(said: Said) -> list[Sheet]:
    """A table for each scenario against the first."""
    base = said["scenarios"][0]
    heads = ("Figure", "First", "Other", "Difference", "±", "Of the first", "p, Holm", "Significant")
    kind = "paired Student" if said["paired"] else "Welch"
    found = []
    for one in said["scenarios"][1:]:
        rows = [_cells(row) for row in said["differences"] if row["scenario"] == one["name"]]
        n = f"{min(base['n'], one['n'])} pairs" if said["paired"] else f"{base['n']} and {one['n']} replications"
        note = f"{n}, {kind} intervals of {said['level']:.0%}. Significant: beyond chance, at 5 % over all figures compared (Holm)."
        found.append(Sheet(f"{one['name']} against {base['name']}", heads, rows, note if min(base["n"], one["n"]) > 1 else ""))
    return found


def falls(said: Said) -> list[Sheet]:
    """A table for each waterfall."""
    found = []
    for one in said["waterfalls"]:
        name, heads = one["figure"], ("Change", "Adds, in this order", "±", "p", "Adds on average over orders", "±")
        rows = [["before", shown(name, [one["before"]])[0], "", "", "", ""]]
        for part in one["parts"]:
            average = part["average"] or {}
            rows.append(["; ".join(part["changes"]), *_signed(name, part["added"]["mean"], part["added"]["half"]), f"{part['p']:.2g}",
                         *(_signed(name, average["mean"], average["half"]) if average else (DASH, DASH))])  # fmt: skip
        rows.append(["after", shown(name, [one["after"]])[0], "", "", "", ""])
        found.append(Sheet(f"What changed {name} in {one['scenario']}", heads, rows, one["remark"]))
    return found


def plots(said: Said) -> list[Plot]:
    """Relative differences with their intervals, and a waterfall for each that there is."""
    from matplotlib import rc_context

    with rc_context(STYLE | {"font.size": 9, "ytick.labelsize": 8.5}):
        some = [row for row in said["differences"] if row["interval"] and row["base"]]
        return [*([_forest(said, some)] if some else []), *(_fall(one) for one in said["waterfalls"])]


def _forest(said: Said, rows: Sequence[Said]) -> Plot:
    from matplotlib.figure import Figure

    title = f"Differences to {said['scenarios'][0]['name']}, %"
    note = "Dots with 95 % intervals; filled: more than chance. Left of 0 is lower, whether or not that is better."
    figures, others = list(dict.fromkeys(row["figure"] for row in rows)), [one["name"] for one in said["scenarios"][1:]]
    figure = Figure(figsize=(4.6, max(2.2, 0.9 + (0.16 + 0.08 * len(others)) * len(figures))), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(others):
        mine, colour = [row for row in rows if row["scenario"] == name], SERIES[number % len(SERIES)]
        places = [figures.index(row["figure"]) + 0.5 * ((number + 0.5) / len(others) - 0.5) for row in mine]
        centre, half = ([100 * value(row) / abs(row["base"]) for row in mine] for value in (lambda row: row["difference"], _half))
        axes.errorbar(centre, places, xerr=half, fmt="none", ecolor=colour, elinewidth=1.2, capsize=2)
        for significant in (True, False):
            chosen = [place for place, row in enumerate(mine) if bool(row["significant"]) is significant]
            x, y = ([values[place] for place in chosen] for values in (centre, places))
            filled = {"markerfacecolor": colour, "label": name} if significant else {"markerfacecolor": "none"}
            axes.plot(x, y, "osD^v"[number % 5], color=colour, markersize=4.5, **filled)
    axes.axvline(0.0, color=SERIES[4], linewidth=0.8)
    axes.set_yticks(range(len(figures)), figures)
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    if len(others) > 1:
        figure.legend(loc="outside upper left", ncols=1, borderpad=0)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _half(row: Said) -> float:
    return float(row["interval"]["half"])


def _fall(one: Said) -> Plot:
    from matplotlib.figure import Figure

    averaged = all(part["average"] for part in one["parts"])
    title = f"{one['figure']}: from first to {one['scenario']}"
    note = "Each bar is what a change adds, with its 95 % interval, " + (
        "averaged over all orders." if averaged else "on top of those above it.")  # fmt: skip
    parts = [part["average" if averaged else "added"] for part in one["parts"]]
    names = ["before", *("; ".join(_key(text) for text in part["changes"]) for part in one["parts"]), "after"]
    figure = Figure(figsize=(4.6, max(1.8, 0.8 + 0.3 * len(names))), layout="constrained")
    axes, level = figure.subplots(), one["before"]
    axes.barh(0, level, color=SERIES[0], alpha=0.75, height=0.6)
    for place, part in enumerate(parts, 1):
        right = max(level, level + part["mean"]) + part["half"]
        axes.barh(place, part["mean"], left=level, color=SERIES[1 if part["mean"] > 0 else 2], alpha=0.75, height=0.6)
        level += part["mean"]
        axes.errorbar(level, place, xerr=part["half"], fmt="none", ecolor=SERIES[4], elinewidth=1.2, capsize=2)
        text = shown(one["figure"], [part["mean"]])[0].replace("-", MINUS)
        axes.annotate(text if part["mean"] < 0 else f"+{text}", (right, place), (6, 0), textcoords="offset points", va="center")
    axes.barh(len(names) - 1, one["after"], color=SERIES[0], alpha=0.75, height=0.6)
    for place, value in ((0, one["before"]), (len(names) - 1, one["after"])):
        axes.annotate(shown(one["figure"], [value])[0], (value, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    # Bars would hold the axis to their ends, and no room be left for the figures beside them.
    axes.use_sticky_edges = False
    axes.margins(x=0.2)
    axes.set_xlim(left=min(0.0, axes.dataLim.x0))
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)
    return Plot(title, note, svg(figure, title, f"{title}. {note}"))


def _key(text: str) -> str:
    """The end of a key, and what it becomes."""
    key, _, values = text.partition(": ")
    return f"{key.rpartition('.')[2]} {values.rpartition(' → ')[2]}"


def _cells(row: Said) -> list[str]:
    name, interval = row["figure"], row["interval"]
    first, other = shown(name, [row["base"], row["mean"]])
    if not interval:
        return [name, first, other, _signed(name, row["difference"], 0.0)[0], DASH, _relative(row), DASH, ""]
    mark = "yes" if row["significant"] else ""
    return [name, first, other, *_signed(name, row["difference"], interval["half"]), _relative(row), f"{row['adjusted']:.2g}", mark]


def _signed(name: str, value: float, half: float) -> tuple[str, str]:
    """A difference with its sign, and half its interval; shares differ by points, not by per cent of each other."""
    text, spread = (cell.replace("%", " pp") for cell in shown(name, [value, half]))
    text = text.replace("-", MINUS)
    return (f"+{text}" if value > 0 else text), spread


def _relative(row: Said) -> str:
    if not row["base"]:
        return DASH
    share = row["difference"] / abs(row["base"])
    return f"{'+' * (share > 0)}{percent(share)}".replace("-", MINUS)


def _audits(said: Said) -> list[str]:
    broken = [one["name"] for one in said["scenarios"] if not one["audit_ok"]]
    return [f"AUDIT FAILED in runs of {', '.join(broken)}: do not trust these figures."] if broken else []


def _table(sheet: Sheet) -> list[str]:
    table = [list(sheet.heads), *sheet.rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(sheet.heads))]
    return ["  ".join(f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(row)).rstrip() for row in table]
