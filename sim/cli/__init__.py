"""The command line. Each verb imports what it needs when it runs, so that help and errors come at once.

What was asked for goes to stdout, as text or with `--json` as one JSON document, never coloured; what is said about it goes to stderr,
and a progress bar only where that is a terminal.

Exit codes: 0 done; 1 the run is there but its audit failed or its SLO is not met; 2 the input cannot be used, or the disk or the memory is
full; 130 interrupted, 143 ended by SIGTERM, 129 by a closed terminal.
"""
from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sim.cli import replicate, timeline
from sim.cli.calibrate import calibrate
from sim.cli.capacity import capacity
from sim.cli.compare import compare
from sim.cli.completion import completion
from sim.cli.new import new
from sim.cli.pareto import pareto
from sim.cli.plan import plan
from sim.cli.report import report
from sim.cli.show import show
from sim.cli.sweep import sweep
from sim.cli.validate import validate
from sim.cli.workload import workload
from sim.cli.written import reached, told, where
from sim.core.errors import BadInput
from sim.study.timeline.sizes import Sizes

BAD_INPUT, BROKEN_PIPE, SIGNALLED = 2, 141, 128
FOLDER = click.Path(path_type=Path)


class Verbs(click.Group):
    """Turns what can go wrong in any verb into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with _listening() as received:
            return self._invoke(ctx, received)

    def _invoke(self, ctx: click.Context, received: list[int]) -> Any:
        try:
            return super().invoke(ctx)
        except BadInput as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt as error:
            # A run says how far it came as its only argument; an interrupt elsewhere says nothing.
            reached = f" at {error.args[0]:.1f} s of simulated time" if error.args else ""
            click.echo(f"interrupted{reached}; {told(ctx)}", err=True)
            sys.exit(SIGNALLED + (received or [signal.SIGINT])[0])
        except BrokenPipeError:
            # The reader has gone; without this the interpreter would fail once more when it flushes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(BROKEN_PIPE)
        except (OSError, MemoryError) as error:
            # Of the machine, not of the input: a full disk or too little memory, wherever the run met it.
            what = "out of memory" if isinstance(error, MemoryError) else f"{error.strerror or error}"
            click.echo(f"error: {what}{f': {error.filename}' if isinstance(error, OSError) and error.filename else ''}", err=True)
            sys.exit(BAD_INPUT)


@contextlib.contextmanager
def _listening() -> Iterator[list[int]]:
    """A request to end, and a terminal that closes, unwind the run as Ctrl-C does; yields the list of such signals, to be filled."""
    received: list[int] = []
    # What a parent has this process ignore, as nohup does, stays ignored.
    names = [name for name in ("SIGTERM", "SIGHUP") if name in vars(signal) and signal.getsignal(vars(signal)[name]) is signal.SIG_DFL]
    names = names if threading.current_thread() is threading.main_thread() else []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for name in names:
        signal.signal(signal.Signals[name], stop)
    try:
        yield received
    finally:
        for name in names:
            signal.signal(signal.Signals[name], signal.SIG_DFL)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", package_name="burstsim", message="burstsim %(version)s")
def main() -> None:
    """Simulate GPU clusters under LLM inference, bursty RL and agentic work."""


main.add_command(calibrate)
main.add_command(capacity)
main.add_command(compare)
main.add_command(completion)
main.add_command(new)
main.add_command(pareto)
main.add_command(plan)
main.add_command(report)
main.add_command(show)
main.add_command(sweep)
main.add_command(validate)
main.add_command(workload)


def _no_negative(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and value < 0:
        raise click.BadParameter("a seed is 0 or more")
    return value


@main.command()
@click.argument("scenario", type=FOLDER)
@click.option("-o", "--output-dir", "folder", type=FOLDER, help="Write the result to this folder; without it nothing is written.")
@click.option("--force", is_flag=True, help="Replace the result in the folder, if it holds one.")
@click.option("--no-report", is_flag=True, help="Leave out report.html.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value, such as cluster.pools.0.replicas=4; repeatable.")
@click.option("--seed", type=int, callback=_no_negative, help="Seed of all randomness; the same as --set seed=N.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No text, no progress bar: only errors, and JSON if asked for.")
@replicate.options
@timeline.options
def run(
    scenario: Path, folder: Path | None, sets: tuple[str, ...], seed: int | None, *,
    asked: replicate.Asked, trace: Sizes | None, **flags: bool,
) -> None:  # fmt: skip
    """Run SCENARIO, a YAML file, and print what happened. With a ladder every step is run, and compared with the one below it.

    With replications each figure comes with an interval; the same command goes on with those that are in the folder already.

    Leaves with 1 when the run's own audit fails or an SLO is set and not met, with 2 when the input cannot be used, else with 0: an
    overloaded cluster without an SLO is a finding, not a failure.
    """
    from sim.spec.load import load
    from sim.study.result import check_writable

    spec = load(scenario, [*sets, *([f"seed={seed}"] if seed is not None else [])])
    if asked.anything and (spec.ladder or spec.curve):
        raise BadInput(f"{scenario} is a {'ladder' if spec.ladder else 'curve'}; replications, batches and a warm-up are of one run")
    if trace is not None:
        _can_be_traced(scenario, folder, bool(asked.anything or spec.ladder or spec.curve))
    if asked.anything:
        sys.exit(replicate.run(spec, folder, asked, _pages(flags["no_report"]), **flags))
    if spec.ladder:
        from sim.cli import ladder

        sys.exit(ladder.run(spec, folder, _pages(flags["no_report"]), **flags))
    if spec.curve:
        from sim.cli import curve

        sys.exit(curve.run(spec, folder, _pages(flags["no_report"]), **flags))
    if folder is not None:
        check_writable(folder, flags["force"])
    from sim.report.progress import progress
    from sim.study.run import run as simulate

    result = simulate(spec, watch=None if flags["quiet"] else progress)
    if folder is not None:
        result.save(folder, flags["force"], _pages(flags["no_report"]), timeline.files(trace))
        reached(f"the result is complete in {folder}")
    _show(result.summary, flags["as_json"], flags["quiet"])
    where(folder, not flags["no_report"], flags["quiet"])
    sys.exit(_verdict(result.summary))


def _can_be_traced(scenario: Path, folder: Path | None, many: bool) -> None:
    if many:
        raise BadInput(f"{scenario} is run more than once, and a timeline is of one: `burstsim report DIR --trace` writes it afterwards")
    if folder is None:
        raise BadInput("--trace writes a file into the folder of the result; name one with -o")


def _pages(none: bool) -> dict[str, Any]:
    if none:
        return {}
    from sim.report.page import render

    return {"report.html": render}


def _families(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    from sim.core.registry import FAMILIES
    from sim.spec import schema

    return [name for name in (*FAMILIES, *schema.CATALOGUE) if name.startswith(begun)]


@main.command()
@click.argument("family", required=False, shell_complete=_families)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def kinds(family: str | None, as_json: bool) -> None:
    """List what can be plugged in, of one FAMILY (router, workload, ...) or of all, with the options of each kind.

    The families gpu, node, cpu_node, model, prices and grid are the catalogue of hardware, models, price books and electricity;
    agent_preset and rl_preset are agents and frameworks of reinforcement learning ready made, agent_format is formats of traces.
    """
    from sim.core.errors import did_you_mean
    from sim.core.registry import FAMILIES
    from sim.spec import schema

    if family is not None and family not in (*FAMILIES, *schema.CATALOGUE):
        raise BadInput(f"unknown family '{family}'; {did_you_mean(family, (*FAMILIES, *schema.CATALOGUE))}")
    found = schema.catalogue(family) if family in schema.CATALOGUE else schema.kinds(family)
    if as_json:
        rows = [kind._asdict() | {"options": [option._asdict() for option in kind.options]} for kind in found]
        click.echo(json.dumps(rows, indent=2, default=str))
        return
    for kind in found:
        click.echo(f"{kind.family} {kind.kind}: {kind.doc}" if kind.doc else f"{kind.family} {kind.kind}")
        for name, type_, default, required in kind.options:
            click.echo(f"    {name}: {type_}, {'required' if required else f'default {default}'}")


@main.command(name="schema")
@click.option("--json", is_flag=True, expose_value=False, help="As without it: a schema is JSON.")
def schema_() -> None:
    """Print the JSON schema of a scenario, for editors that check YAML."""
    from sim.spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _show(summary: dict[str, Any], as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    elif not quiet:
        from sim.report.text import block

        click.echo(block(summary))


def _verdict(summary: dict[str, Any]) -> int:
    from sim.report.text import failures

    return int(bool(failures(summary)) or summary["slo"].get("met") is False)
