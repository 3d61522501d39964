"""A steady service that is sometimes stormed: crowds that gather, stay, and drift away.

A crowd multiplies the rate by `height`: up to it along half a cosine over `rise`, there for `hold`, and back exponentially with the time
constant `decay`. Where crowds overlap, what they add is summed. One crowd adds (height - 1) rate (rise / 2 + hold + decay) requests.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from workloads._rate import Pieces, Varying
from workloads.base import NonNegativeSeconds

DAY = 86400.0
RISE_STEPS, DECAY_STEPS = 32, 64
# The tail beyond so many time constants is 6e-6 of a decay.
DECAYS = 12.0
Height = Annotated[float, Field(ge=1, le=1e6)]
Several = Annotated[float, Field(gt=0, le=1e5)]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`height`: the rate at the peak over the rate without a crowd. The rest are times."""

    height: Height
    rise: NonNegativeSeconds = 0.0
    hold: NonNegativeSeconds = 0.0
    decay: NonNegativeSeconds = 0.0


@dataclass(frozen=True, kw_only=True)
class Spike(Shape):
    """A crowd that begins to gather `at` so long after the traffic's `start`."""

    at: NonNegativeSeconds


@dataclass(frozen=True, kw_only=True)
class Spikes(Shape):
    """Crowds at random times, `per_day` on average."""

    per_day: Several


class Crowd(NamedTuple):
    """When it begins and what it looks like."""

    at: float
    shape: Shape

    @property
    def end(self) -> float:
        return self.at + self.shape.rise + self.shape.hold + DECAYS * self.shape.decay


@dataclass(kw_only=True)
class FlashCrowd(Varying):
    """`rate`: requests per second while there is no crowd. `spikes`: crowds at given times. `random`: crowds at random times."""

    spikes: list[Spike] | None = None
    random: Spikes | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from super().check(values)
        if not values["spikes"] and values["random"] is None:
            yield "", "found no crowds; give spikes, such as [{at: 10m, height: 8, rise: 30s, hold: 2m, decay: 3m}], or random"
        every = [(f"spikes.{number}", spike) for number, spike in enumerate(values["spikes"] or ())]
        for path, spike in (*every, ("random", values["random"])):
            if spike is not None and not spike.rise + spike.hold + spike.decay:
                yield path, "rise, hold and decay are all zero, so this crowd never comes; at least one above zero is wanted"

    def pieces(self, rng: np.random.Generator) -> Pieces:
        """One day after the other, cut where the rate of a crowd bends."""
        here = [Crowd(spike.at, spike) for spike in self.spikes or ()]
        days = self._at_random(rng)
        day = 0
        while True:
            here = [crowd for crowd in here if crowd.end > day * DAY] + next(days)
            begin, end = day * DAY, (day + 1) * DAY
            cuts = np.unique(np.clip(np.concatenate([[begin, end], *(_bends(crowd) for crowd in here)]), begin, end))
            # A sliver between the bends of two crowds would have a rate of rounding errors.
            cuts = cuts[np.concatenate(([True], np.diff(cuts) > 1e-6))]
            cuts[-1] = end
            lengths = np.diff(cuts)
            added = sum((np.diff(_gathered(crowd, cuts)) for crowd in here), np.zeros(len(lengths)))
            yield lengths, self.rate * (1 + added / lengths)
            day += 1

    def _at_random(self, rng: np.random.Generator) -> Iterator[list[Crowd]]:
        """The crowds that begin on each day."""
        day = 0
        while True:
            count = 0 if self.random is None else rng.poisson(self.random.per_day)
            begun = sorted((DAY * (day + rng.random(count))).tolist())
            yield [] if self.random is None else [Crowd(at, self.random) for at in begun]
            day += 1


def _bends(crowd: Crowd) -> np.ndarray:
    shape = crowd.shape
    rise = crowd.at + shape.rise * np.linspace(0, 1, RISE_STEPS + 1)
    decay = crowd.at + shape.rise + shape.hold + shape.decay * np.linspace(0, DECAYS, DECAY_STEPS * bool(shape.decay) + 1)
    return np.concatenate([rise, decay])


def _gathered(crowd: Crowd, times: np.ndarray) -> np.ndarray:
    """What the crowd has added up to each time, in requests at a rate of 1."""
    shape, since = crowd.shape, times - crowd.at
    risen = np.clip(since, 0, shape.rise)
    total = risen / 2 + np.clip(since - shape.rise, 0, shape.hold)
    if shape.rise:
        total -= shape.rise / (2 * math.pi) * np.sin(math.pi * risen / shape.rise)
    if shape.decay:
        # Up to where the tail is cut.
        gone = np.clip(since - shape.rise - shape.hold, 0, DECAYS * shape.decay)
        total += -shape.decay * np.expm1(-gone / shape.decay)
    return np.asarray((shape.height - 1) * total)
