"""`burstsim show`: what a scenario's cluster is made of, as a tree, as JSON or as a drawing, before anything runs."""
from __future__ import annotations

import json
from pathlib import Path

import click

from sim.core.errors import BadInput

DRAWN = (".svg", ".png")


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="Draw it to this file: .svg or .png.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value, such as cluster.pools.0.replicas=4; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a tree.")
def show(scenario: Path, out: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Show what SCENARIO's cluster is made of: hosts, switches and links, stores, regions, pools and their memory. Runs nothing."""
    from sim.report.inventory import inventory, text
    from sim.spec.load import load

    if out is not None and out.suffix not in DRAWN:
        raise BadInput(f"found '{out}'; a file that ends in {' or '.join(DRAWN)} is wanted")
    spec = load(scenario, sets)
    facts = inventory(spec)
    click.echo(json.dumps(facts, indent=2) if as_json else text(facts))
    if out is not None:
        from sim.report.topology import save

        try:
            save(spec, out)
        except OSError as error:
            raise BadInput(f"cannot write {out}: {error.strerror or error}") from error
        click.echo(f"written to {out}", err=True)
