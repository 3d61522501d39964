"""What traffic made of many clients needs: a client, the arrivals of all merged, and lengths drawn from the quantiles of each at once."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from workloads._days import Noise
from workloads._rate import Pattern
from workloads.base import BLOCK, Variation
from workloads.formats._clients import MARKS, ClientLengths
from workloads.lengths.base import tokens

Share = Annotated[float, Field(ge=0, le=1e9)]
GRID = np.array([0.0, *MARKS])


@dataclass(frozen=True, kw_only=True)
class Member:
    """One client. `share`: its rate over that of all, in any unit. `cv` and `gaps_law`: of its gaps, counted in expected arrivals.

    `hours`: relative rates of the hours of its day, or of another cycle. `noise`: slow swings of its rate. `lengths`: its own.
    """

    share: Annotated[float, Field(gt=0, le=1e12)]
    cv: Variation = 1.0
    gaps_law: Pattern = "gamma"
    hours: Annotated[list[Share], Field(min_length=2, max_length=744)] | None = None
    noise: Noise | None = None
    lengths: dict[str, Any] | None = None


class Sizes(NamedTuple):
    """Logarithms of tokens at GRID, a row per client, between which they are linear; prompts and outputs."""

    prompt: np.ndarray
    output: np.ndarray

    def draw(self, rng: np.random.Generator, clients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of one request of each of these clients (at most BLOCK), int64."""
        first, second = rng.random((2, BLOCK))[:, : len(clients)]
        return _at(self.prompt, clients, first), _at(self.output, clients, second)


def _at(table: np.ndarray, clients: np.ndarray, q: np.ndarray) -> np.ndarray:
    place = np.searchsorted(GRID, q, side="right") - 1
    below, above = table[clients, place], table[clients, place + 1]
    return tokens(np.exp(below + (above - below) * (q - GRID[place]) / (GRID[place + 1] - GRID[place])))


def of_clients(rows: ClientLengths, clients: Sequence[int]) -> Sizes:
    """The lengths of these clients over all their windows; of those the table does not have, of all its clients."""
    sides = []
    for side in (False, True):
        here = rows.output == side
        client, support, mean, quantiles = rows.client[here], rows.support[here], rows.mean[here], rows.quantiles[here]
        every = pooled(quantiles, support, mean)
        known = {one: pooled(quantiles[client == one], support[client == one], mean[client == one]) for one in np.unique(client).tolist()}
        sides.append(np.stack([known.get(one, every) for one in clients]))
    return Sizes(*(np.log(side) for side in sides))


def pooled(quantiles: np.ndarray, weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Tokens at GRID of a mixture of laws known by their quantiles at MARKS (rows), each with a weight.

    The longest is brought down to where the mean is that of the rows: of the last hundredth only the two ends are known.
    """
    rows = np.log(np.maximum(np.column_stack([quantiles[:, 0], quantiles]), 1.0))
    # Equal neighbours would make a step; so small a slope keeps every row's law continuous.
    rows = rows + 1e-9 * np.arange(rows.shape[1])
    share = weights / weights.sum()
    at = np.unique(rows)
    below = np.zeros(len(at))
    for row, part in zip(rows, share, strict=True):
        below += part * np.interp(at, row, GRID, left=0.0, right=1.0)
    mixed = np.interp(GRID, below, at)
    mixed[0], mixed[-1] = at[0], at[-1]
    wanted = float(share @ np.maximum(means, 1.0))
    low, high = mixed[-2], mixed[-1]
    if _mean(mixed) > wanted:
        for _ in range(50):
            mixed[-1] = (low + high) / 2
            low, high = (mixed[-1], high) if _mean(mixed) < wanted else (low, mixed[-1])
    return np.asarray(np.exp(mixed))


def _mean(logs: np.ndarray) -> float:
    """The mean of a law whose logarithm is linear between GRID: (e^b - e^a) / (b - a) on each part."""
    a, b = logs[:-1], logs[1:]
    wide = b - a > 1e-9
    parts = np.where(wide, (np.exp(b) - np.exp(a)) / np.where(wide, b - a, 1.0), np.exp(a))
    return float(parts @ np.diff(GRID))


def merged(streams: Sequence[Iterator[tuple[np.ndarray, float]]], span: float) -> Iterator[np.ndarray]:
    """The times of several ascending streams, ascending, `span` seconds at a time: rows of (time, number of the stream).

    A stream gives times and up to when these are all, so that nobody waits for the next arrival of a client that is hardly ever there.

    >>> streams = [iter([(np.array([1.0, 2.0]), 2.5), (np.array([5.0]), 9.0)]), iter([(np.array([1.5, 4.0]), 4.0)])]
    >>> [part.tolist() for part in merged(streams, 3.0)]
    [[[1.0, 1.5, 2.0], [0.0, 1.0, 0.0]], [[4.0, 5.0], [1.0, 0.0]]]
    """
    kept = [np.empty(0)] * len(streams)
    first, reached = np.full(len(streams), np.inf), np.zeros(len(streams))
    end = 0.0
    while np.isfinite(reached).any() or np.isfinite(first).any():
        end += span
        for number in np.flatnonzero(reached < end).tolist():
            parts = [kept[number]]
            while reached[number] < end:
                times, reached[number] = next(streams[number], (parts[0][:0], np.inf))
                parts.append(times)
            kept[number] = np.concatenate(parts)
            first[number] = kept[number][0] if len(kept[number]) else np.inf
        found, numbers = [np.empty(0)], [np.empty(0)]
        for number in np.flatnonzero(first < end).tolist():
            count = int(np.searchsorted(kept[number], end))
            found.append(kept[number][:count])
            numbers.append(np.full(count, float(number)))
            kept[number] = kept[number][count:]
            first[number] = kept[number][0] if len(kept[number]) else np.inf
        at = np.concatenate(found)
        order = np.argsort(at, kind="stable")
        if len(at):
            yield np.stack([at, np.concatenate(numbers)])[:, order]
