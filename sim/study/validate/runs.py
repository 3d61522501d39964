"""The table of measured runs: one row per run, read and checked before anything is simulated.

Latencies are milliseconds (`*_ms`), rates tokens or requests per second, and an empty cell is a figure that was not measured. A table that
cannot be used is refused; a row whose figures cannot be true (negative, in other units, percentiles that fall) is named and left out, so
that one slip in a thousand rows costs one row.
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.core.errors import BadInput, Problem, did_you_mean

NEEDED = ("run_id", "source", "gpu", "model", "engine", "isl", "osl")
MEASURES = ("ttft", "tpot", "itl", "e2e")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
LATENCIES = tuple(f"{measure}_{statistic}_ms" for measure in MEASURES for statistic in STATISTICS)
RATES = ("req_s", "output_tok_s", "total_tok_s", "output_tok_s_per_gpu")
MEASURED = (*LATENCIES, *RATES, "duration_s")
NUMBERS = (
    *MEASURED, "isl", "osl", "n_gpus", "tp", "pp", "dp", "ep", "concurrency", "request_rate", "n_requests", "max_num_seqs",
    "max_num_batched_tokens",
)  # fmt: skip
TEXTS = ("precision", "kv_dtype", "mode", "engine_version", "workload", "request_file", "spec_decode", "notes", "prefill_cfg", "decode_cfg")
# Milliseconds no server has shown, so that a figure outside is in other units: a decode step of the smallest model takes 0.2 ms.
PLAUSIBLE = {"ttft": (0.5, 3.6e6), "tpot": (0.1, 6e4), "itl": (0.1, 6e4), "e2e": (1.0, 3.6e7)}
# How far E2E may lie from TTFT + (output - 1) TPOT, all means, before one of them must be in another unit.
AGREE = 20.0


def read(path: Path, where: str | None = None) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """The chosen rows, with every column of NUMBERS and TEXTS there, and those left out as {run_id, why}.

    `where` is an expression over the columns as pandas' `query` takes it; without it only rows of quality `ok`, where the table has such a
    column. Raises BadInput for a file, a table or an expression that cannot be used.
    """
    table = _table(path)
    table = _chosen(table, where, path)
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *NUMBERS, *TEXTS])))
    for column in TEXTS:
        table[column] = table[column].astype(object).where(table[column].notna(), "")
    wrong = {number: list(_wrong(row)) for number, row in zip(table["_row"], table.to_dict("records"), strict=True)}
    # Kept as text until here, so that a message shows what was written.
    for column in NUMBERS:
        table[column] = pd.to_numeric(table[column], errors="coerce")
    bad = table["_row"].map(lambda number: bool(wrong[number]))
    left_out = [
        {"run_id": str(name), "why": f"row {number}: {'; '.join(wrong[number])}"}
        for name, number in zip(table.loc[bad, "run_id"], table.loc[bad, "_row"], strict=True)
    ]
    if bad.all():
        raise BadInput([Problem(entry["why"], file=str(path)) for entry in left_out[:20]])
    return table[~bad].reset_index(drop=True), left_out


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise BadInput([Problem("no such file; a table of measured runs (CSV) is wanted", file=str(path))]) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadInput([Problem(f"cannot be read as CSV: {error}", file=str(path))]) from None
    lacking = [column for column in NEEDED if column not in table.columns]
    problems = [Problem(f"no column '{name}'; {did_you_mean(name, table.columns)}", file=str(path), line=1) for name in lacking]
    if not any(column in table.columns for column in MEASURED):
        problems.append(Problem(f"no measured figure; one of {', '.join(MEASURED)} is wanted", file=str(path), line=1))
    if problems:
        raise BadInput(problems)
    if table.empty:
        raise BadInput([Problem("holds no row", file=str(path))])
    twice = table.loc[table["run_id"].duplicated() | table["run_id"].isna(), "run_id"]
    if len(twice):
        found = f"'{twice.iloc[0]}'" if isinstance(twice.iloc[0], str) else "an empty cell"
        message = f"run_id must be there and differ in every row; found {found}"
        raise BadInput([Problem(message, file=str(path), line=int(twice.index[0]) + 2)])
    return table.assign(_row=np.arange(len(table)) + 2)


def _chosen(table: pd.DataFrame, where: str | None, path: Path) -> pd.DataFrame:
    if where is None:
        rows = table[table["quality"] == "ok"] if "quality" in table.columns else table
        if rows.empty:
            raise BadInput([Problem("no row has quality 'ok'; choose rows with --where", file=str(path))])
        return rows
    typed = table.copy()
    for column in NUMBERS:
        if column in typed.columns:
            typed[column] = pd.to_numeric(typed[column], errors="coerce")
    try:
        mask = typed.eval(where, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # whatever an expression can do wrong
        wanted = "an expression over columns is wanted, such as gpu == 'H100-SXM'"
        raise BadInput(f"--where {where!r} cannot be used: {error}; {wanted}") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise BadInput(f"--where {where!r} is not true or false for each row; such as: quality == 'ok' and tp == 8")
    if not mask.any():
        raise BadInput(f"--where {where!r} chooses none of the {len(table)} rows of {path}")
    return table[mask]


def _wrong(row: dict[str, Any]) -> Iterator[str]:
    """What cannot be true of a row."""
    values: dict[str, float] = {}
    for column in NUMBERS:
        written = row[column]
        if not isinstance(written, str):
            continue
        try:
            value = float(written)
        except ValueError:
            yield f"{column}: found '{written}'; a number is wanted"
            continue
        least = 0.0 if column in ("ep", "dp") else np.nextafter(0.0, 1.0)
        if not np.isfinite(value) or value < least:
            yield f"{column}: found {written}; a positive number is wanted, or an empty cell"
        else:
            values[column] = value
    for column in ("isl", "osl"):
        if not isinstance(row[column], str) and not row["request_file"]:
            yield f"{column}: is empty; tokens per request are wanted"
    if not any(column in values for column in MEASURED):
        yield "no figure was measured"
    yield from _confused(values)


def _confused(values: dict[str, float]) -> Iterator[str]:
    for measure, (low, high) in PLAUSIBLE.items():
        names = [name for name in (f"{measure}_{statistic}_ms" for statistic in STATISTICS) if name in values]
        for name in names:
            if not low <= values[name] <= high:
                unit = "seconds" if values[name] < low else "microseconds"
                yield f"{name}: found {values[name]:g}, which looks like {unit}; milliseconds are wanted"
        rising = [name for name in names if "_p" in name]
        for lower, upper in pairwise(rising):
            if values[lower] > values[upper]:
                yield f"{lower} ({values[lower]:g}) is above {upper} ({values[upper]:g})"
    means = [values.get(name) for name in ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms", "osl")]
    if all(value is not None for value in means):
        ttft, tpot, e2e, osl = (float(value) for value in means if value is not None)
        ratio = e2e / (ttft + tpot * max(osl - 1, 0))
        if not 1 / AGREE < ratio < AGREE:
            yield f"e2e_mean_ms is {ratio:.3g} times ttft_mean_ms + (osl - 1) tpot_mean_ms: one of them is in another unit"
