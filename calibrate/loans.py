"""What error a GPU's fits show on another GPU, when only the datasheet of that one is known.

    python -m calibrate.loans DATA             the errors of every loan, per kind of kernel, and what `transfer.yaml` says
    python -m calibrate.loans DATA --write     writes it

DATA is a folder of published tables (`aic_<gpu>_*.csv`). Each measured GPU lends its fits to each other one; the loans within one
architecture and those to another are pooled by kind of kernel, and their errors become those of every transferred fit.
"""
from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from calibrate import table as measured
from calibrate.fitting import errors
from calibrate.ops.base import Group
from sim.physics import transfer
from sim.spec.hardware import Gpu, gpu

TABLES = {"a100_sxm_80gb": "a100_sxm", "h100_sxm": "h100_sxm", "b200": "b200_sxm", "gb200": "gb200", "rtx_pro_6000": "rtx_pro_6000_server"}
HEAD = """\
# Which measured GPU lends its kernels to an architecture that has none of its own, and the error such loans showed between measured GPUs
# (fractions; `python -m calibrate.loans DATA --write`). `same`: within an architecture. `other`: to another.
"""


def tables(folder: Path, name: str) -> list[Path]:
    """The published tables of one GPU."""
    return sorted(folder.glob(f"aic_{TABLES[name]}_*.csv"))


def loans(groups: dict[str, list[Group]]) -> pd.DataFrame:
    """One row per lender, borrower and group: op, dtype, framework, same (architecture), and the borrower's APEs (arrays)."""
    chips = {name: gpu(name) for name in groups}
    rows = []
    for borrower, own in groups.items():
        for lender in chips:
            rows += [row for group in own if lender != borrower and (row := _loan(group, chips[lender], chips[borrower]))]
    return pd.DataFrame(rows)


def _loan(group: Group, lender: Gpu, borrower: Gpu) -> dict[str, Any] | None:
    fit = lender.fit(group.op, group.dtype, group.framework)
    if fit is None or fit.origin != lender.name:
        return None
    predicted = group.predict(borrower, transfer.parameters(fit, lender, borrower))
    cold = group.cold if group.cold.any() else np.ones(len(group.shapes), bool)
    return {
        "op": group.op, "dtype": group.dtype, "framework": group.framework, "lender": lender.name, "borrower": borrower.name,
        "same": lender.architecture == borrower.architecture, "predicted": predicted[cold], "measured": group.seconds[cold],
    }  # fmt: skip


def pooled(found: pd.DataFrame, same: bool) -> dict[str, dict[str, float]]:
    """Errors by op over all loans of one sort."""
    result = {}
    for op, some in found[found["same"] == same].groupby("op"):
        shown = errors(np.concatenate(list(some["predicted"])), np.concatenate(list(some["measured"])))
        result[str(op)] = {"points": shown.points, **{key: round(getattr(shown, key), 3) for key in ("median", "p95", "mape")}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = loans({name: measured.groups(measured.read(tables(options.data, name)), gpu(name))[0] for name in TABLES})
    for row in found.to_dict("records"):
        shown = errors(row["predicted"], row["measured"])
        kind = f"{row['op']} {row['dtype']} {row['framework']}"
        loan = f"{row['lender']:>14} -> {row['borrower']:<14} {kind:<32}"
        print(f"{loan} n {shown.points:5d}  median {shown.median:.3f}  p95 {shown.p95:.3f}")
    path = Path(str(files("hardware_profiles").joinpath("transfer.yaml")))
    data = yaml.safe_load(path.read_text("utf-8"))
    data["errors"] = {"same": pooled(found, True), "other": pooled(found, False)}
    text = HEAD + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=140)
    if options.write:
        path.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
