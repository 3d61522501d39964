"""`burstsim run` of a scenario with a curve: every point, what is finished on disk, and a page with the frontier."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from sim.cli.written import put_page, reached, where
from sim.spec.scenario import Scenario
from sim.study import speed_cost as study


def run(scenario: Scenario, folder: Path | None, pages: dict[str, Any], **flags: bool) -> int:
    """Sweep, show, and give the exit code: 1 when an audit failed."""
    from sim.report.curve import block, render
    from sim.report.progress import counted

    if folder is not None:
        study.prepare(scenario, folder, flags["force"])
    found = study.Sweep(scenario, [], 0)
    try:
        with counted("sweeping", not flags["quiet"]) as progress:
            for found in study.sweep(scenario, folder, jobs=os.cpu_count() or 1, progress=progress):
                if folder is not None:
                    done = f"{len(found.rows)} of {found.wanted} points are finished in {folder}"
                    reached(f"{done}; the same command goes on from there")
    finally:
        if folder is not None and pages and found.rows:
            put_page(folder, render(found))
    if flags["as_json"]:
        click.echo(json.dumps(found.rows, indent=2))
    elif not flags["quiet"]:
        click.echo(block(found))
    where(folder, bool(pages), flags["quiet"])
    return int(not all(row["audit_ok"] for row in found.rows))
