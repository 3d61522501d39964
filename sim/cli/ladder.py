"""`burstsim run` of a scenario with a ladder: every step, what is finished on disk, and a page that says which step bought what."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sim.spec.scenario import Scenario
from sim.study import ladder as study

REPORT = "report.html"


def run(scenario: Scenario, folder: Path | None, pages: dict[str, Any], written: str, **flags: bool) -> int:
    """Climb, show, and give the exit code: 1 when an audit failed or the last step kept misses its SLO. `written`: where to say how far
    it came, in the context of click.
    """
    from sim.report.ladder import block
    from sim.report.progress import counted

    if folder is not None:
        study.prepare(scenario, folder, flags["force"])
    ladder = study.Ladder(scenario, [], len(scenario.ladder), study.MOST)
    try:
        with counted("climbing", not flags["quiet"]) as progress:
            for ladder in study.climb(scenario, folder, pages=pages, progress=progress):
                if folder is not None:
                    done = f"{len(ladder.rows)} of {ladder.wanted} steps are finished in {folder}"
                    click.get_current_context().meta[written] = f"{done}; the same command goes on from there"
    finally:
        if folder is not None and pages and ladder.rows:
            (folder / REPORT).write_text(render(ladder), encoding="utf-8")
    if flags["as_json"]:
        click.echo(json.dumps(ladder.rows, indent=2))
    elif not flags["quiet"]:
        click.echo(block(ladder))
    if folder is not None and not flags["quiet"]:
        click.echo(f"written to {folder}{f'; open {folder / REPORT}' if pages else ''}", err=True)
    last = [row for row in ladder.rows if row["kept"]][-1]
    return int(last["slo_met"] is False or not all(row["audit_ok"] for row in ladder.rows))


def render(ladder: study.Ladder) -> str:
    """The page of a ladder."""
    from sim.report.ladder import render as page

    return page(ladder)
