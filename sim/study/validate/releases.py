"""Whether an engine's release decides its constants: each release's own host and front end, judged on models it was not fitted on.

A release of an engine is mostly measured with one or two models, and then what its kernels are off by cannot be told from what its host
takes. So a profile has a figure of one release only if, fitted without a model, it comes nearer to what that model's light runs ask for
than the figure in use, and if no other figure of those runs suffers. In 2026-11 one did: vLLM 0.15's front end on H100 (6 models). That of
TensorRT-LLM 1.0 there (2 models, 122 ms for the 50 in use) passed the first test and failed the second: its clients then wait longer
between requests, batches shrink, and the error of TPOT rises from 4.9 to 6.1 % (leave-one-model-out, over all engines, from 7.7 to 7.9 %);
what it closes is no constant. No host passed the first.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sim.spec.fit import release
from sim.study.validate.held_out import CONSTANTS, FEWEST, MOST


def line_of(version: str) -> str:
    """The release line of a version, whose fixes share its constants.

    >>> line_of("0.15.1"), line_of("1.2.0"), line_of("")
    ('0.15', '1.2', '')
    """
    return ".".join(map(str, release(version)[:2]))


def by_release(points: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry per engine, GPU, release line and constant with FEWEST light runs; `points` as of `held_out.residuals`, with `version`.

    `in_use` and `fitted` (to all its models) are the constants, seconds. The mean distance over models of what one asks for from a
    constant: `off_in_use`, `off_release` (fitted to the other models of that release), `off_all` (to the others of all releases); the
    last two are None where no other model was measured.
    """
    found = []
    light = points[points["light"].astype(bool)].assign(line=points["version"].map(line_of))
    for (framework, gpu), group in light.groupby(["framework", "gpu"]):
        for constant, measure in CONSTANTS.items():
            runs = group[group[measure].notna()]
            runs = runs.assign(asked=runs[measure] + runs[constant])
            for line, own in runs[runs["line"] != ""].groupby("line"):
                if len(own) < FEWEST:
                    continue
                asked = own.groupby("model")["asked"].median()
                found.append({
                    "engine": framework, "gpu": gpu, "release": line, "constant": constant, "models": len(asked), "runs": len(own),
                    "in_use": float(own[constant].median()), "fitted": _fitted(own, constant),
                    "off_in_use": float((asked - own.groupby("model")[constant].median()).abs().mean()),
                    "off_release": _off(asked, own, constant), "off_all": _off(asked, runs, constant),
                })  # fmt: skip
    return found


def _fitted(runs: pd.DataFrame, constant: str) -> float:
    """The median over models of each one's median: as in `held_out.fit_constants`."""
    return float(np.clip(runs.groupby("model")["asked"].median().median(), 0.0, MOST[constant]))


def _off(asked: pd.Series, runs: pd.DataFrame, constant: str) -> float | None:
    """The mean distance of what each model asks for from the constant of the other models in `runs`."""
    if runs["model"].nunique() < 2:
        return None
    return float(np.mean([abs(value - _fitted(runs[runs["model"] != model], constant)) for model, value in asked.items()]))
