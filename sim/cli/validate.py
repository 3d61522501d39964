"""`burstsim validate`: simulate measured runs and show how far off the predictions are."""
from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("runs", type=PATH)
@click.option("--where", metavar="EXPR", help="Rows to take, such as \"gpu == 'H100-SXM' and tp == 4\"; default: those of quality ok.")
@click.option("--replay", type=PATH, help="Folder with the request files that rows name; default: that of RUNS.")
@click.option("-o", "--output-dir", "folder", type=PATH, required=True, help="Folder for predictions, errors and the page.")
@click.option("--jobs", default=0, help="Processes; default: one per core.")
@click.option("--force", is_flag=True, help="Start anew where an earlier validation is in the folder; otherwise it goes on.")
@click.option("--accuracy", type=PATH, help="Also write the summary to this Markdown file.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no table.")
def validate(runs: Path, where: str | None, replay: Path | None, folder: Path, accuracy: Path | None, **flags: int) -> None:
    """Simulate every measured run of the table RUNS and compare.

    The folder gets errors.csv (one row per run and metric), summary.json, the rows that could not be simulated and why, and a page with
    plots. An interrupted validation goes on where it stopped.
    """
    from sim.report import accuracy as page
    from sim.report.progress import counted
    from sim.study.validate import validate as simulate

    with counted("validating", not flags["quiet"]) as progress:
        summary = simulate(runs, where, replay, folder, jobs=flags["jobs"], force=bool(flags["force"]), progress=progress)
    page.save(summary, folder)
    if accuracy is not None:
        accuracy.write_text((folder / "ACCURACY.md").read_text("utf-8"), encoding="utf-8")
    if not flags["quiet"]:
        click.echo((folder / "ACCURACY.md").read_text("utf-8"))
        click.echo(f"written to {folder}; open {folder / 'accuracy.html'}", err=True)
