"""`burstsim validate`: simulate measured runs and show how far off the predictions are."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sim.study.validate.rl import RlSummary

PATH = click.Path(path_type=Path)
RL_FOLDER = Path("out/validate-rl")


@click.command()
@click.argument("runs", type=PATH, required=False)
@click.option("--rl", type=PATH, help="A table of published runs of reinforcement learning, in place of RUNS.")
@click.option("--where", metavar="EXPR", help="Rows to take, such as \"gpu == 'H100-SXM' and tp == 4\"; default: those of quality ok.")
@click.option("--replay", type=PATH, help="Folder with the request files that rows name; default: that of RUNS.")
@click.option("-o", "--output-dir", "folder", type=PATH, help=f"Folder for errors and the page; with --rl, default: {RL_FOLDER}.")
@click.option("--jobs", default=0, help="Processes; default: one per core.")
@click.option("--force", is_flag=True, help="Start anew where an earlier validation is in the folder; otherwise it goes on.")
@click.option("--accuracy", type=PATH, help="Also write the summary to this Markdown file; its other part stays as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of a table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no table: only errors, and JSON if asked for.")
def validate(runs: Path | None, rl: Path | None, folder: Path | None, accuracy: Path | None, **options: Any) -> None:
    """Simulate every measured run of the table RUNS, or every published run of --rl, and compare.

    The folder gets errors.csv (one row per run and metric), summary.json, the rows that could not be simulated and why, and a page with
    plots. An interrupted validation of RUNS goes on where it stopped.
    """
    if (runs is None) == (rl is None):
        raise click.UsageError("one of RUNS, a table of measured runs, and --rl, one of published runs, is wanted")
    if rl is not None:
        given = [name for name in ("where", "replay", "force") if options[name]]
        if given:
            raise click.UsageError(f"--{given[0]} is not used with --rl")
        _rl(rl, folder or RL_FOLDER, accuracy, options)
    elif folder is None:
        raise click.UsageError("Missing option '-o' / '--output-dir'.")
    else:
        assert runs is not None
        _runs(runs, folder, accuracy, options)


def _runs(runs: Path, folder: Path, accuracy: Path | None, options: dict[str, Any]) -> None:
    from sim.report import accuracy as page
    from sim.report import accuracy_rl
    from sim.report.progress import counted
    from sim.study.validate import validate as simulate

    with counted("validating", not options["quiet"]) as progress:
        summary = simulate(
            runs, options["where"], options["replay"], folder, jobs=options["jobs"], force=bool(options["force"]), progress=progress
        )
    page.save(summary, folder)
    text = (folder / "ACCURACY.md").read_text("utf-8")
    if accuracy is not None:
        section = accuracy_rl.section_of(accuracy.read_text("utf-8")) if accuracy.is_file() else ""
        accuracy.write_text(accuracy_rl.merged(text, section) if section else text, encoding="utf-8")
    _show(text, folder, options)
    if not options["quiet"]:
        click.echo(f"written to {folder}; open {folder / 'accuracy.html'}", err=True)


def _rl(table: Path, folder: Path, accuracy: Path | None, options: dict[str, Any]) -> None:
    from sim.report import accuracy_rl as page
    from sim.report.progress import counted
    from sim.study.validate.rl import validate_rl

    with counted("validating", not options["quiet"]) as progress:
        summary: RlSummary = validate_rl(table, folder, jobs=options["jobs"], progress=progress)
    page.save(summary, folder)
    if accuracy is not None:
        before = accuracy.read_text("utf-8") if accuracy.is_file() else ""
        accuracy.write_text(page.merged(before, page.markdown(summary)), encoding="utf-8")
    _show(page.terminal(summary), folder, options)
    if not options["quiet"]:
        click.echo(f"written to {folder}; open {folder / 'accuracy_rl.html'}", err=True)


def _show(text: str, folder: Path, options: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(json.loads((folder / "summary.json").read_text("utf-8")), indent=2))
    elif not options["quiet"]:
        click.echo(text)
