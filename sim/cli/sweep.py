"""`burstsim sweep`: a scenario at many points. What is finished is kept at once, and the same command goes on after an interruption."""
from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from sim.cli.written import put_page, reached, where
from sim.core.errors import BadInput, Problem

FOLDER = click.Path(path_type=Path)
OVER = "--over"
SETTINGS = ("method", "points", "replications", "figures", "seed")
OPTIONS = {"figures": "--figure", "seed": "--sweep-seed"}  # where the option has another name


@click.command()
@click.argument("scenario", type=FOLDER)
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Keep what is done in this folder, and go on with what is there.")
@click.option(OVER, "over", multiple=True, metavar="KEY=VALUES", help="Vary a key: workloads.0.rate=[1, 2, 4], or {range: {...}}.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value for all points; repeatable.")
@click.option("--method", help="grid, list, random or latin_hypercube.")
@click.option("--points", type=int, help="How many points random and latin_hypercube draw.")
@click.option("--replications", type=int, help="Runs of each point, with the same seeds for all.")
@click.option("--figure", "figures", multiple=True, metavar="NAME", help="Keep only this figure, such as ttft_s.p99; repeatable.")
@click.option("--sweep-seed", "seed", type=int, help="Seed of the points drawn; default: the scenario's.")
@click.option("--jobs", type=int, help="Processes of this machine; default: one for each core.")
@click.option("--backend", default="loky", show_default=True, help="Who runs it: loky (this machine), ray or dask (a cluster).")
@click.option("--address", help="HOST:PORT of the head node or scheduler of the cluster.")
@click.option("--force", is_flag=True, help="Begin anew, where the folder holds another sweep.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text: a list with an object for each run.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
def sweep(scenario: Path, folder: Path | None, over: tuple[str, ...], sets: tuple[str, ...], **options: Any) -> None:
    """Run SCENARIO, a YAML file, at every point of its block `sweep`, or of the keys given with --over.

    Leaves with 1 when the audit of a run fails, with 2 when the input cannot be used or no point can be run, else with 0: a point that
    cannot be run is a row with its error.
    """
    from sim.study.sweep import sweep as study
    from sim.study.workers import Crew

    crew = Crew(options["backend"], options["jobs"], options["address"])
    crew.check()
    asked = {name: options[name] for name in SETTINGS if options[name] not in (None, ())}
    order = study.order(_document(scenario, over, sets, asked))
    found = _run(order, folder, crew, options)
    shown = _shown(options, found)
    if shown:
        click.echo(shown)
    if not options["quiet"]:
        _talk(found, folder, not options["no_report"])
    if found.failed == found.wanted:
        raise BadInput(f"no point can be run; the first says: {found.frame['error'].iloc[0]}")
    sys.exit(int(any(row["audit_ok"] is False for row in found.rows)))


def _document(scenario: Path, over: tuple[str, ...], sets: tuple[str, ...], asked: dict[str, Any]) -> Any:
    """What is to be swept: the file, the changes of --set, and the axes and settings of the command line."""
    from sim.spec import compose
    from sim.study.sweep import sweep as study

    document = compose.change(compose.from_file(scenario), sets)
    if not isinstance(document.data, dict):
        return document
    document = study.with_settings(document, dict(_axis(text) for text in over), {}, OVER)
    for name, value in asked.items():
        document = study.with_settings(document, {}, {name: list(value) if name == "figures" else value}, OPTIONS.get(name, f"--{name}"))
    return document


def _axis(text: str) -> tuple[str, Any]:
    """The key and the values of `KEY=VALUES`."""
    from sim.spec.yaml_marks import parse

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        ranged = "{range: {min: 1, max: 9, step: 2}}"
        message = f"found '{text}'; KEY=VALUES is wanted, such as workloads.0.rate=[1, 2, 4] or workloads.0.rate={ranged}"
        raise BadInput([Problem(message, "", OVER)])
    return key.strip(), parse(value, OVER, Path(), lines=False).data


def _run(order: Any, folder: Path | None, crew: Any, options: dict[str, Any]) -> Any:
    """Every run; whatever ends it, the page shows what was finished."""
    from sim.report.progress import counted
    from sim.report.sweep import render
    from sim.study.sweep import sweep as study

    found = None
    try:
        with counted("sweeping", not options["quiet"]) as progress, contextlib.closing(
            study.sweeping(order, folder, crew, progress=progress, force=options["force"])
        ) as rows:
            for one in rows:
                found = one
    finally:
        if folder is not None and found is not None:
            reached(f"{len(found.rows)} of {found.wanted} runs are finished in {folder}; the same command goes on from there")
            if found.rows and not options["no_report"]:
                put_page(folder, render(found))
    return found


def _shown(options: dict[str, Any], found: Any) -> str:
    """What goes to stdout."""
    from sim.report.sweep import block

    if options["as_json"]:
        rows = sorted(found.rows, key=lambda row: (row["point"], row["replication"]))
        return json.dumps(rows, indent=2)
    return "" if options["quiet"] else block(found)


def _talk(found: Any, folder: Path | None, page: bool) -> None:
    """What goes to stderr."""
    if found.failed:
        first = next(row for row in found.rows if row["error"] is not None)
        said = f"{found.failed} of {found.wanted} runs have no figures; of point {first['point']}: {first['error']}"
        click.echo(said, err=True)
    where(folder, page, quiet=False)
