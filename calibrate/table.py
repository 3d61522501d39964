"""Reading tables of measured kernels: one row per point, with the columns of published ones (`op`, `dtype`, sizes, `latency_us`).

A row that cannot be a measurement (no time, a negative one, faster than the datasheet allows) would bend a fit without a word. The first
two are errors; points under the roofline are left out by name, and when half of a kind is under it, the unit is not microseconds.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from calibrate.ops import attention, collectives, elementwise, gemm, mla, moe
from calibrate.ops.base import Group, Op
from sim.core.errors import BadInput, Problem
from sim.spec.hardware import Gpu

OPS: tuple[Op, ...] = (gemm, attention, mla, moe, collectives, elementwise)
KINDS = ("op", "layer", "prefill_chunk")  # one of which says what a row measured
# Columns that any kind of kernel may look at; a table without them has none of its rows.
COLUMNS = (
    "op", "gpu", "source", "dtype", "kv_dtype", "kernel", "batch", "seqlen_q", "seqlen_kv", "n_heads", "n_kv_heads", "head_dim", "window",
    "m", "n", "k", "num_tokens", "hidden", "inter", "n_experts", "topk", "moe_tp", "moe_ep", "distribution", "message_bytes", "n_gpus",
)  # fmt: skip
TOLERANCE = 0.98  # of the datasheet's floor: clocks and rounding of a table
NAMED = 5  # rows named in one message
# Why rows of a kind are in no group.
WHY = {
    "attn_decode_hetero": "batches of unequal lengths test what equal ones predict",
    "memcpy": "copies test the datasheet's bandwidth; no step has them as a kernel",
    "launch": "a launch from torch is not an engine's, which a profile's `launch` is",
    "layer_stack": "whole layers test the sum of the kernels",
    "throttle": "a sustained load shows clocks, not a kernel",
    "fp8_quant": "casts are fitted with the fp8 products of the same run, and there are none",
    "gemm": "n or k below 512, a dtype unknown here, or not of the newest release and its most frequent kernel",
    "attn_decode": "head dim over 256, keys of another dtype, or not of the most frequent kernel",
    "attn_prefill": "head dim over 256, a single new token, keys of another dtype, or not of the most frequent kernel",
    "attn_mixed": "a chunk or decoders alone, keys not in 16 bits, heads unknown, or not of the most frequent kernel",
}
OTHERWISE = "no form takes this kind, or its dtype, sizes, kernel or model are none a fit takes"


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """The tables one below the other, `file` and `line` added to each row. Raises BadInput with all that is wrong with any of them."""
    problems: list[Problem] = []
    tables = [table for path in paths if (table := _read(path, problems)) is not None]
    if problems:
        raise BadInput(problems)
    table = pd.concat(tables, ignore_index=True)
    if "layer" in table:
        # Layers timed in place name themselves in a column of their own.
        table = table.assign(op=table["op"].fillna(table["layer"]) if "op" in table else table["layer"])
    return table.reindex(columns=[*table.columns, *(name for name in COLUMNS if name not in table)])


def _read(path: Path, problems: list[Problem]) -> pd.DataFrame | None:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    except FileNotFoundError:
        problems.append(Problem("no such file; a CSV or Parquet table of measured kernels is wanted", file=str(path)))
        return None
    except (ValueError, OSError) as error:
        problems.append(Problem(f"cannot be read as a table: {str(error).splitlines()[0]}", file=str(path)))
        return None
    missing = [] if set(KINDS) & set(table) else ["op"]
    missing += [] if "latency_us" in table else ["latency_us"]
    if missing:
        found = ", ".join(map(str, table.columns[:8]))
        problems.append(Problem(f"no column {' and no column '.join(missing)}; found {found}", file=str(path), line=1))
        return None
    table = table.assign(file=str(path), line=np.arange(len(table)) + 2)
    latency = pd.to_numeric(table["latency_us"], errors="coerce")
    for what, wrong in (("is not a number", latency.isna()), ("is not positive", latency <= 0), ("is not finite", np.isinf(latency))):
        lines = table.loc[wrong, "line"]
        if len(lines):
            shown = table.loc[lines.index[0], "latency_us"]
            problems.append(Problem(
                f"latency_us {what} in {len(lines)} rows (found {shown}); measured microseconds are wanted, so leave unmeasured points out",
                file=str(path), line=int(lines.iloc[0]),
            ))  # fmt: skip
    return table.assign(latency_us=latency)


def groups(table: pd.DataFrame, gpu: Gpu) -> tuple[list[Group], list[str]]:
    """Every group of the table that some kind of kernel knows, without the points under the roofline; and remarks on what was left out.

    Raises BadInput when half the points of a group are under the roofline: such a table is not in microseconds, or not of this GPU.
    """
    # Repeated points tell the noise of a measurement; a fit would take them for more shapes of the same kind.
    repeats = table["role"].eq("repeat") if "role" in table else pd.Series(False, table.index)
    table = table[~repeats]
    found = [group for op in OPS for group in op.groups(table, gpu)]
    kept, remarks = [], []
    problems: list[Problem] = []
    left = _left_out(table, found)
    for group in found:
        ratio = group.seconds / np.maximum(group.floor(gpu), 1e-30)
        under = ratio < TOLERANCE
        if under.mean() > 0.5:
            problems.append(Problem(_confused(group, gpu, float(np.median(ratio))), file=str(group.rows["file"].iloc[0])))
        elif under.any():
            lines = ", ".join(f"{row.file}:{row.line}" for row in group.rows[under].head(NAMED).itertuples())
            remarks.append(f"{title(group)}: {under.sum()} points faster than the datasheet of {gpu.name} allows are left out ({lines})")
        kept.append(_only(group, ~under))
    if problems:
        raise BadInput(problems)
    told = [f"{repeats.sum()} repeated points are not fitted: they tell the noise of the measurement"] if repeats.any() else []
    return kept, [*remarks, *left, *told]


def _left_out(table: pd.DataFrame, found: Sequence[Group]) -> list[str]:
    """What no group took, by kind, and why."""
    used = {key for group in found for key in zip(group.rows["file"], group.rows["line"], strict=True)}
    taken = np.array([key in used for key in zip(table["file"], table["line"], strict=True)], bool)
    kinds = table["op"].where(table["op"].notna(), "attn_mixed" if "prefill_chunk" in table else "rows without an op")
    counts = kinds[~taken].value_counts(sort=False)
    whole = kinds.value_counts()
    return [f"{kind}: {count} of {whole[kind]} rows are not used: {WHY.get(str(kind), OTHERWISE)}" for kind, count in counts.items()]


def title(group: Group) -> str:
    return " ".join(filter(None, (group.op, group.dtype, group.framework)))


def _confused(group: Group, gpu: Gpu, ratio: float) -> str:
    factor = next((f for f, unit in ((1e3, "ms"), (1e6, "s")) if 0.8 < ratio * f < 1e3), 0.0)
    guess = {1e3: "; it looks like milliseconds", 1e6: "; it looks like seconds"}.get(factor, "")
    return f"{title(group)}: most points are faster than {gpu.name} can be by its datasheet, {1 / ratio:.3g} times in the middle{guess}"


def _only(group: Group, kept: np.ndarray) -> Group:
    """The group with some rows alone."""
    if kept.all():
        return group
    predict, floor = group.predict, group.floor
    return replace(
        group, rows=group.rows[kept], shapes=group.shapes[kept], cold=group.cold[kept],
        predict=lambda gpu, fit: predict(gpu, fit)[kept], floor=lambda gpu: floor(gpu)[kept],
        hull={name: sizes[kept] for name, sizes in group.hull.items()},
    )  # fmt: skip
