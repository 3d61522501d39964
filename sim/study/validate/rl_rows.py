"""The table of published runs of reinforcement learning: one row per run, read and checked before anything is simulated.

Times are seconds, lengths tokens, and an empty cell is what was not published. A table that cannot be used is refused; a row whose
figures cannot be true, or contradict each other, is named and left out. Rows that share an id are figures of one run: `metric` and
`reported` hold what has no column of its own.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sim.core.errors import BadInput, Problem, did_you_mean

NEEDED = ("id", "model", "n_gpus")
FIGURES = (
    "step_s", "gen_s", "old_logprob_s", "ref_s", "train_s", "wait_prev_gen_s", "tok_s_gpu", "mfu", "total_h", "speedup_vs_sync", "reported",
)  # fmt: skip
SIZES = ("n_gpus", "prompts_per_step", "samples_per_prompt", "max_response_tokens", "mean_response_tokens", "steps")
TEXTS = ("source", "place", "framework", "algorithm", "gpu", "alloc_rollout_train", "mode", "staleness", "note", "metric", "scenario")
# Tokens per second and GPU times GPUs and seconds, over tokens of a step: prompts make it a little more than 1.
CONTRADICTS = 1.5
BATCH = re.compile(r"GBS\s*=\s*(\d+)")
# A part of a step over the step, from which on one of them is wrong: averages over different steps differ by less.
TOO_LONG = 1.2
# What mean answers there must be room for above the limit: figures are rounded.
ROUNDED = 1.001

Row = Mapping[str, Any]


def read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows in order, with every column of FIGURES and SIZES (floats, NaN where empty) and of TEXTS (empty texts), their `line`, and
    `figures`, {metric: reported} of all rows of that id; and those left out as {id, why}. Raises BadInput for a table that cannot be used.
    """
    table = _table(path)
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for line, raw in enumerate(table.to_dict("records"), 2):
        row, wrong = _row(raw, line)
        wrong += list(_contradictions(row)) if not wrong else []
        if wrong:
            left_out.append({"id": row["id"], "why": f"line {line}: {'; '.join(wrong)}"})
        else:
            kept.append(row)
    return list(_merged(kept, path)), left_out


def batch_of(row: Row) -> float:
    """Samples of a step: prompts times samples, or what the note says (`GBS=512`); NaN where neither does."""
    if row["prompts_per_step"] > 0 and row["samples_per_prompt"] > 0:
        return float(row["prompts_per_step"] * row["samples_per_prompt"])
    found = BATCH.search(row["note"])
    return float(found[1]) if found else math.nan


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise BadInput([Problem("no such file; a table of published runs (CSV) is wanted", file=str(path))]) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadInput([Problem(f"cannot be read as CSV: {error}", file=str(path))]) from None
    problems = [
        Problem(f"no column '{name}'; {did_you_mean(name, list(table.columns))}", file=str(path), line=1)
        for name in NEEDED if name not in table.columns
    ]  # fmt: skip
    if not any(name in table.columns for name in FIGURES):
        problems.append(Problem(f"no published figure; one of {', '.join(FIGURES)} is wanted", file=str(path), line=1))
    if problems:
        raise BadInput(problems)
    if table.empty:
        raise BadInput([Problem("holds no row", file=str(path))])
    empty = [number for number, name in enumerate(table["id"], 2) if not name.strip()]
    if empty:
        raise BadInput([Problem("id: found an empty cell; a name of its own is wanted for each run", file=str(path), line=empty[0])])
    return table.reindex(columns=list(dict.fromkeys([*table.columns, *FIGURES, *SIZES, *TEXTS])), fill_value="")


def _row(raw: Mapping[str, str], line: int) -> tuple[dict[str, Any], list[str]]:
    """The row with its numbers read, and what is wrong with them."""
    row: dict[str, Any] = {"id": raw["id"].strip(), "model": raw["model"].strip(), "line": line, "filled": ()}
    row |= {name: raw[name].strip() for name in TEXTS}
    wrong = []
    for name in (*FIGURES, *SIZES):
        written, least = raw[name].strip(), "at least 1" if name in SIZES else "a number of 0 or more"
        try:
            row[name] = float(written) if written else math.nan
        except ValueError:
            row[name] = math.nan
            wrong.append(f"{name}: found '{written}'; {least} is wanted, or an empty cell")
            continue
        if written and (not math.isfinite(row[name]) or row[name] < (1 if name in SIZES else 0)):
            wrong.append(f"{name}: found {written}; {least} is wanted, or an empty cell")
        elif name in SIZES and name != "mean_response_tokens" and row[name] != row[name] // 1 and row[name] == row[name]:
            wrong.append(f"{name}: found {written}; a whole number is wanted")
    if not row["model"]:
        wrong.append("model: is empty; the name of a model is wanted")
    return row, wrong


def _contradictions(row: Row) -> Iterator[str]:
    """Figures of a row that cannot all be true."""
    if row["mean_response_tokens"] > row["max_response_tokens"] * ROUNDED:
        yield f"mean_response_tokens ({row['mean_response_tokens']:g}) is above max_response_tokens ({row['max_response_tokens']:g})"
    tokens, done = batch_of(row) * row["mean_response_tokens"], row["tok_s_gpu"] * row["n_gpus"] * row["step_s"]
    if tokens > 0 and done > 0 and not 1 / CONTRADICTS < done / tokens < CONTRADICTS:
        yield (
            f"known inconsistent: tok_s_gpu x n_gpus x step_s are {done:,.0f} tokens, but {batch_of(row):,.0f} samples of "
            f"{row['mean_response_tokens']:,.0f} tokens are {tokens:,.0f}, {done / tokens:.2g} times as many"
        )
    for name in ("gen_s", "train_s", "old_logprob_s", "wait_prev_gen_s"):
        if row[name] > TOO_LONG * row["step_s"] and not (name == "gen_s" and "async" in row["mode"].lower()):
            yield f"{name} ({row[name]:g} s) is more than the step of {row['step_s']:g} s that it is a part of"


def _merged(rows: Sequence[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    """One row per id, with the `figures` of all rows that have it. Raises BadInput where an id comes twice and they say nothing new."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        first = found.setdefault(row["id"], row | {"figures": {}})
        named = row["metric"] and row["reported"] == row["reported"]
        if first["line"] != row["line"] and (not named or row["metric"] in first["figures"]):
            message = f"id '{row['id']}' is in line {first['line']} already; ids must differ, or each row report a metric of its own"
            raise BadInput([Problem(message, file=str(path), line=row["line"])])
        if named:
            first["figures"][row["metric"]] = row["reported"]
    yield from found.values()
