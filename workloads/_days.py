"""The curve of a day: how the rate moves with the hour, from 24 figures, a published service, or the height of its peak.

Between the hours the rate moves smoothly and each hour keeps its share: the arrivals expected since midnight pass through the hours'
totals on a monotone cubic (PCHIP, Fritsch and Butland 1984, SIAM J. Sci. Stat. Comput. 5), cut into pieces of five minutes. A curve known
by its peak alone is exp(k cos) of the hour (the density of von Mises), positive and as high as wanted.
"""
from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema

from sim.core.errors import did_you_mean
from sim.core.units import Seconds
from workloads._rate import Pieces

FOLDER = Path(__file__).parent / "presets" / "days"
HOUR, DAY = 3600.0, 86400.0
PER_HOUR = 12
STEP = HOUR / PER_HOUR
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_PEAK = 20.0
_CLOCK = re.compile(r"(?:(mon|tue|wed|thu|fri|sat|sun)[a-z]*\s+)?(\d{1,2}):(\d\d)", re.IGNORECASE)


def clock(text: str) -> float:
    """Seconds after Monday 00:00 of '06:00' or 'Sat 18:30'. Raises ValueError.

    >>> clock("06:00"), clock("Tue 00:30")
    (21600.0, 88200.0)
    """
    match = _CLOCK.fullmatch(text.strip())
    if not match or int(match[2]) > 23 or int(match[3]) > 59:
        raise ValueError(f"found {text!r}; a time of day is wanted, such as '06:00' or 'Sat 18:30'")
    day = WEEKDAYS.index(match[1].lower()) if match[1] else 0
    return day * DAY + int(match[2]) * HOUR + int(match[3]) * 60


def _clock_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}; a time of day is wanted as text, such as '06:00' or 'Sat 18:30'")
    clock(value)
    return value


Clock = Annotated[str, BeforeValidator(_clock_text), WithJsonSchema({"type": "string", "description": "a time of day: 06:00, Sat 18:30"})]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Slow swings of the rate: lognormal factors of mean 1, `sigma` the spread of their logarithm, forgotten within `memory`."""

    sigma: Annotated[float, Field(gt=0, le=3)]
    memory: Annotated[Seconds, Field(gt=0)] = 3600.0


def names() -> list[str]:
    """Every published day, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def unknown(name: str) -> str:
    """What to say of a name that is no published day; empty when it is one."""
    return "" if name in names() else f"unknown day '{name}'; {did_you_mean(name, names())}"


@functools.cache
def published(name: str) -> tuple[float, ...]:
    """The 24 hourly figures of a published day."""
    import yaml

    return tuple(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["hours"])


def smooth(hours: Sequence[float]) -> np.ndarray:
    """The rate in each five minutes of a day or other cycle of these hourly rates, its mean 1. The mean of an hour is that hour's share.

    >>> float(smooth([1.0, 2.0, 3.0])[:12].mean())
    0.5
    """
    from scipy.interpolate import PchipInterpolator

    around = np.tile(np.asarray(hours, dtype=float) / np.mean(hours), 3)
    total = np.concatenate(([0.0], np.cumsum(around)))
    grid = len(hours) + np.arange(len(hours) * PER_HOUR + 1) / PER_HOUR
    rates = np.diff(PchipInterpolator(np.arange(len(total)), total)(grid)) * PER_HOUR
    return np.asarray(np.maximum(rates, 0.0))


def peaked(ratio: float, at: float) -> np.ndarray:
    """The rate in each five minutes of a day, mean 1, whose peak is `ratio` >= 1 times the mean, `at` seconds after midnight.

    Of exp(k cos x) the mean is I0(k) and the peak exp(k); k is found by bisection.
    """
    from scipy.special import i0e

    low, high = 0.0, 4 * MOST_PEAK**2
    for _ in range(80):
        k = (low + high) / 2
        low, high = (low, k) if 1 / i0e(k) > ratio else (k, high)
    middle = (np.arange(24 * PER_HOUR) + 0.5) * STEP
    rates = np.exp(low * (np.cos(2 * math.pi * (middle - at) / DAY) - 1))
    return np.asarray(rates / rates.mean())


def around(rates: np.ndarray, first: float, scale: float = 1.0) -> Pieces:
    """A cycle of rates per five minutes, from `first` seconds into it on, without end; `scale` times as fast."""
    per, day = STEP / scale, 24 * PER_HOUR
    skipped, spent = divmod(first % (len(rates) * STEP), STEP)
    yield np.array([per - spent / scale]), rates[[int(skipped)]]
    place = int(skipped) + 1
    while True:
        yield np.full(day, per), np.take(rates, np.arange(place, place + day), mode="wrap")
        place = (place + day) % len(rates)
