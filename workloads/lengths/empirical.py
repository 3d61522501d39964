"""Lengths as they were measured: either quantiles of input and output, or the rows of a trace drawn again.

Quantiles are pairs [q, tokens]; between two of them the logarithm of the length is linear in q. What prompts and answers have to do with
each other is a rank correlation, or a `copula`: of requests sorted into n equal parts by input and by output, how many fall into each of
the n x n cells, within which the two are independent (a checkerboard copula: Li, Mikusinski, Sherwood and Taylor 1997, in Distributions
with Given Marginals). A path instead draws rows of that trace with replacement, so that a prompt keeps its answer.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sim.core.registry import FILE
from workloads.formats.base import ZeroTokens, load, unknown_format
from workloads.lengths.base import MOST_TOKENS, Correlation, Lengths, tokens, uniforms

Fraction = Annotated[float, Field(ge=0, le=1)]
Weights = Annotated[list[Annotated[float, Field(ge=0, le=1e12)]], Field(min_length=2, max_length=50)]
# How far a row of a copula may be from its equal part: counts are whole, and are rounded.
UNEVEN = 0.03
Quantiles = Annotated[list[tuple[Fraction, Annotated[float, Field(ge=1, le=MOST_TOKENS)]]], Field(min_length=2)]


@dataclass(kw_only=True)
class Empirical(Lengths):
    """Either `input` and `output` (quantiles from q = 0 to q = 1, and the rank `correlation` of the two or their `copula`) or `path`.

    `copula`: a row for each part of the inputs, the shortest first, and in it a number for each part of the outputs; any unit.

    `format`, `zero_tokens` and the trace's own checks are as for the workload `trace`; times are not needed.
    """

    input: Quantiles | None = None
    output: Quantiles | None = None
    correlation: Correlation = 0.0
    copula: Annotated[list[Weights], Field(min_length=2, max_length=50)] | None = None
    path: Annotated[str | None, FILE] = None
    format: str = "auto"
    zero_tokens: ZeroTokens = "error"
    _rows: tuple[np.ndarray, np.ndarray] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        sides = [side for side in ("input", "output") if values[side] is not None]
        if values["path"] is None:
            if len(sides) < 2:
                yield "", "input and output (quantiles) or path (a trace) is wanted"
            used: dict[str, Any] = {"format": "auto", "zero_tokens": "error"}
            yield from _unused(values, used, "it belongs to path, which is not given")
        else:
            used = {"input": None, "output": None, "correlation": 0.0, "copula": None}
            yield from _unused(values, used, "path draws whole rows, which bring their own lengths")
            yield from unknown_format(values["format"])
        if values["copula"] is not None:
            yield from _unused(values, {"correlation": 0.0}, "the copula says all of it")
            yield from _uneven(values["copula"])
        for side in sides:
            yield from _ascending(side, values[side])

    def prepare(self) -> list[str]:
        if self.path is None:
            return []
        rows = load(self.path, self.format, self.zero_tokens, order="any")
        self._rows = rows.prompt, rows.output
        return rows.remarks

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        if self.path is not None:
            if self._rows is None:
                raise RuntimeError("prepare() has not been called")
            chosen = rng.integers(0, len(self._rows[0]), count)
            return self._rows[0][chosen], self._rows[1][chosen]
        assert self.input is not None
        assert self.output is not None
        first, second = uniforms(rng, count, self.correlation) if self.copula is None else _cells(self.copula, rng.random((3, count)))
        return _at(self.input, first), _at(self.output, second)


def _at(quantiles: Sequence[Sequence[float]], q: np.ndarray) -> np.ndarray:
    grid, values = np.array(quantiles, dtype=float).T
    return tokens(np.exp(np.interp(q, grid, np.log(values))))


def _cells(copula: Sequence[Sequence[float]], draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in (0, 1) of input and output by rank, out of three uniform numbers each: which cell, and where in it."""
    table, parts = np.array(copula, dtype=float), len(copula)
    ladder = np.cumsum(table.ravel()) / table.sum()
    row, column = np.divmod(np.minimum(np.searchsorted(ladder, draws[0], side="right"), parts * parts - 1), parts)
    return (row + draws[1]) / parts, (column + draws[2]) / parts


def _uneven(copula: Sequence[Sequence[float]]) -> Iterable[tuple[str, str]]:
    parts = len(copula)
    if any(len(row) != parts for row in copula):
        yield "copula", f"found {parts} rows and rows of {', '.join(sorted({str(len(row)) for row in copula}))} numbers; a square is wanted"
        return
    table = np.array(copula, dtype=float)
    if not table.any():
        yield "copula", "all are zero; how many requests fall into each cell is wanted"
        return
    for axis, words in ((1, "row"), (0, "column")):
        shares = table.sum(axis=axis) / table.sum() * parts
        for number in np.flatnonzero(np.abs(shares - 1) > UNEVEN)[:1].tolist():
            part = f"{words} {number + 1} holds {100 * shares[number] / parts:.3g} % of the requests"
            yield "copula", f"{part}; the {parts} parts are equal, so {100 / parts:.3g} % are wanted"


def _ascending(side: str, quantiles: Sequence[Sequence[float]]) -> Iterable[tuple[str, str]]:
    grid = [q for q, _ in quantiles]
    if grid[0] != 0 or grid[-1] != 1:
        yield side, f"quantiles run from {grid[0]:g} to {grid[-1]:g}; the shortest length at q = 0 and the longest at q = 1 are wanted"
    for (q, value), (next_q, next_value) in pairwise(quantiles):
        if next_q <= q:
            yield side, f"q must grow from one pair to the next; found {q:g} and then {next_q:g}"
        elif next_value < value:
            yield side, f"tokens must not fall as q grows; found {value:g} at q = {q:g} and {next_value:g} at q = {next_q:g}"


def _unused(values: Mapping[str, Any], defaults: Mapping[str, Any], why: str) -> Iterable[tuple[str, str]]:
    for key, default in defaults.items():
        if values[key] != default:
            yield key, f"not used here: {why}"
