"""Seconds of each request, defined once: what metrics take the distributions of, and what a DataFrame of requests shows."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.core.record import Page, Table


def _tpot(rows: Table | Page) -> np.ndarray:
    gaps = rows["output_tokens"] - 1
    return np.where(gaps > 0, (rows["last_token"] - rows["first_token"]) / np.maximum(gaps, 1), np.nan)


# Seconds of each request; NaN: it never happened (`tpot`: one token has none).
MEASURES: dict[str, Callable[[Table | Page], np.ndarray]] = {
    "ttft": lambda rows: rows["first_token"] - rows["arrival"] + rows["overhead"],
    "tpot": _tpot,
    "e2e": lambda rows: rows["last_token"] - rows["arrival"] + rows["overhead"],
    "queue": lambda rows: rows["admitted"] - rows["arrival"],
}


def request_columns(table: Table | Page) -> dict[str, np.ndarray]:
    """Each measure (`ttft`, `tpot`, `e2e`, `queue`) of each request, one array per name."""
    return {measure: of(table) for measure, of in MEASURES.items()}
