"""Lengths of a log as a law: quantiles of prompts and answers, and the cells of their ranks, so that kinds of request stay apart.

A rank correlation is one number, and of a service whose long prompts have answers of one length it says next to nothing; a table of cells
keeps that. Logs with too few requests for a table get the correlation.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from workloads.fitting.figures import rank_correlation
from workloads.presets.fit import quantiles

MOST_PARTS, LEAST_PARTS, IN_A_CELL = 12, 4, 20
SCALE = 10_000
# Irrational steps, unlike each other: equal lengths are put in an order of their own on each side.
STEPS = (math.sqrt(2), math.sqrt(3))


def lengths(prompt: np.ndarray, output: np.ndarray) -> dict[str, Any]:
    """The options of `empirical` lengths drawn like these tokens."""
    found: dict[str, Any] = {"kind": "empirical", "input": quantiles(prompt), "output": quantiles(output)}
    parts = min(int(math.sqrt(len(prompt) / IN_A_CELL)), MOST_PARTS)
    if parts < LEAST_PARTS:
        return found | {"correlation": float(f"{rank_correlation(prompt, output):.4g}")}
    return found | {"copula": cells(prompt, output, parts)}


def cells(prompt: np.ndarray, output: np.ndarray, parts: int) -> list[list[int]]:
    """Requests, of ten thousand, in each cell of equal parts by rank; rows are prompts, the shortest first.

    >>> cells(np.arange(10), np.arange(10) ** 2, 2)
    [[5000, 0], [0, 5000]]
    """
    row, column = (_part(values, parts, step) for values, step in zip((prompt, output), STEPS, strict=True))
    table = np.bincount(row * parts + column, minlength=parts * parts).reshape(parts, parts)
    return [[int(one) for one in line] for line in np.rint(SCALE * table / table.sum())]


def _part(values: np.ndarray, parts: int, step: float) -> np.ndarray:
    number = np.arange(len(values))
    order = np.lexsort(((number * step) % 1, values))
    found = np.empty(len(values), dtype=np.int64)
    found[order] = number * parts // len(values)
    return found
