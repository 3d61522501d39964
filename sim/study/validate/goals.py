"""What the predictions are held to: named groups of runs, a figure, and the error that is wanted."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd


class Goal(NamedTuple):
    """`metrics`: any of these figures; `ids`: what run_id must match (a regular expression); `figure`: `median`, `mean` or `max` of the
    errors.
    """

    name: str
    metrics: tuple[str, ...]
    ids: str
    figure: str
    limit: float


TRAINED, REPLAYS, SERVED = r"^blis-train/.*/all$", r"^llmss/", r"^llmss-ispass26/H100/SD$"
AGENTS = r"^ix-agentic/agentic_dsr1_tp8_bs[1248]_"
GOALS = (
    Goal("TPOT, all runs, leave-one-model-out", ("tpot_mean", "tpot_p50"), "", "median", 0.08),
    Goal("TTFT, all runs, leave-one-model-out", ("ttft_mean", "ttft_p50"), "", "median", 0.25),
    Goal("BLIS-train15, E2E means", ("e2e_mean",), TRAINED, "mean", 0.06),
    Goal("BLIS-train15, ITL means", ("itl_mean",), TRAINED, "mean", 0.06),
    Goal("BLIS-train15, TTFT means", ("ttft_mean",), TRAINED, "mean", 0.15),
    Goal("H100 70B TP4, throughput", ("output_tok_s",), SERVED, "mean", 0.03),
    Goal("H100 70B TP4, TPOT", ("tpot_mean",), SERVED, "mean", 0.03),
    Goal("H100 70B TP4, TTFT", ("ttft_mean",), SERVED, "mean", 0.10),
    Goal("agents, TP8, 1 to 8 users, worst TTFT median", ("ttft_p50",), AGENTS, "max", 0.25),
    Goal("agents, TP8, 1 to 8 users, worst E2E median", ("e2e_p50",), AGENTS, "max", 0.25),
)
EACH = (("TPOT mean", "tpot_mean", 0.03), ("E2E mean", "e2e_mean", 0.03), ("TTFT mean", "ttft_mean", 0.06))
PER_REQUEST = 0.04


def judged(errors: pd.DataFrame, held: pd.DataFrame, requests: pd.DataFrame) -> list[dict[str, Any]]:
    """Each goal that the table has runs for: {goal, wanted, found, n, met}, errors as fractions. `held` is judged where a goal says so."""
    return [
        {"goal": name, "wanted": limit, "found": found, "n": n, "met": bool(found <= limit)}
        for name, limit, found, n in _found(errors, held, requests)
    ]


def _found(errors: pd.DataFrame, held: pd.DataFrame, requests: pd.DataFrame) -> Iterator[tuple[str, float, float, int]]:
    for goal in GOALS:
        table = held if "leave-one-model-out" in goal.name else errors
        part = table[table["metric"].isin(goal.metrics) & table["run_id"].str.contains(goal.ids)]
        if len(part):
            yield goal.name, goal.limit, float(part["ape"].agg(goal.figure)), len(part)
    for run in sorted(errors.loc[errors["run_id"].str.contains(REPLAYS), "run_id"].unique()):
        for name, metric, limit in EACH:
            part = errors[(errors["run_id"] == run) & (errors["metric"] == metric)]
            if len(part):
                yield f"replay {run}, {name}", limit, float(part["ape"].iloc[0]), 1
        part = requests[requests["run_id"] == run]
        if len(part):
            yield f"replay {run}, E2E of each request (MAPE)", PER_REQUEST, float(part["ape"].mean()), len(part)
