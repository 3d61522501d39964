"""`burstsim plan`: the cheapest cluster that holds the SLO, and why it is that one."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
REPORT = "report.html"
WRITTEN = "sim.cli.written"


@click.command()
@click.argument("scenario", type=FOLDER)
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Write the plan to this folder; without it nothing is written.")
@click.option("--force", is_flag=True, help="Replace the plan in the folder, if it holds one.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value, such as plan.meets=0.99; repeatable.")
@click.option("--jobs", type=click.IntRange(1), help="Processes for replications; default: one for each core.")
@click.option("--brief", is_flag=True, help="Only the answer: not what binds, what it hangs on and what rivals would cost.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
def plan(scenario: Path, folder: Path | None, sets: tuple[str, ...], jobs: int | None, **flags: bool) -> None:
    """Find the cheapest cluster for SCENARIO, a YAML file with a block `plan`, that meets its SLO, today and as its traffic grows.

    Leaves with 1 when nothing meets the SLO today (what is reachable, and what blocks it, is said), with 2 when the input cannot be used.
    """
    from sim.report.plan import block
    from sim.report.progress import counted
    from sim.spec import compose
    from sim.study import plan as study
    from sim.study.shelf import prepare

    document = compose.change(compose.from_file(scenario), sets)
    if folder is not None:
        prepare(folder, study.SAVED, flags["force"])
    with counted("planning", not flags["quiet"]) as progress:
        found = study.plan(document, explain=not flags["brief"], jobs=jobs or os.cpu_count() or 1, progress=progress)
    if folder is not None:
        study.save(found, folder)
        click.get_current_context().meta[WRITTEN] = f"the plan is complete in {folder}"
        _best(found, folder, not flags["no_report"])
        if not flags["no_report"]:
            (folder / REPORT).write_text(render(found), encoding="utf-8")
    if flags["as_json"]:
        click.echo(json.dumps(said(found), indent=2))
    elif not flags["quiet"]:
        click.echo(block(found))
    if folder is not None and not flags["quiet"]:
        click.echo(f"written to {folder}{'' if flags['no_report'] else f'; open {folder / REPORT}'}", err=True)
    sys.exit(int(found.best is None))


def said(found: Any) -> dict[str, Any]:
    """The plan as JSON, without its single runs and scenarios."""
    return {name: value for name, value in vars(found).items() if name not in ("runs", "scenario", "answer")}


def render(found: Any) -> str:
    """The page of a plan."""
    from sim.report.plan import render as page

    return page(found)


def _best(found: Any, folder: Path, report: bool) -> None:
    """The run of the answer, whole, so that every number can be traced to it."""
    if found.answer is None:
        return
    from sim.report.page import render as page
    from sim.study.run import run

    run(found.answer).save(folder / "best", (folder / "best").exists(), {REPORT: page} if report else {})
