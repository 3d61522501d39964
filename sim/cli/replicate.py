"""`burstsim run` with replications, batches or a warm-up: how sure the figures are. What is finished is on disk, and gone on with."""
from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sim.cli.written import put_page, reached, where
from sim.core.errors import BadInput

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario
    from sim.study.replicate.replications import Replications
    from sim.study.replicate.window import Warmup
    from sim.study.result import Result


class Asked(NamedTuple):
    """What the options say; nothing where none is given."""

    replications: int | None
    precision: tuple[tuple[str, float], ...]
    most: int | None
    warmup: Warmup
    batches: int | None

    @property
    def anything(self) -> bool:
        return any(value not in (None, ()) for value in self)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of statistics, handed to a command as one `asked`."""

    @click.option("--replications", type=int, metavar="N", help="Run N times with other seeds, and say how sure each figure is.")
    @click.option("--precision", multiple=True, metavar="FIGURE=5%", help="Replicate on until a figure is known to that; repeatable.")
    @click.option("--most", type=int, metavar="N", help="At most so many replications for a precision.  [default: 1000]")
    @click.option("--warmup", metavar="mser|30s|none", default="none", help="Leave a warm-up out of the figures.  [default: none]")
    @click.option("--batches", type=int, metavar="K", help="Say how sure the figures of one long run are, by K batches of it.")
    @functools.wraps(command)
    def with_asked(*, replications: int | None, precision: tuple[str, ...], most: int | None, warmup: str, batches: int | None,
                   **rest: Any) -> Any:  # fmt: skip
        return command(asked=Asked(replications, precisions(precision), most, warmup_of(warmup), batches), **rest)

    return with_asked


def precisions(texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """
    >>> precisions(("ttft_s.p99=5%", "slo.attainment=0.01"))
    (('ttft_s.p99', 0.05), ('slo.attainment', 0.01))
    """
    found = []
    for text in texts:
        name, equal, bound = text.partition("=")
        try:
            found.append((name.strip(), float(bound.strip().removesuffix("%")) / (100 if bound.strip().endswith("%") else 1)))
        except ValueError:
            equal = ""
        if not equal or not name:
            raise BadInput(f"--precision: found '{text}'; a figure and a share of it are wanted, such as ttft_s.p99=5%")
    return tuple(found)


def warmup_of(text: str) -> Warmup:
    """
    >>> warmup_of("none"), warmup_of("MSER"), warmup_of("2min")
    (None, 'mser', 120.0)
    """
    from sim.core.units import parse

    word = text.strip().lower()
    if word in ("none", "mser"):
        return None if word == "none" else word
    try:
        seconds = parse(text.strip(), "duration")
    except ValueError as error:
        raise BadInput(f"--warmup: {error}; mser, none or a time such as 30s is wanted") from None
    if not seconds >= 0:
        raise BadInput(f"--warmup: found '{text}'; a time of 0 or more is wanted, mser or none")
    return seconds


def run(scenario: Scenario, folder: Path | None, asked: Asked, pages: dict[str, Any], **flags: bool) -> int:
    """Run, show, and give the exit code: 1 when an audit fails or the SLO is missed, in any replication."""
    if asked.batches is not None and (asked.replications is not None or asked.precision or asked.most):
        raise BadInput("--batches is for one long run, --replications, --precision and --most are for several; give one or the other")
    if asked.replications is None and (asked.precision or asked.most):
        raise BadInput("--precision and --most are of replications; say how many at least, such as --replications 10")
    if asked.replications is None:
        return _single(scenario, folder, asked, pages, **flags)
    from sim.report.intervals import block
    from sim.report.progress import counted
    from sim.study.replicate.replicate import Plan, prepare, replications
    from sim.study.result import Result

    plan = Plan(asked.replications, asked.precision, asked.most, asked.warmup)
    if folder is not None:
        prepare(scenario, asked.warmup, folder, flags["force"])
    found: Replications | None = None
    try:
        with counted("running", not flags["quiet"]) as progress:
            for found in replications(scenario, plan, folder, jobs=os.cpu_count() or 1, progress=progress):
                if folder is not None:
                    done = f"{len(found)} of {found.wanted} replications are finished in {folder}"
                    reached(f"{done}; the same command goes on from there")
    finally:
        if folder is not None and found is not None and pages:
            put_page(folder, page(Result.open(folder), found))
    assert found is not None
    if flags["as_json"]:
        click.echo(json.dumps(found.report(), indent=2))
    elif not flags["quiet"]:
        click.echo(block(found))
    where(folder, bool(pages), flags["quiet"])
    met = found.table["slo.met"].dropna() if "slo.met" in found.table else []
    return int(not found.table["audit_ok"].astype(bool).all() or not all(met))


def _single(scenario: Scenario, folder: Path | None, asked: Asked, pages: dict[str, Any], **flags: bool) -> int:
    """One run, with its warm-up left out, and intervals by batches where they are asked for."""
    from sim.report.intervals import block, sure
    from sim.report.progress import progress
    from sim.report.text import block as text
    from sim.report.text import failures
    from sim.study.replicate.batches import batches
    from sim.study.replicate.window import warmed
    from sim.study.result import check_writable
    from sim.study.run import run as simulate

    if folder is not None:
        check_writable(folder, flags["force"])
    result = warmed(simulate(scenario, watch=None if flags["quiet"] else progress), asked.warmup)
    found = batches(result, asked.batches) if asked.batches is not None else None
    if folder is not None:
        known = sure(found) if found else None
        result.save(folder, flags["force"], {name: lambda one, render=render: render(one, known) for name, render in pages.items()})  # type: ignore[misc]
        if found is not None:
            found.save(folder)
        reached(f"the result is complete in {folder}")
    summary = result.summary
    if flags["as_json"]:
        click.echo(json.dumps(summary | ({"batches": found.report()} if found else {}), indent=2))
    elif not flags["quiet"]:
        click.echo(text(summary))
        if found is not None:
            click.echo(block(found))
    where(folder, bool(pages), flags["quiet"])
    return int(bool(failures(summary)) or summary["slo"].get("met") is False)


def page(result: Result, found: Replications) -> str:
    """The page of a result with its replications or batches."""
    from sim.report.intervals import sure
    from sim.report.page import render

    return render(result, sure(found))
