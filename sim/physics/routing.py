"""How tokens spread over experts: how many experts are read, and how much the busiest expert and the busiest GPU get.

Each of m tokens chooses `active` of `experts` without replacement, in proportion to weights rank^-skew (Plackett-Luce; skew 0 is uniform).
An expert is chosen by a token with probability 1 - exp(-s w), s such that these add up to `active`: the exponential-clock form of
sampling without replacement, exact for equal weights. An expert's load is taken as Poisson; what the sampling without replacement takes
from its variance is given back by a factor. The expected largest of n loads is the sum over k of 1 - P(load <= k)^n, which is exact for
independent loads. Experts are placed on GPUs in shuffled order; how uneven that leaves popular ones is averaged over fixed shuffles.
Tokens are taken as independent of each other, with popular experts the same for all.
"""
from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sim.core.rng import stream

SHUFFLES = 256
POISSON_UP_TO = 200.0  # mean load beyond which the largest is taken from a normal distribution


class Spread(NamedTuple):
    """Per step, of the busiest GPU (float arrays): experts with at least one row, and rows, that is (token, expert) pairs."""

    reached: np.ndarray
    rows: np.ndarray


@cache
def chances(experts: int, active: int, skew: float) -> np.ndarray:
    """Probability that one token chooses each expert, the most popular first; they add up to `active`."""
    if skew == 0.0 or active >= experts:
        return np.full(experts, active / experts)
    weights = np.arange(1, experts + 1, dtype=float) ** -skew
    low, high = 0.0, 1.0
    while (1.0 - np.exp(-high * weights)).sum() < active:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1.0 - np.exp(-middle * weights)).sum() < active else (low, middle)
    return np.asarray(1.0 - np.exp(-high * weights))


def reached(experts: int, active: int, tokens: ArrayLike, skew: float = 0.0) -> np.ndarray:
    """Expected number of experts that at least one of `tokens` tokens chooses; for equal weights E (1 - (1 - active/E)^m)."""
    return _reached(chances(experts, active, skew), np.asarray(tokens, float), 1.0)


def busiest_expert(experts: int, active: int, tokens: ArrayLike, skew: float = 0.0) -> np.ndarray:
    """Expected rows of the expert that gets most: exact for equal weights, else up to 15 % low where few experts stand out."""
    tokens = np.asarray(tokens, float)
    chance = chances(experts, active, skew)
    # The first n experts have at least the largest load that n alike would have with the same rows (majorisation): the best such bound.
    crowds = [min(2**i, experts) for i in range((experts - 1).bit_length() + 1)]
    most = np.max([_largest(tokens, float(chance[:crowd].mean()), crowd) for crowd in crowds], axis=0)
    return np.asarray(np.minimum(most, tokens))


def spread(experts: int, active: int, tokens: ArrayLike, ep: int = 1, skew: float = 0.0) -> Spread:
    """Of the busiest of `ep` GPUs that hold experts / ep experts each, in expectation; never below an even share.

    The excess of the busiest over the mean has two causes, the placement of popular experts and chance; they add as variances do.
    """
    tokens = np.asarray(tokens, float)
    rows = tokens * active
    if ep == 1:
        return Spread(reached(experts, active, tokens, skew), rows)
    mean = rows / ep
    luck = _excess(mean, float(ep)) * np.sqrt((experts - active) / max(experts - 1, 1))
    most = mean + np.hypot(luck, mean * _placement(experts, active, ep, skew))
    most = np.clip(most, 1.0, tokens * min(active, experts / ep))
    # Luck makes each of its experts likelier for every token; popularity brings more rows to the same experts.
    touched = _reached(chances(experts, active, skew), tokens, 1.0 + luck / mean) / ep
    return Spread(np.clip(touched, 1.0, most), most)


def _reached(chance: np.ndarray, tokens: np.ndarray, likelier: np.ndarray | float) -> np.ndarray:
    """Experts reached by `tokens` tokens when each chance is so many times as high."""
    alike = chance[:1] if chance[0] == chance[-1] else chance
    missed = np.maximum(1.0 - alike * np.asarray(likelier)[..., None], 0.0) ** tokens[..., None]
    return np.asarray((1.0 - missed).sum(-1) * (len(chance) / len(alike)))


def _largest(tokens: np.ndarray, chance: float, peers: int) -> np.ndarray:
    mean = tokens * chance
    return np.asarray(mean + _excess(mean, float(peers)) * np.sqrt(1.0 - chance))


def _excess(mean: np.ndarray, loads: float) -> np.ndarray:
    """Expected largest of `loads` Poisson loads, less their mean. Shape of `mean`."""
    if loads <= 1:
        return np.zeros_like(mean)
    few = np.minimum(mean, POISSON_UP_TO)
    log_mean, count = np.log(np.maximum(few, 1e-12)), np.arange(int(POISSON_UP_TO + 12 * POISSON_UP_TO**0.5))
    log_factorial = np.cumsum(np.log(np.maximum(count, 1)))
    mass = np.exp(count * log_mean[..., None] - few[..., None] - log_factorial)
    most = (1.0 - np.minimum(np.cumsum(mass, -1), 1.0) ** loads).sum(-1)
    # Beyond the largest mean computed, the excess grows as the standard deviation.
    return np.asarray((most - few) * np.sqrt(np.maximum(mean / POISSON_UP_TO, 1.0)))


@cache
def _placement(experts: int, active: int, ep: int, skew: float) -> float:
    """Expected share of the GPU that popularity favours most, in excess of an even share and relative to it."""
    if skew == 0.0 or active >= experts:
        return 0.0
    chance = chances(experts, active, skew)
    shuffled = stream(0, "placement of experts").permuted(np.tile(chance, (SHUFFLES, 1)), axis=1)
    return float(shuffled.reshape(SHUFFLES, ep, experts // ep).sum(2).max(1).mean() * ep / active - 1.0)
