"""Two constants per engine and GPU, fitted end to end without the model they are then judged on.

Kernels cannot say what an engine's host adds to a step and its API server to a request; only whole runs can. TPOT moves by a change of
the host's constant, and TTFT by one of the front end's, nearly one to one, so a constant is the one in use plus the median residual of runs
under a light load, where no queue and little interference blur it. To be honest about a model never seen, each model's runs are predicted
with constants from the other models alone: the median over models of each one's median residual, so that many rows do not decide.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

CONSTANTS = {"host_overhead": "tpot", "frontend_overhead": "ttft"}
LIGHT = 24  # requests in flight up to which a run counts as lightly loaded
FEWEST = 4  # residuals a fit needs
# Models on a GPU for a fit of its own. A host's time is of its engine, and one model's kernels would pass their errors off as it; the front
# end's is of the machine and the load generator.
MODELS = {"host_overhead": 2, "frontend_overhead": 1}
MOST = {"host_overhead": 0.02, "frontend_overhead": 0.25}  # seconds
COLUMNS = ("run_id", "model", "framework", "version", "gpu", "light", "tpot", "ttft", *CONSTANTS)


def residuals(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per finished run that has them: its group, whether its load was light, measured minus predicted TPOT and TTFT, and constants
    it ran with; seconds. `rows` hold run_id, model, framework, version, gpu, concurrency, engine_side, split, measured and figures (ms),
    and constants.
    """
    found = []
    for row in rows:
        gaps = {measure: _gap(row, measure) for measure in CONSTANTS.values()}
        # A disaggregated run has two hosts and a hand-over in its figures; nothing says which of them a gap belongs to.
        light = row["concurrency"] is not None and row["concurrency"] <= LIGHT and not row["split"]
        # Times taken inside an engine say nothing of the API server.
        if row["engine_side"]:
            gaps["ttft"] = np.nan
        named = {key: row[key] for key in ("run_id", "model", "framework", "version", "gpu")}
        found.append({**named, "light": light, **gaps, **row["constants"]})
    return pd.DataFrame(found, columns=list(COLUMNS))


def fit_constants(points: pd.DataFrame, exclude_model: str | None = None) -> dict[tuple[str, str], dict[str, float]]:
    """Seconds of host and front end by (framework, GPU), from `residuals` of all models but one.

    A GPU with light runs of too few models (MODELS) takes the shift of its framework over all GPUs; a framework with fewer than FEWEST
    runs is left out.
    """
    used = points[points["light"] & (points["model"] != exclude_model)]
    fitted: dict[tuple[str, str], dict[str, float]] = {}
    for (framework, gpu), group in points.groupby(["framework", "gpu"]):
        shifts = {}
        for constant, measure in CONSTANTS.items():
            of_framework = used[(used["framework"] == framework) & used[measure].notna()]
            here = of_framework[of_framework["gpu"] == gpu]
            chosen = here if len(here) >= FEWEST and here["model"].nunique() >= MODELS[constant] else of_framework
            if len(chosen) >= FEWEST:
                values = (chosen[measure] + chosen[constant]).groupby(chosen["model"]).median()
                shifts[constant] = float(np.clip(values.median(), 0.0, MOST[constant]))
        if shifts and not group.empty:
            fitted[str(framework), str(gpu)] = shifts
    return fitted


def _gap(row: Mapping[str, Any], measure: str) -> float:
    """Measured minus predicted, seconds, of the mean or, without one, the median."""
    for name in (f"{measure}_mean", f"{measure}_p50", *(("itl_mean",) if measure == "tpot" else ())):
        if name in row["measured"] and name in row["figures"]:
            return float(row["measured"][name] - row["figures"][name]) / 1e3
    return float("nan")
