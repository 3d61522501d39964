"""`burstsim plan`: the cheapest cluster that holds the SLO, and why it is that one."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sim.cli.study import Asked, Shown, answer, options, page


@click.command()
@options("plan", "plan.meets=0.99")
@click.option("--brief", is_flag=True, help="Only the answer: not what binds, what it hangs on and what rivals would cost.")
def plan(asked: Asked, brief: bool) -> None:
    """Find the cheapest cluster for SCENARIO, a YAML file with a block `plan`, that meets its SLO, today and as its traffic grows.

    Leaves with 1 when nothing meets the SLO today (what is reachable, and what blocks it, is said), with 2 when the input cannot be used.
    """
    from sim.report.plan import block
    from sim.spec import compose
    from sim.study.plan.plan import question

    document = compose.change(compose.from_file(asked.scenario), asked.sets)
    found = answer(asked, question(document, not brief), Shown("planning", block, said, _pages))
    sys.exit(int(found.best is None))


def said(found: Any) -> dict[str, Any]:
    """The plan as JSON, without its single runs and scenarios."""
    return {name: value for name, value in vars(found).items() if name not in ("runs", "scenario", "answer")}


def _pages(found: Any, folder: Path) -> None:
    """The page of the plan, and that of the run of its answer."""
    from sim.report.page import render as whole
    from sim.report.plan import render
    from sim.study.plan.plan import BEST
    from sim.study.result import Result

    page(render)(found, folder)
    if found.answer is not None:
        page(whole)(Result.open(folder / BEST), folder / BEST)
