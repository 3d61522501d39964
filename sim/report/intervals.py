"""How sure the figures are, as a block of text and as a part of a page: the mean of each, give or take half its interval."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.report.section import Sheet
from sim.report.words import DASH, dollars, number, percent, together
from sim.study.figures import main
from sim.study.replicate.interval import BATCHES, Interval
from sim.study.replicate.replications import Replications

SHARES = ("fraction", "attainment", "hit_rate", "mfu", "mbu", "share", "idle_frac")
LED = 4  # figures named at the head of a page
HEADS = ("Figure", "Mean", "±", "From", "To", "± of the mean")


class Sure(NamedTuple):
    """How sure the figures of a page are: `lead` is said at its head, `sheet` has the rest."""

    lead: str
    sheet: Sheet


def shown(name: str, values: list[float]) -> list[str]:
    """Values of one figure as people read them, in one unit, which its dotted name tells.

    >>> shown("ttft_s.p99", [0.21, 0.0123]), shown("slo.attainment", [0.987, 0.01]), shown("cost.usd_per_hour", [12.0])
    (['210 ms', '12.3 ms'], ['98.7%', '1%'], ['$12.00'])
    """
    parts = name.split(".")
    if any(part.endswith("_s") and not part.endswith("_per_s") for part in parts):
        unit, cells = together([abs(value) for value in values])
        signs = ["-" * (value < 0 and cell not in ("0", DASH)) for cell, value in zip(cells, values, strict=True)]
        return [f"{sign}{cell} {unit}" for sign, cell in zip(signs, cells, strict=True)]
    if any("usd" in part for part in parts):
        return [f"{'-' * (value < 0)}{dollars(abs(value))}" for value in values]
    if parts[-1].endswith(SHARES):
        return [percent(value) for value in values]
    return [number(value) for value in values]


def give_or_take(name: str, one: Interval) -> str:
    """The mean and half its interval, such as `210 ± 12.3 ms`."""
    mean, half = shown(name, [one.mean, one.half])
    value, _, unit = mean.partition(" ")
    return f"{value} ± {half}" if half.endswith(unit) and unit else f"{mean} ± {half}"


def block(found: Replications) -> str:
    """The text block, ending without a newline."""
    return "\n".join(_lines(found))


def _lines(found: Replications) -> Iterator[str]:
    yield found.words
    yield verdicts(found)
    yield from (f"Note: {line}" for line in found.remarks)
    rows = [(name, *_cells(name, found.interval(name))) for name in names(found)]
    if not rows:
        return
    table = [HEADS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADS))]
    yield from ("  ".join(f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(row)) for row in table)
    yield f"n = {len(found)}, {found.method}. Each figure alone lies in its interval in 95 of 100 such studies."


def verdicts(found: Replications) -> str:
    """How often the verdict was which, and the SLO met."""
    counts = found.table["verdict"].value_counts()
    of = "the run" if found.method == BATCHES else f"of {len(found)} replications"
    said = [f"{word}" if found.method == BATCHES else f"{count} {word}" for word, count in counts.items()]
    met = found.table["slo.met"].dropna() if "slo.met" in found.table else []
    slo = f" SLO met in {sum(map(bool, met))} of {len(met)}." if len(met) else ""
    broken = int((~found.table["audit_ok"].astype(bool)).sum())
    wrong = f" AUDIT FAILED in {broken} of {len(found)}: do not trust these figures." if broken else ""
    return f"Verdict, {of}: {', '.join(said)}.{slo}{wrong}"


def sure(found: Replications) -> Sure:
    """The parts of a page."""
    every = names(found)
    rows = [[name, *_cells(name, found.interval(name))] for name in every]
    rest = "of the whole run" if found.method == BATCHES else "of the first replication"
    named = f"Figures are named as in summary.json; the others of this page are {rest}."
    table = Sheet("How sure the figures are", HEADS, rows, " ".join((found.words, verdicts(found), *found.remarks, named)))
    means = ", ".join(f"{name} {give_or_take(name, found.interval(name))}" for name in every[:LED])
    said = f" Means with 95 % intervals: {means}." if means else ""
    return Sure(f"{verdicts(found)}{said} What follows is {rest}.", table)


def names(found: Replications) -> list[str]:
    """The figures that are shown: those people look at first, and those whose precision was asked for."""
    every = dict.fromkeys([*(name for name, _ in found.precision), *main(found.names)])
    missing = found.missing
    return [name for name in every if name not in missing] if len(found) > 1 else []


def _cells(name: str, one: Interval) -> tuple[str, ...]:
    return (*shown(name, [one.mean, one.half, one.low, one.high]), percent(one.relative))

