"""`burstsim run` of a scenario with a ladder: every step, what is finished on disk, and a page that says which step bought what."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sim.cli.written import put_page, reached, where
from sim.spec.scenario import Scenario
from sim.study import ladder as study


def run(scenario: Scenario, folder: Path | None, pages: dict[str, Any], **flags: bool) -> int:
    """Climb, show, and give the exit code: 1 when an audit failed or the last step kept misses its SLO."""
    from sim.report.ladder import block, render
    from sim.report.progress import counted

    if folder is not None:
        study.prepare(scenario, folder, flags["force"])
    ladder = study.Ladder(scenario, [], len(scenario.ladder), study.MOST)
    try:
        with counted("climbing", not flags["quiet"]) as progress:
            for ladder in study.climb(scenario, folder, pages=pages, progress=progress):
                if folder is not None:
                    done = f"{len(ladder.rows)} of {ladder.wanted} steps are finished in {folder}"
                    reached(f"{done}; the same command goes on from there")
    finally:
        if folder is not None and pages and ladder.rows:
            put_page(folder, render(ladder))
    if flags["as_json"]:
        click.echo(json.dumps(ladder.rows, indent=2))
    elif not flags["quiet"]:
        click.echo(block(ladder))
    where(folder, bool(pages), flags["quiet"])
    last = [row for row in ladder.rows if row["kept"]][-1]
    return int(last["slo_met"] is False or not all(row["audit_ok"] for row in ladder.rows))
