"""Arrivals at a rate that varies in time, as bursty as wanted: a stationary renewal process of rate 1, run on the clock of the rate.

Let L(t) be the arrivals expected up to time t. Points s of a process of rate 1 become arrivals at the times t with L(t) = s (Cinlar 1975,
Introduction to Stochastic Processes, 4.7: exact for Poisson; for other gaps the usual way to combine a rate curve with burstiness, Gerhardt
and Nelson 2009, INFORMS J. Computing 21(4)). The rate comes in pieces during which it is constant, so L is a line in each and is inverted
at once for a block of points. The points begin in equilibrium: their expected number is exactly L(t) from the first moment on.
"""
from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any, Literal, NamedTuple

import numpy as np

from workloads.base import BLOCK, OpenLoop, Rate, Variation, needs_an_end
from workloads.weibull import SHAPES, shape_of, variation

Pattern = Literal["gamma", "weibull"]
# (seconds of each piece, rate per second in each), one block of pieces after the other.
Pieces = Iterator[tuple[np.ndarray, np.ndarray]]


class Gaps(NamedTuple):
    """A law of gaps whose mean is 1, by its shape: cv^2 is 1 / shape of a gamma law, see workloads/weibull.py for the other."""

    pattern: Pattern
    shape: float

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        if self.shape == 1:
            return rng.standard_exponential(count)
        if self.pattern == "gamma":
            return rng.standard_gamma(self.shape, count) / self.shape
        return rng.weibull(self.shape, count) / math.gamma(1 + 1 / self.shape)

    def wait(self, rng: np.random.Generator) -> float:
        """From any moment to the next arrival: a uniform part of a gap drawn in proportion to its length (Cox 1962, Renewal Theory)."""
        k, part = self.shape, 1.0 - rng.random()
        if self.pattern == "gamma":
            return part * float(rng.standard_gamma(k + 1)) / k
        return part * math.pow(rng.standard_gamma(1 + 1 / k), 1 / k) / math.gamma(1 + 1 / k)


def gaps(pattern: Pattern, cv: float) -> Gaps:
    """The law of mean 1 with standard deviation `cv`.

    >>> gaps("gamma", 2.0)
    Gaps(pattern='gamma', shape=0.25)
    """
    if cv == 1:
        return Gaps(pattern, 1.0)
    return Gaps(pattern, cv**-2 if pattern == "gamma" else shape_of(cv))


def unfit(pattern: Pattern, cv: float) -> str:
    """What to say of a cv that the law cannot have; empty when it can."""
    low, high = variation(SHAPES[1]), variation(SHAPES[0])
    return f"found {cv:g}; a Weibull law is offered for {low:.3g} to {high:.3g}" if pattern == "weibull" and not low <= cv <= high else ""


def points(rng: np.random.Generator, law: Gaps, block: int = BLOCK) -> Iterator[np.ndarray]:
    """A stationary renewal process of rate 1 from 0 on, ascending, `block` points at a time. The block changes no number."""
    now = law.wait(rng)
    while True:
        steps = np.cumsum(law.draw(rng, block))
        yield now + np.concatenate(([0.0], steps[:-1]))
        now += float(steps[-1])


def paced(process: Iterator[np.ndarray], pieces: Pieces) -> Iterator[tuple[np.ndarray, float]]:
    """Points of rate 1 as times of the pieces' rate, ascending, some or none at a time, and up to when that is all; ends with the pieces.

    >>> pieces = iter([(np.array([10.0, 5.0, 10.0]), np.array([0.1, 0.0, 0.2]))])
    >>> [(times.tolist(), reached) for times, reached in paced(iter([np.array([0.5, 2.0, 2.8, 9.0])]), pieces)]
    [([5.0, 20.0, 24.0], 25.0)]
    """
    waiting = next(process)
    time = work = 0.0
    for lengths, rates in pieces:
        times = time + np.concatenate(([0.0], np.cumsum(lengths)))
        works = work + np.concatenate(([0.0], np.cumsum(lengths * rates)))
        time, work = float(times[-1]), float(works[-1])
        while waiting[-1] < work:
            found = np.interp(waiting, works, times)
            yield found, float(found[-1])
            waiting = next(process)
        ready = int(np.searchsorted(waiting, work))
        yield np.interp(waiting[:ready], works, times), time
        waiting = waiting[ready:]


def warped(process: Iterator[np.ndarray], pieces: Pieces) -> Iterator[np.ndarray]:
    """The times of `paced` alone."""
    return (times for times, _ in paced(process, pieces) if len(times))


def in_blocks(parts: Iterable[np.ndarray], block: int = BLOCK) -> Iterator[np.ndarray]:
    """The same columns in blocks of `block`, the last one shorter.

    >>> [part.tolist() for part in in_blocks([np.array([1, 2, 3]), np.array([4]), np.array([5, 6])], 4)]
    [[1, 2, 3, 4], [5, 6]]
    """
    kept: list[np.ndarray] = []
    held = 0
    for part in parts:
        kept.append(part)
        held += part.shape[-1]
        if held >= block:
            whole = kept[0] if len(kept) == 1 else np.concatenate(kept, axis=-1)
            full = held - held % block
            for first in range(0, full, block):
                yield whole[..., first : first + block]
            kept, held = [whole[..., full:]], held - full
    if held:
        yield np.concatenate(kept, axis=-1)


def until(pieces: Pieces, end: float | None) -> Pieces:
    """The blocks of pieces that begin before time `end`; without it all of them."""
    left = math.inf if end is None else end
    for lengths, rates in pieces:
        yield lengths, rates
        left -= float(lengths.sum())
        if left <= 0:
            return


def swings(rng: np.random.Generator, sigma: float, memory: float, step: float) -> Iterator[float]:
    """Factors of mean 1, one every `step` seconds: lognormal, and correlated as exp(-time / `memory`); without end.

    The logarithm is an Ornstein-Uhlenbeck process in equilibrium with standard deviation `sigma`.
    """
    kept = math.exp(-step / memory)
    fresh = math.sqrt(1 - kept * kept)
    draws = chain.from_iterable(iter(lambda: rng.standard_normal(BLOCK).tolist(), None))
    for level in accumulate(draws, lambda level, draw: kept * level + fresh * draw):
        yield math.exp(sigma * level - sigma * sigma / 2)


def swung(pieces: Pieces, factors: Iterator[float]) -> Pieces:
    """The pieces, each at its rate times the next factor."""
    for lengths, rates in pieces:
        yield lengths, rates * np.fromiter(islice(factors, len(rates)), float, len(rates))


@dataclass(kw_only=True)
class Varying(OpenLoop, abc.ABC):
    """Open-loop traffic at a rate that varies in time.

    `cv`: standard deviation over mean of the gaps, counted in expected arrivals: 1 is Poisson, above it requests come in bunches.
    `gaps_law`: the law of those gaps.
    """

    rate: Rate
    cv: Variation = 1.0
    gaps_law: Pattern = "gamma"

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needs_an_end(values)
        wrong = unfit(values["gaps_law"], values["cv"])
        if wrong:
            yield "cv", wrong

    @abc.abstractmethod
    def pieces(self, rng: np.random.Generator) -> Pieces:
        """The rate from `start` on, without end. Every kind has its own."""

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        # Two streams: how many points a piece takes must not move the pieces.
        for_points, for_pieces = rng.spawn(2)
        process = points(for_points, gaps(self.gaps_law, self.cv))
        return in_blocks(warped(process, until(self.pieces(for_pieces), self.duration)))
