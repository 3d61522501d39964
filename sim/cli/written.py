"""What a command has written, and what it says of that: how far it came when it is interrupted, and where to look when it is done."""
from __future__ import annotations

from pathlib import Path

import click

REPORT = "report.html"
_REACHED = "sim.cli.written"  # in the context of click


def reached(said: str) -> None:
    """Have `said` told if the command is interrupted from here on."""
    click.get_current_context().meta[_REACHED] = said


def told(context: click.Context) -> str:
    """What is there of a command that was interrupted."""
    found: str = context.meta.get(_REACHED, "nothing was written")
    return found


def put_page(folder: Path, page: str) -> None:
    """Put the page of a study into its folder, whole or not at all."""
    from sim.study.shelf import put

    put(folder, {REPORT: page})


def where(folder: Path | None, page: bool, quiet: bool) -> None:
    """Say where it was written to, if it was and is not to be quiet, and with a `page` what to open."""
    if folder is not None and not quiet:
        click.echo(f"written to {folder}{f'; open {folder / REPORT}' if page else ''}", err=True)
