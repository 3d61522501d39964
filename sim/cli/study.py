"""What the verbs have in common that look for one answer: their options, and how an answer is found, written and shown.

With -o every run is kept at once, and the same command goes on after an interruption (`sim/study/plan/ledger.py`).
"""
from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sim.cli.written import REPORT, put_page, reached, where

if TYPE_CHECKING:
    from sim.study.plan.ledger import Question

FOLDER = click.Path(path_type=Path)


class Asked(NamedTuple):
    """What the options say. `sets`: changes of the scenario; `jobs`: processes."""

    scenario: Path
    folder: Path | None
    force: bool
    no_report: bool
    sets: tuple[str, ...]
    jobs: int | None
    as_json: bool
    quiet: bool


class Shown(NamedTuple):
    """How an answer is shown: `doing` is what the progress bar says, `block` its text, `said` its JSON; `pages` writes pages."""

    doing: str
    block: Callable[[Any], str]
    said: Callable[[Any], Any]
    pages: Callable[[Any, Path], None]


def options(word: str, example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """SCENARIO and the options of a study, handed to a command as one `asked`; `word` is what is found."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.argument("scenario", type=FOLDER)
        @click.option("-o", "--output-dir", "folder", type=FOLDER, help=f"Keep what is done here, and the {word} at last; go on with it.")
        @click.option("--force", is_flag=True, help=f"Replace the {word} in the folder, if it holds one.")
        @click.option("--no-report", is_flag=True, help=f"Leave out {REPORT}.")
        @click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=f"Change a value, such as {example}; repeatable.")
        @click.option("--jobs", type=click.IntRange(1), help="Processes, where several runs are to be made; default: one for each core.")
        @click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
        @click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
        @functools.wraps(command)
        def with_asked(**given: Any) -> Any:
            asked = Asked(**{name: given.pop(name) for name in Asked._fields})
            return command(asked=asked, **given)

        return with_asked

    return decorate


def answer(asked: Asked, question: Question, shown: Shown) -> Any:
    """Find what is asked for, write it to its folder if there is one, and show it."""
    from sim.report.progress import counted

    folder = asked.folder
    pages = None if asked.no_report else shown.pages
    try:
        with counted(shown.doing, not asked.quiet) as progress:
            found = question.answer(folder, jobs=asked.jobs or os.cpu_count() or 1, force=asked.force, progress=progress, pages=pages)
    except KeyboardInterrupt:
        _interrupted(folder, question)
        # How far a single run came says nothing of the study.
        raise KeyboardInterrupt from None
    if folder is not None:
        reached(f"the {question.kind.word} is complete in {folder}")
    if asked.as_json:
        click.echo(json.dumps(shown.said(found), indent=2))
    elif not asked.quiet:
        click.echo(shown.block(found))
    where(folder, not asked.no_report, asked.quiet)
    return found


def page(render: Callable[[Any], str]) -> Callable[[Any, Path], None]:
    """What writes a page to a folder."""
    return lambda found, folder: put_page(folder, render(found))


def _interrupted(folder: Path | None, question: Question) -> None:
    """Say what is kept."""
    from sim.study.journal import read

    if folder is None or not (folder / question.kind.file).is_file():
        return
    count = len(read(folder, question.kind)[1])
    reached(f"{count:,} {'run is' if count == 1 else 'runs are'} finished in {folder}; the same command goes on from there")
