"""`burstsim pareto`: speed for a user against yield of a GPU against price, and what no choice beats."""
from __future__ import annotations

import click

from sim.cli.study import Asked, Shown, answer, options, page


@click.command()
@options("frontier", "plan.gpu=[h100_sxm, l40s]")
def pareto(asked: Asked) -> None:
    """Run SCENARIO, a YAML file, on every layout of its block `plan` (or as written) at rising load, and mark the frontier.

    Leaves with 2 when the input cannot be used.
    """
    from sim.report.pareto import block, render
    from sim.spec import compose
    from sim.study.plan.pareto import question

    document = compose.change(compose.from_file(asked.scenario), asked.sets)
    answer(asked, question(document), Shown("running", block, lambda found: found.rows, page(render)))
