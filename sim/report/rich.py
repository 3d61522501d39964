"""Results, plans, capacities and frontiers as a notebook shows them: the answer first, then the figures, reasons and doubts that a page
begins with.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.core.display import listed, said, shown, table

if TYPE_CHECKING:
    from sim.study.plan.capacity import Capacity
    from sim.study.plan.pareto import Pareto
    from sim.study.plan.plan import Plan
    from sim.study.result import Result

BEYOND = "Extrapolated: "  # what a warning of that kind begins with
FEW = 8  # layouts that are shown without asking
VERDICTS = {"stable": "good", "backlogged": "warn", "overloaded": "bad"}


def result_html(result: Result) -> str:
    """Verdict with its reason, whether service levels hold, key figures, why, warnings, and what the audit found."""
    from sim.report.answer import answer
    from sim.report.page import cards, warnings
    from sim.report.text import failures

    summary = result.summary
    reason = f": {summary['verdict_reason']}" if summary["verdict_reason"] else ""
    figures = [tuple(card) for card in cards(summary)]
    lines = warnings(result)
    doubts = [line.removeprefix(BEYOND) for line in lines if line.startswith(BEYOND)]
    notes = [line for line in lines if not line.startswith(BEYOND)]
    broken = failures(summary)
    checks = f"Audit: all {len(summary['audit'])} checks of the run's own books hold." if not broken else "AUDIT FAILED, do not trust this:"
    books = said(checks, "bad" if broken else "", soft=not broken) + listed(broken)
    return shown(
        "result", result.scenario.name, said(f"{summary['verdict'].capitalize()}{reason}", VERDICTS[summary["verdict"]]),
        *map(said, answer(summary)), table(("", "", ""), figures), listed(row["text"] for row in summary["why"]),
        *(said(f"Note: {line}") for line in notes), listed(doubts, _beyond(doubts)), books,
    )  # fmt: skip


def plan_html(plan: Plan) -> str:
    """The answer, what binds and how much more it bears, the answers as traffic grows, and who lost."""
    from sim.report.plan import answer, growth, losers, reached, sentences

    later, others = growth(plan), losers(plan)
    folded = f"{len(others.rows)} layouts" if len(others.rows) > FEW else ""
    grids = (later.sheets if later else []) if plan.best else [reached(plan)]
    return shown(
        "plan", plan.scenario.name, said(answer(plan), "good" if plan.best else "bad"), listed(sentences(plan)),
        *(table(grid.heads, grid.rows) for grid in grids), table(others.heads, others.rows, folded),
        listed(plan.extrapolated, _beyond(plan.extrapolated)),
    )  # fmt: skip


def capacity_html(found: Capacity) -> str:
    """How much it bears, how sure that is and what gives first, and the loads around the knee."""
    from sim.report.capacity import answer, sentences
    from sim.report.capacity import shown as curve

    grid = curve(found)
    return shown(
        "capacity", found.scenario.name, said(answer(found), "good" if found.knee.low else "bad"), listed(sentences(found)),
        table(grid.heads, grid.rows),
    )  # fmt: skip


def pareto_html(found: Pareto) -> str:
    """What is fastest, yields most and is cheapest, the points on the frontier, and the layouts that cannot be."""
    from sim.report.pareto import answer
    from sim.report.pareto import shown as frontier

    grid = frontier(found)
    refused = f"{len(found.refused)} layout{'s' * (len(found.refused) != 1)} that cannot be"
    return shown(
        "frontier", found.scenario.name, said(answer(found), "good" if grid.rows else "bad"), table(grid.heads, grid.rows),
        table(("Layout", "Why"), found.refused, refused),
    )  # fmt: skip


def _beyond(lines: Sequence[str]) -> str:
    return f"Extrapolated beyond what was measured: {len(lines)} remark{'s' * (len(lines) != 1)}"
