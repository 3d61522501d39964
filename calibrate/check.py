"""How far a GPU's profile is off a table of measurements: errors per kind of kernel and dtype, over all rows and over those held out."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from calibrate.fitting import errors
from calibrate.ops.base import Group
from sim.physics.kernels import Kernels
from sim.spec.fit import wanted
from sim.spec.hardware import Gpu


class Checked(NamedTuple):
    """One group's rows with their measured and predicted seconds, and whether any fit of ours may have seen them."""

    group: Group
    measured: np.ndarray
    predicted: np.ndarray
    held: np.ndarray


def check(groups: list[Group], gpu: Gpu) -> tuple[list[Checked], list[str]]:
    """Predict every group from the profile; remarks name what the profile has no kernel for."""
    kernels, checked, remarks = Kernels(gpu), [], []
    for group in groups:
        fit = kernels.fit(group.op, group.dtype, group.framework)
        if fit is None or not set(wanted(group.op, group.dtype)) <= set(fit.parameters):
            remarks.append(f"{group.op} {group.dtype}: {len(group.rows)} rows, but {gpu.name} has no such fit")
            continue
        held = group.held_out & (not group.curved)
        checked.append(Checked(group, group.seconds, group.predict(gpu, fit.parameters), held))
    return checked, remarks


def rows(checked: list[Checked]) -> list[dict[str, Any]]:
    """One row per op and dtype, errors as fractions; where several frameworks were measured, `frameworks` holds a row of each."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((item.group.op, item.group.dtype) for item in checked):
        same = [item for item in checked if (item.group.op, item.group.dtype) == key]
        row = _row(key, "all" if len(same) > 1 else same[0].group.framework, same)
        found.append(row | {"frameworks": [_row(key, item.group.framework, [item]) for item in same if len(same) > 1]})
    return found


def _row(key: tuple[str, str], framework: str, items: list[Checked]) -> dict[str, Any]:
    measured, predicted = (np.concatenate([getattr(item, name) for item in items]) for name in ("measured", "predicted"))
    chosen = np.concatenate([item.held for item in items])
    cold = np.concatenate([item.group.cold for item in items])
    row: dict[str, Any] = {"op": key[0], "dtype": key[1], "framework": framework, **_errors(predicted, measured)}
    row["bias"] = float(np.median(predicted / measured) - 1.0)
    for name, mask in (("held_out", chosen), ("cold", cold), ("held_out_cold", chosen & cold)):
        row[name] = _errors(predicted[mask], measured[mask]) if mask.any() else {"n": 0}
    return row


def _errors(predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    found = errors(predicted, measured)
    return {"n": found.points, "mape": found.mape, "median_ape": found.median, "p95_ape": found.p95}


def table(checked: list[Checked]) -> pd.DataFrame:
    """Every row with `measured_us`, `predicted_us` and its absolute percentage error."""
    parts = [
        item.group.rows.assign(
            framework=item.group.framework, our_dtype=item.group.dtype, measured_us=item.measured * 1e6, predicted_us=item.predicted * 1e6,
            ape=np.abs(item.predicted / item.measured - 1.0), held_out=item.held, cold=item.group.cold,
        ) for item in checked
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)
