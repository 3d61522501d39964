"""Predicted beside measured, one row per run and figure, and what a group of them amounts to."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ("run_id", "source", "gpu", "model", "engine", "metric", "measured", "predicted", "ape")
REQUESTS = ("run_id", "request", "measured_s", "predicted_s", "ape")


def errors_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """COLUMNS for every figure both measured and predicted; `measured` and `predicted` in the table's units (ms, tokens/s, s), `ape` the
    absolute error as a fraction of the measured.
    """
    found = [
        (row["run_id"], row["source"], row["gpu_written"], row["model_written"], row["engine"], metric, measured, row["figures"][metric],
         abs(row["figures"][metric] / measured - 1))
        for row in rows for metric, measured in row["measured"].items() if metric in row["figures"]
    ]  # fmt: skip
    return pd.DataFrame(found, columns=list(COLUMNS))


def requests_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """E2E of each replayed request, seconds."""
    found = [
        (row["run_id"], number, measured, predicted, abs(predicted / measured - 1))
        for row in rows for number, (measured, predicted) in enumerate(row["requests"])
    ]
    return pd.DataFrame(found, columns=list(REQUESTS))


def stats(errors: pd.DataFrame) -> dict[str, float | int]:
    """n, median APE, MAPE, 90th percentile, and bias (median of predicted / measured - 1), as fractions; of at least one row."""
    ape = errors["ape"].to_numpy()
    bias = (errors["predicted"] / errors["measured"] - 1).to_numpy()
    return {
        "n": len(ape), "median_ape": float(np.median(ape)), "mape": float(ape.mean()), "p90": float(np.quantile(ape, 0.9)),
        "bias": float(np.median(bias)),
    }  # fmt: skip


def by(errors: pd.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """`stats` of each group, with its keys, sorted by them."""
    if errors.empty:
        return []
    return [{**dict(zip(keys, map(str, group), strict=True)), **stats(part)} for group, part in errors.groupby(list(keys), sort=True)]
