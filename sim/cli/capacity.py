"""`burstsim capacity`: how much traffic a cluster bears before it misses its SLO, and before service is outrun."""
from __future__ import annotations

import sys

import click

from sim.cli.study import Asked, Shown, answer, options, page


@click.command()
@options("capacity", "slo.ttft_p99=1s")
@click.option("--key", metavar="KEY", help="Raise this value alone, such as workloads.0.rate; default: all traffic.")
@click.option("--replications", type=click.IntRange(1), default=5, show_default=True, help="Seeds at each load around the knee.")
def capacity(asked: Asked, key: str | None, replications: int) -> None:
    """Find the highest load at which SCENARIO, a YAML file, still meets its SLO.

    Leaves with 1 when no load meets it, with 2 when the input cannot be used.
    """
    from sim.report.capacity import block, render
    from sim.spec.load import load
    from sim.study.plan.capacity import question, said

    asking = question(load(asked.scenario, asked.sets), key, replications)
    found = answer(asked, asking, Shown("looking for the knee", block, said, page(render)))
    sys.exit(int(not found.knee.low))
