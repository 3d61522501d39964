"""A Markov-modulated Poisson process out of scales of burstiness: each scale is high or low, and the rate is the product of them all.

With s scales that is a chain of 2^s states; since no two scales change at once, a state is followed by one that differs in one scale. A
scale of variance v that is high for a part p of the time is sqrt(v (1 - p) / p) above 1 there and sqrt(v p / (1 - p)) below 1 else, so p
may be at most 1 / (1 + v), where low means nothing at all. The Fano curve does not tell p; the likelihood of the gaps does (Fischer and
Meier-Hellstern 1993, Performance Evaluation 18: density of a sequence of gaps = product of exp((Q - R) gap) R).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from workloads.fitting.scales import Scale

# Parts of the longest time a scale may be high, how many gaps are asked, and how many memories of a scale they must last to tell.
HIGHS = (1.0, 0.9, 0.75, 0.5, 0.3, 0.15, 0.05)
GAPS = 5000
MEMORIES = 10.0


class Chain(NamedTuple):
    """`rates` of the states (1/s) and `changes`, their generator Q (1/s, rows add up to 0), with `share` of time in each."""

    rates: np.ndarray
    changes: np.ndarray
    share: np.ndarray


def chain(rate: float, scales: Sequence[Scale], highs: Sequence[float]) -> Chain:
    """The chain of a mean rate, its scales, and the part of time that each is high."""
    rates: np.ndarray = np.array([rate])
    share: np.ndarray = np.ones(1)
    changes: np.ndarray = np.zeros((1, 1))
    for (variance, memory), high in zip(scales, highs, strict=True):
        up, down = np.sqrt(variance * (1 - high) / high), np.sqrt(variance * high / (1 - high))
        q = np.array([[-high, high], [1 - high, high - 1]]) / memory
        # Rounding must not leave a state of next to nothing where nothing is meant.
        rates = np.kron(rates, [1 - down if down < 1 - 1e-9 else 0.0, 1 + up])
        share = np.kron(share, [1 - high, high])
        changes = np.kron(changes, np.eye(2)) + np.kron(np.eye(len(changes)), q)
    return Chain(rates, changes, share)


def likelihood(gaps: np.ndarray, of: Chain) -> float:
    """Logarithm of the density of these gaps (seconds), in a row, in equilibrium."""
    # Chains of independent scales are reversible, so that a change of basis makes their matrix symmetric.
    root = np.sqrt(of.share)
    values, vectors = np.linalg.eigh(((of.changes - np.diag(of.rates)) * root[:, None]) / root)
    arrive = vectors.T @ (of.rates[:, None] * vectors)
    state = vectors.T @ (root * of.rates / (of.share @ of.rates))
    total, ones = 0.0, vectors.T @ root
    for grown in np.exp(np.outer(gaps, values)):
        state = (state * grown) @ arrive
        size = state @ ones
        if size <= 0:
            return -np.inf
        total += np.log(size)
        state = state / size
    return float(total)


def shaped(rate: float, scales: Sequence[Scale], gaps: np.ndarray | None) -> list[float]:
    """The part of time that each scale is high, by the likelihood of `gaps`; half of the time, or as long as it may be, where they are
    None or do not last long enough to tell.
    """
    most = [1 / (1 + scale.variance) for scale in scales]
    highs = [min(0.5, whole) for whole in most]
    if gaps is None:
        return highs
    gaps = np.maximum(gaps[:GAPS], 1e-9)
    told = [place for place, scale in enumerate(scales) if MEMORIES * scale.memory <= gaps.sum()]
    best = likelihood(gaps, chain(rate, scales, highs)) if told else 0.0
    for _ in range(2):
        before = list(highs)
        for place in told:
            for part in HIGHS:
                tried = [*highs[:place], part * most[place], *highs[place + 1 :]]
                found = likelihood(gaps, chain(rate, scales, tried))
                if found > best:
                    best, highs = found, tried
        if highs == before:
            break
    return highs


def options(rate: float, scales: Sequence[Scale], highs: Sequence[float]) -> dict[str, Any]:
    """The workload `mmpp` of these scales."""
    found = chain(rate, scales, highs)
    stays = -1 / np.diag(found.changes)
    states = [{"rate": _plain(one), "mean_stay": _plain(stay)} for one, stay in zip(found.rates, stays, strict=True)]
    if len(states) == 2:
        return {"kind": "mmpp", "rate": _plain(rate), "states": states}
    chances = found.changes * stays[:, None]
    np.fill_diagonal(chances, 0.0)
    rows = [[round(one, 9) for one in row] for row in chances.tolist()]
    return {"kind": "mmpp", "rate": _plain(rate), "states": states, "transitions": rows}


def _plain(value: float) -> float:
    return float(f"{value:.6g}")
