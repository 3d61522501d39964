"""`burstsim workload`: a log turned into a generator and compared with it, and any traffic shown, without a cluster."""
from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sim.core.errors import BadInput, did_you_mean

PATH = click.Path(path_type=Path)
PICTURE, PAGES = ".png", (".html", ".md", ".pdf")
VERDICTS = {"met": "good", "chance": "warn", "drift": "warn", "model": "bad"}
MEANING = (
    "Drift: later against first part of the log. Own: generated over as long as the first part, against it. Error: generated against "
    "later, the mean of all draws; nine of ten draws lie in the range. Met: the error is within 10 % (30 % for Fano factors and peaks, 0.1 "
    "for correlations). Chance: it is not, but the later figure is within the range. Drift: it is not, and the generator has the figure of "
    "the first part, so it is the log that moved. Model: the generator is at fault."
)


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from sim.core.units import parse

    if value is None:
        return None
    try:
        found = parse(value, "duration")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if found < 0:
        raise click.BadParameter(f"found {value}; a time from 0 is wanted")
    return found


READING = (
    click.option("--format", "format", default="auto", show_default=True, help="Format of the log, one of `burstsim kinds format`."),
    click.option("--from", "begin", callback=_seconds, metavar="TIME", help="Leave out what comes before so long into the log (2h)."),
    click.option("--to", "end", callback=_seconds, metavar="TIME", help="Leave out what comes after."),
    click.option("--sort", is_flag=True, help="Put rows in order of time."),
    click.option("--skip-zero", is_flag=True, help="Leave out rows without input or output tokens."),
    click.option("--keep-gaps", is_flag=True, help="Take long silences for traffic, not for outages or missing data."),
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a log is read, in the order of `READING`."""
    for option in reversed(READING):
        command = option(command)
    return command


@click.group()
def workload() -> None:
    """Fit a generator to a log of requests, and look at traffic before a cluster gets it."""


@workload.command()
@click.argument("log")
@reading
@click.option("--train", default=0.7, show_default=True, type=click.FloatRange(0.1, 0.9), help="Part that fits; the rest judges.")
@click.option("--kind", default="auto", show_default=True, help="Kind of generator, or auto for the one nearest to the later part.")
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(5, 1000), help="Draws of each generator, averaged.")
@click.option("-o", "--output", "out", type=PATH, help="YAML to write: a base that a scenario `extends`.")
@click.option("--report", type=PATH, help="Page to write, .html, .md or .pdf: the table, the generators tried, and pictures.")
@JSON
def fit(log: str, train: float, kind: str, seeds: int, out: Path | None, report: Path | None, as_json: bool, **how: Any) -> None:
    """Turn LOG, in any format that workloads of kind trace read, into a generator, and compare the two.

    The first part of the log fits several generators, the later part chooses and judges; what is written is fitted to the whole log.
    """
    from sim.report.progress import counted
    from workloads.fitting import candidates
    from workloads.fitting.fit import fit as fitted
    from workloads.fitting.written import save, text

    if kind not in ("auto", *candidates.kinds()):
        raise BadInput(f"unknown --kind '{kind}'; {did_you_mean(kind, ['auto', *candidates.kinds()])}")
    if report is not None and report.suffix not in PAGES:
        raise BadInput(f"--report: found '{report}'; a file that ends in .html, .md or .pdf is wanted")
    for target in (out, report):
        _writable(target)
    with counted("fitting", not as_json) as progress:
        progress(0, None, "reading")
        found = fitted(_read(log, **how), train, kind, seeds, progress)
    written = text(found)
    if out is not None:
        save(written, out)
    if report is not None:
        _save_page(_fit_page(found, written), report)
    if as_json:
        click.echo(json.dumps(_fit_json(found), indent=2))
    else:
        from sim.report.traffic import text as table

        click.echo(f"{_said(found)}\n\n{table(_rows(found))}\n\n{table(_tried(found))}")
        _notes(found.remarks)
    _done([path for path in (out, report) if path is not None])


@workload.command()
@click.argument("what")
@reading
@click.option("-o", "--output", "out", type=PATH, help="Picture (.png) or page (.html, .md, .pdf) to write.")
@click.option("--duration", callback=_seconds, metavar="TIME", help="Show so much of it; by default all.")
@click.option("--seed", type=click.IntRange(0), help="Seed of the randomness; by default the scenario's.")
@JSON
def show(what: str, out: Path | None, duration: float | None, seed: int | None, as_json: bool, **how: Any) -> None:
    """Show traffic: of a scenario (each workload and their sum), of a workload's YAML file or options in braces, or a log.

    Prints its figures: rate, Fano factors, gaps, peaks, lengths, correlations, and what prompts share; `-o` draws them.
    """
    from sim.report import traffic
    from workloads.fitting import subjects
    from workloads.fitting.figures import quantities
    from workloads.fitting.views import CLOSE, busiest, view
    from workloads.fitting.written import save

    if out is not None and out.suffix not in (PICTURE, *PAGES):
        raise BadInput(f"found '{out}'; a file that ends in .png, .html, .md or .pdf is wanted")
    _writable(out)
    if duration == 0:
        raise BadInput("--duration: found 0; a time above it is wanted")
    if subjects.is_log(what):
        if duration is not None and how["end"] is None:
            how["end"] = (how["begin"] or 0.0) + duration
        log = _read(what, **how)
        shown, remarks = subjects.of_log(log), log.remarks
    else:
        used = [f"--{name}" for name, value in (("from", how["begin"]), ("to", how["end"])) if value is not None]
        if used:
            raise BadInput(f"{' and '.join(used)}: cut a log; of workloads --duration says how much is shown")
        shown, remarks = subjects.of_workloads(what, duration, seed)
    columns = {one.name: one.figures() for one in shown}
    if as_json:
        plain = {name: {key: None if math.isnan(value) else value for key, value in column.items()} for name, column in columns.items()}
        click.echo(json.dumps({"workloads": plain, "remarks": remarks}, indent=2))
    words = {"requests": "requests", **{one.name: one.words for one in quantities()}, "shared_prompt": "part of prompts seen before"}
    table = traffic.figures(columns, words)
    if not as_json:
        click.echo(traffic.text(table))
        _notes(remarks)
    if out is not None:
        whole = max(one.span for one in shown)
        close = busiest(shown[-1].times, whole, whole * CLOSE)
        views = [view(one.name, one, whole, one.tick, close=close) for one in shown]
        name = what if len(what) <= 60 else f"{what[:57]}..."
        if out.suffix == PICTURE:
            save(traffic.picture(views, name), out)
        else:
            _save_page(traffic.page("Traffic, without a cluster", name, tables=[table], plots=traffic.plots(views), remarks=remarks), out)
        _done([out])


def _read(path: str, format: str, begin: float | None, end: float | None, **flags: bool) -> Any:
    from sim.core.registry import FORMATS
    from workloads.fitting.log import read

    if format != "auto" and format not in FORMATS.names():
        raise BadInput(f"unknown --format '{format}'; {did_you_mean(format, ['auto', *FORMATS.names()])}")
    window = (begin or 0.0, math.inf if end is None else end)
    if window[0] >= window[1]:
        raise BadInput(f"--from {window[0]:g} s is not before --to {window[1]:g} s")
    order, zero = "sort" if flags["sort"] else "check", "skip" if flags["skip_zero"] else "error"
    return read(path, format, zero, order, window, flags["keep_gaps"])  # type: ignore[arg-type]


def _writable(target: Path | None) -> None:
    """Say at once what would otherwise end a long fit."""
    if target is None:
        return
    if target.is_dir():
        raise BadInput(f"{target} is a folder; the name of a file is wanted")
    if not target.parent.is_dir():
        raise BadInput(f"cannot write {target}: there is no folder {target.parent}")
    if target.suffix == ".pdf":
        from sim.report.pdf import library

        library()


def _save_page(page: str, target: Path) -> None:
    """Write a page in the form that the name of its file asks for."""
    from sim.cli.report import files, put

    put(files(page, target.with_suffix(""), (target.suffix.removeprefix("."),)))


def _said(found: Any) -> str:
    log, met = found.log, sum(row.verdict == "met" for row in found.rows)
    return (
        f"{log.name}: {len(log.times):,} requests in {log.span:,.0f} s; fitted to the first {found.cut:,.0f} s, judged on the rest.\n"
        f"Nearest: {found.best.kind}. {met} of {len(found.rows)} figures within their limits."
    )


def _rows(found: Any) -> Any:
    from sim.report.traffic import Table
    from sim.report.words import number

    def error(value: float, absolute: bool) -> str:
        return "–" if math.isnan(value) else f"{value:+.2f}" if absolute else f"{100 * value:+.0f} %"

    rows = [
        [row.quantity.words, number(row.first), number(row.later), number(row.generated), f"{number(row.low)} to {number(row.high)}",
         *(error(value, row.quantity.absolute) for value in (row.drift, row.own, row.error)), row.verdict]
        for row in found.rows
    ]  # fmt: skip
    head = ["", "first", "later", "generated", "range", "drift", "own", "error", "verdict"]
    return Table("Generated against real", head, rows, 1, MEANING, VERDICTS)


def _tried(found: Any) -> Any:
    from sim.report.traffic import Table

    rows = [
        [one.kind, "kept" if one is found.best else one.why, "–" if not one.options else f"{one.score:.3f}"]
        for one in sorted(found.candidates, key=lambda one: one.score)
    ]  # fmt: skip
    note = "Mean distance of the logarithms of gap CV, Fano factors and peaks from those of the later part."
    return Table("Generators tried", ["generator", "", "distance"], rows, 2, note)


def _fit_page(found: Any, written: str) -> str:
    from sim.report.traffic import page, plots
    from workloads.fitting.views import CLOSE, busiest, view

    log, cut = found.log, found.cut
    later = log.span - cut
    parts = (("first part", log.part(0.0, cut), cut, 0.0), ("later part", log.part(cut, log.span), later, cut),
             ("generated", found.example, later, cut))  # fmt: skip
    views = [
        view(name, part, span, log.tick, (begin, log.span), busiest(part.times, span, later * CLOSE)) for name, part, span, begin in parts
    ]
    bars = {float(row.quantity.name[5:-1]): (row.low, row.high) for row in found.rows if row.quantity.name.startswith("fano_")}
    return page(
        "Fitted with burstsim workload fit", log.name, lead=_said(found).split("\n"), tables=[_rows(found), _tried(found)],
        plots=plots(views, bars), remarks=found.remarks, yaml=written,
    )  # fmt: skip


def _fit_json(found: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    rows = [{"figure": row.quantity.name, "within": row.quantity.within, **{key: plain(value) for key, value in row._asdict().items()
             if key != "quantity"}} for row in found.rows]  # fmt: skip
    tried = [{"kind": one.kind, "distance": plain(one.score), "why": one.why} for one in found.candidates]
    return {
        "log": found.log.name, "requests": len(found.log.times), "seconds": found.log.span, "cut": found.cut, "kind": found.best.kind,
        "figures": rows, "generators": tried, "workload": found.workload, "remarks": found.remarks,
    }  # fmt: skip


def _notes(remarks: list[str]) -> None:
    for remark in remarks:
        click.echo(f"note: {remark}", err=True)


def _done(paths: list[Path]) -> None:
    for path in paths:
        click.echo(f"written to {path}", err=True)
