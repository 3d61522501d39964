"""Who computes which samples of a mini-batch, and how they are packed into micro-batches of so many tokens.

Ranks and micro-batches are filled longest first, each sample to the one with the least work so far (LPT: Graham 1969; no rank gets more
than 4/3 - 1/(3 m) times what the best division would give it). All ranks have equally many micro-batches, the fewest that none is over its
tokens, as frameworks keep collectives in step (verl's `use_dynamic_bsz`). A sample longer than a micro-batch has one to itself.
"""
from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np


def deal(work: Sequence[float], ranks: int) -> list[list[int]]:
    """Numbers of the samples of each rank, by their `work`, longest first.

    >>> deal([1.0, 4.0, 2.0, 3.0], 2)
    [[1, 0], [3, 2]]
    """
    found: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0.0, rank) for rank in range(ranks)]
    for number in np.argsort(-np.asarray(work, float), kind="stable").tolist():
        load, rank = loads[0]
        found[rank].append(number)
        heapq.heapreplace(loads, (load + work[number], rank))
    return found


def in_turn(samples: int, ranks: int) -> list[list[int]]:
    """The same without a look at the work: one to each rank, over and over."""
    return [list(range(rank, samples, ranks)) for rank in range(ranks)]


def micro_batches(lengths: Sequence[Sequence[int]], most: int, packing: bool = True) -> list[list[list[int]]]:
    """Of each rank the token counts of the samples in each micro-batch, those with the most tokens first; `lengths` are by rank.

    >>> micro_batches([[6, 5, 3], [2]], 10)
    [[[5, 3], [6]], [[2], []]]
    """
    if not packing:
        padded = [_padded(sorted(mine, reverse=True), most) for mine in lengths]
        count = max(map(len, padded))
        return [mine + [[]] * (count - len(mine)) for mine in padded]
    count = max(1, *(math.ceil(sum(mine) / most) for mine in lengths))
    while True:
        found = [_bins(mine, count) for mine in lengths]
        if all(sum(one) <= most or len(one) == 1 for mine in found for one in mine):
            return found
        count += 1


def _bins(lengths: Sequence[int], count: int) -> list[list[int]]:
    bins = [[lengths[number] for number in numbers] for numbers in deal([float(n) for n in lengths], count)]
    return sorted(bins, key=sum, reverse=True)


def _padded(lengths: list[int], most: int) -> list[list[int]]:
    """Micro-batches of samples that are all as long as the longest beside them."""
    found, at = [], 0
    while at < len(lengths):
        longest = lengths[at]
        count = min(max(1, most // longest), len(lengths) - at)
        found.append([longest] * count)
        at += count
    return found
