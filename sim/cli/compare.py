"""`burstsim compare`: scenarios against the first of them, by replications that share their luck."""
from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from sim.cli.replicate import warmup_of
from sim.cli.written import put_page, reached, where
from sim.core.errors import BadInput

FOLDER = click.Path(path_type=Path)
SAVED = "comparison.json"


@click.command()
@click.argument("sources", type=FOLDER, nargs=-1, required=True)
@click.option("--what-if", "whatifs", multiple=True, metavar="KEY=VALUE,...", help="Also the first scenario with keys changed; repeatable.")
@click.option("--replications", type=int, metavar="N", help="Of each scenario.  [default: as in folders, else 10]")
@click.option("--warmup", metavar="mser|30s|none", default="none", help="Leave a warm-up out of the figures.  [default: none]")
@click.option("--figure", metavar="NAME", help="Split the difference of a figure, such as cost.usd_per_hour, among the keys that differ.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value in every scenario; repeatable.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all scenarios; the same as --set seed=N.")
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Write the replications and a page to this folder.")
@click.option("--force", is_flag=True, help="Replace the comparison in the folder, if it holds one.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
def compare(sources: tuple[Path, ...], whatifs: tuple[str, ...], folder: Path | None, **options: Any) -> None:
    """Compare SOURCES, the first with each other one: scenarios (YAML), or folders of `burstsim run -o`.

    Scenarios are run with the same seeds, so that what differs is what was changed and not luck. Leaves with 1 when the audit of a run
    fails, with 2 when the input cannot be used, else with 0.
    """
    from sim.report.compare import block, render
    from sim.report.progress import counted
    from sim.study.compare.compare import Asked, compared
    from sim.study.replicate.replications import Replications

    given = _given(sources, whatifs, [*options["sets"], *([f"seed={options['seed']}"] if options["seed"] is not None else [])])
    asked = Asked(options["replications"], warmup_of(options["warmup"]), options["figure"])
    if folder is not None:
        _prepare(folder, options["force"], [*map(str, sources), *whatifs])
        runs = sum(not isinstance(one, Replications) for one in given.values())
        if runs:
            reached(f"replications that are finished are in {folder}; the same command goes on from there")
    with counted("running", not options["quiet"]) as progress:
        found = compared(given, asked, folder, jobs=os.cpu_count() or 1, progress=progress)
    said = found.report()
    if folder is not None:
        found.save(folder)
        if not options["no_report"]:
            put_page(folder, render(said))
    if options["as_json"]:
        click.echo(json.dumps(said, indent=2))
    elif not options["quiet"]:
        click.echo(block(said))
    where(folder, not options["no_report"], options["quiet"])
    sys.exit(int(not all(one["audit_ok"] for one in said["scenarios"])))


def what_if(text: str) -> list[str]:
    """The changes in one text; a comma within brackets or braces, or without a key behind it, belongs to the value.

    >>> what_if("cluster.pools.0.gpu=h200_sxm,cluster.pools.0.parallel={tp: 2, pp: 1}")
    ['cluster.pools.0.gpu=h200_sxm', 'cluster.pools.0.parallel={tp: 2, pp: 1}']
    """
    return [part.strip() for part in re.split(r",(?=\s*[A-Za-z_][\w.]*=)", text)]


def _given(sources: tuple[Path, ...], whatifs: tuple[str, ...], sets: list[str]) -> dict[str, Any]:
    """What to compare by names that differ: paths, and what is changed."""
    from sim.spec.load import load
    from sim.study.compare.compare import open_all

    if whatifs and sources[0].is_dir():
        raise BadInput(f"--what-if changes a scenario, and {sources[0]} is a folder; name its scenario.yaml")
    if sets and all(source.is_dir() for source in sources):
        raise BadInput("--set and --seed change scenarios, and there are only folders; name their scenario.yaml")
    opened = open_all([source if source.is_dir() else load(source, sets) for source in sources])
    found: dict[str, Any] = {}
    for source, one in zip(sources, opened, strict=True):
        name = source.stem if not source.is_dir() else source.resolve().name
        found[name if name not in found else f"{name} ({len(found) + 1})"] = one
    for text in whatifs:
        changed = what_if(text)
        name = ", ".join(part.partition("=")[0].rpartition(".")[2] + "=" + part.partition("=")[2] for part in changed)
        found[name if name not in found else f"{name} ({len(found) + 1})"] = load(sources[0], [*sets, *changed])
    return found


def _prepare(folder: Path, force: bool, said: list[str]) -> None:
    """Make the folder. One of the same sources is gone on with; another comparison is replaced with `force`. Raises BadInput."""
    try:
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"cannot write to {folder}: it is a file; name a folder")
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / SAVED).is_file():
                raise BadInput(f"{folder} is not empty and holds no comparison ({SAVED}); choose another folder")
            if force:
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SAVED).is_file():
            (folder / SAVED).write_text(json.dumps({"unfinished": said}) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error
