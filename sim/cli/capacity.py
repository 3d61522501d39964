"""`burstsim capacity`: how much traffic a cluster bears before it misses its SLO, and before service is outrun."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
REPORT = "report.html"
WRITTEN = "sim.cli.written"


@click.command()
@click.argument("scenario", type=FOLDER)
@click.option("--key", metavar="KEY", help="Raise this value alone, such as workloads.0.rate; default: all traffic.")
@click.option("--replications", type=click.IntRange(1), default=5, show_default=True, help="Seeds at each load around the knee.")
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Write what was found to this folder; without it nothing is written.")
@click.option("--force", is_flag=True, help="Replace the capacity in the folder, if it holds one.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value, such as slo.ttft_p99=1s; repeatable.")
@click.option("--jobs", type=click.IntRange(1), help="Processes for the loads around the knee; default: one for each core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
def capacity(scenario: Path, folder: Path | None, sets: tuple[str, ...], jobs: int | None, **options: bool | int | str | None) -> None:
    """Find the highest load at which SCENARIO, a YAML file, still meets its SLO.

    Leaves with 1 when no load meets it, with 2 when the input cannot be used.
    """
    from sim.report.capacity import block, render
    from sim.report.progress import counted
    from sim.spec.load import load
    from sim.study import capacity as study
    from sim.study.shelf import prepare, put

    spec = load(scenario, sets)
    if folder is not None:
        prepare(folder, study.SAVED, bool(options["force"]))
    key, count = options["key"], options["replications"]
    with counted("looking for the knee", not options["quiet"]) as progress:
        found = study.capacity(
            spec, None if key is None else str(key), replications=int(count or 1), jobs=jobs or os.cpu_count() or 1, progress=progress
        )
    if folder is not None:
        study.save(found, folder)
        put(folder, {} if options["no_report"] else {REPORT: render(found)})
        click.get_current_context().meta[WRITTEN] = f"the capacity is complete in {folder}"
    if options["as_json"]:
        click.echo(json.dumps(study.said(found), indent=2))
    elif not options["quiet"]:
        click.echo(block(found))
    if folder is not None and not options["quiet"]:
        click.echo(f"written to {folder}{'' if options['no_report'] else f'; open {folder / REPORT}'}", err=True)
    sys.exit(int(not found.knee.low))
