"""The verbs of `burstsim calibrate`: measure a GPU, fit its profile, check a profile against any table, plot the two."""
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sim.core.errors import BadInput

PATH = click.Path(path_type=Path)
GPU = click.option("--gpu", "name", required=True, help="GPU of the catalogue, or the path of a profile with its datasheet figures.")


@click.group()
def calibrate() -> None:
    """Measure kernels on a GPU, fit a hardware profile to them, and see how far it is off."""


@calibrate.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--grid", type=PATH, help="Points to measure; default: the grid of 1,849 points that takes under ten minutes.")
@click.option("-o", "--output", "out", type=PATH, required=True, help="Table to write: .parquet or .csv. An unfinished one is resumed.")
@click.option("--limit", default=600.0, show_default=True, help="Seconds after which the rest is left unmeasured.")
@click.option("--restart", is_flag=True, help="Measure everything anew.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written, on what, and what was skipped and why, as JSON.")
def measure(device: str, grid: Path | None, out: Path, limit: float, restart: bool, as_json: bool) -> None:
    """Time GEMM, attention, small kernels, copies and launches with torch; resumable."""
    from calibrate.measure import GRID, sidecar
    from calibrate.measure import measure as run
    from sim.report.progress import counted

    with counted("measuring") as progress:
        run(device, grid or GRID, out, limit_s=limit, resume=not restart, progress=progress)
    if as_json:
        click.echo(json.dumps({"written": [str(out)], "about": json.loads(sidecar(out).read_text("utf-8"))}, indent=2))
    click.echo(f"written to {out}", err=True)


@calibrate.command()
@click.argument("tables", nargs=-1, required=True, type=PATH)
@GPU
@click.option("-o", "--output", "out", type=PATH, help="Profile to write; default: NAME.yaml in the working folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the fits as JSON.")
def fit(tables: tuple[Path, ...], name: str, out: Path | None, as_json: bool) -> None:
    """Fit the kernels measured in TABLES and write a profile with parameters, ranges and hold-out errors."""
    from calibrate import table as measured
    from calibrate.fit import fit_all
    from calibrate.profile import write
    from sim.spec.hardware import gpu

    chip = gpu(name)
    groups, remarks = measured.groups(measured.read(tables), chip)
    what = f"burstsim calibrate fit on {', '.join(table.name for table in tables)}"
    fitted = fit_all(groups, chip, what)
    target = out or Path(f"{chip.name}.yaml")
    write(name, fitted.fits, what, target)
    rows = [{"op": fit.op, "dtype": fit.dtype, "framework": fit.framework, "library": fit.library, "points": fit.points,
             **{f"held_out_{key}": value for key, value in asdict(fit.errors).items()}} for fit in fitted.fits if fit.errors]  # fmt: skip
    _print(rows, as_json, ("held_out_median", "held_out_p95", "held_out_mape"))
    for remark in (*remarks, *fitted.remarks):
        click.echo(f"note: {remark}", err=True)
    click.echo(f"written to {target}; use it as `gpu: {target}`", err=True)


@calibrate.command()
@click.argument("tables", nargs=-1, required=True, type=PATH)
@GPU
@click.option("--json", "as_json", is_flag=True, help="Print JSON: op, dtype, n, mape, median_ape, p95_ape (fractions), and more.")
def check(tables: tuple[Path, ...], name: str, as_json: bool) -> None:
    """Errors of a profile against measured TABLES, per kind of kernel and dtype."""
    from calibrate.check import rows

    checked, remarks = _checked(tables, name)
    found = rows(checked)
    if not as_json:
        found = [line for row in found for line in (row, *row["frameworks"])]
        found = [{key: row[key] for key in ("op", "dtype", "framework", "n", "median_ape", "p95_ape", "mape", "bias")}
                 | {f"held_out_{key}": row["held_out_cold"].get(key, "") for key in ("n", "median_ape", "p95_ape")}
                 for row in found]  # fmt: skip
    _print(found, as_json, ("median_ape", "p95_ape", "mape", "bias", "held_out_median_ape", "held_out_p95_ape"))
    for remark in remarks:
        click.echo(f"note: {remark}", err=True)


@calibrate.command()
@click.argument("tables", nargs=-1, required=True, type=PATH)
@GPU
@click.option("-o", "--output", "out", type=PATH, required=True, help="Picture to write: .svg, .png or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def plot(tables: tuple[Path, ...], name: str, out: Path, as_json: bool) -> None:
    """Draw predicted against measured times of TABLES, a panel per kind of kernel."""
    from calibrate.check import table
    from sim.report.calibration import draw

    checked, remarks = _checked(tables, name)
    draw(table(checked), name, out)
    for remark in remarks:
        click.echo(f"note: {remark}", err=True)
    if as_json:
        click.echo(json.dumps({"written": [str(out)]}, indent=2))
    click.echo(f"written to {out}", err=True)


def _checked(tables: tuple[Path, ...], name: str) -> tuple[Any, list[str]]:
    from calibrate import table as measured
    from calibrate.check import check
    from sim.spec.hardware import gpu

    chip = gpu(name)
    groups, left_out = measured.groups(measured.read(tables), chip)
    checked, unknown = check(groups, chip)
    if not checked:
        raise BadInput(f"nothing to check: {unknown[0]}" if unknown else "no row of the tables is a kernel we know")
    return checked, [*left_out, *unknown]


def _print(rows: list[dict[str, Any]], as_json: bool, shares: tuple[str, ...]) -> None:
    """A table of rows; `shares` are fractions, shown in per cent."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [{key: f"{100 * value:.1f} %" if key in shares and value != "" else str(value) for key, value in row.items()} for row in rows]
    widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
    for row in ({key: key for key in widths}, *shown):
        click.echo("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
