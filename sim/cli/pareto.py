"""`burstsim pareto`: speed for a user against yield of a GPU against price, and what no choice beats."""
from __future__ import annotations

import json
import os
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
REPORT = "report.html"
WRITTEN = "sim.cli.written"


@click.command()
@click.argument("scenario", type=FOLDER)
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Write the frontier to this folder; without it nothing is written.")
@click.option("--force", is_flag=True, help="Replace the frontier in the folder, if it holds one.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value; repeatable.")
@click.option("--jobs", type=click.IntRange(1), help="Processes; default: one for each core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
def pareto(scenario: Path, folder: Path | None, sets: tuple[str, ...], jobs: int | None, **flags: bool) -> None:
    """Run SCENARIO, a YAML file, on every layout of its block `plan` (or as written) at rising load, and mark the frontier.

    Leaves with 2 when the input cannot be used.
    """
    from sim.report.pareto import block, render
    from sim.report.progress import counted
    from sim.spec import compose
    from sim.study import pareto as study
    from sim.study.shelf import prepare, put

    document = compose.change(compose.from_file(scenario), sets)
    if folder is not None:
        prepare(folder, study.SAVED, flags["force"])
    with counted("running", not flags["quiet"]) as progress:
        found = study.pareto(document, jobs=jobs or os.cpu_count() or 1, progress=progress)
    if folder is not None:
        study.save(found, folder)
        put(folder, {} if flags["no_report"] else {REPORT: render(found)})
        click.get_current_context().meta[WRITTEN] = f"the frontier is complete in {folder}"
    if flags["as_json"]:
        click.echo(json.dumps(found.rows, indent=2))
    elif not flags["quiet"]:
        click.echo(block(found))
    if folder is not None and not flags["quiet"]:
        click.echo(f"written to {folder}{'' if flags['no_report'] else f'; open {folder / REPORT}'}", err=True)
