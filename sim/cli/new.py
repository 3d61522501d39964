"""`burstsim new`: a scenario to start from, with comments. Each is a file in `templates`, and runs as it is."""
from __future__ import annotations

import contextlib
import json
import os
import shlex
from importlib.resources import files
from pathlib import Path

import click

from sim.core.errors import BadInput

KINDS = ("serve", "agents", "evals", "rl", "train", "plan", "sweep")
PLACEHOLDER = "FILE"  # how comments of a template call the file it is written to


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default=KINDS[0])
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="YAML file to write; without it the scenario is printed.")
@click.option("--force", is_flag=True, help="Replace the file, if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the scenario as JSON, which has no comments.")
def new(kind: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Write a commented scenario of a KIND to start from; serve when none is given.

    \b
    serve   a model behind a router, requests that arrive, an SLO
    agents  sessions of agents and their tools
    evals   a benchmark, graded in sandboxes
    rl      reinforcement learning: engines and a trainer
    train   fine-tuning on its own
    plan    which GPUs, in which layout, and how many
    sweep   one scenario at many points
    """
    text = template(kind)
    if out is not None:
        _write(text.replace(PLACEHOLDER, shlex.quote(str(out))), out, force)
        click.echo(f"written to {out}", err=True)
    if as_json:
        from sim.spec.yaml_marks import parse

        click.echo(json.dumps(parse(text, kind, Path(), lines=False).data, indent=2))
    elif out is None:
        click.echo(text.replace(PLACEHOLDER, f"{kind}.yaml"), nl=False)


def template(kind: str) -> str:
    """The text of a template; its comments call the file it will be written to FILE."""
    return files("sim.cli").joinpath("templates", f"{kind}.yaml").read_text("utf-8")


def _write(text: str, out: Path, force: bool) -> None:
    """Whole or not at all. Raises BadInput where it cannot be written, or would replace a file unasked."""
    if out.is_dir():
        raise BadInput(f"{out} is a folder; the name of a file is wanted")
    if out.exists() and not force:
        raise BadInput(f"{out} is there already; choose another name, or replace it with --force")
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(out)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
