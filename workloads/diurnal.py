"""A day and a week of users: the rate follows the hour and the weekday, with slow swings and bunches on top if wanted.

Several of these with different `time_zone` follow the sun. Services of language models see peaks of 1.5 to 3 times the mean of the day
(BurstGPT, arXiv:2401.17644; ServeGen, arXiv:2505.09999).
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sim.core.units import Seconds
from workloads import _days
from workloads._days import DAY, STEP, Clock, Noise, around, clock, peaked, smooth
from workloads._rate import Pieces, Varying, swings, swung

Share = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(kw_only=True)
class Diurnal(Varying):
    """`rate`: the mean over a whole week (a day without `weekdays`). The day is one of `curve`, `preset` and `peak_to_mean`.

    `curve`: 24 relative rates, from midnight on. `preset`: a published day, burstgpt, servegen_m_mid or servegen_m_small. `peak_to_mean`: a
    smooth day with its peak at `peak`. `weekdays`: 7 relative rates, from Monday on. `begin`: the time at `start`, such as '06:00' or 'Sat
    18:30'; the users' clocks are `time_zone` ahead of it (-8h: behind), so their noon comes that much sooner. `scale: 24` runs a day in an
    hour. `noise`: slow swings on top; their memory is shortened by `scale` too.
    """

    curve: Annotated[list[Share], Field(min_length=24, max_length=24)] | None = None
    preset: str | None = None
    peak_to_mean: Annotated[float, Field(ge=1, le=_days.MOST_PEAK)] | None = None
    peak: Clock = "14:00"
    weekdays: Annotated[list[Share], Field(min_length=7, max_length=7)] | None = None
    begin: Clock = "00:00"
    time_zone: Annotated[Seconds, Field(ge=-DAY, le=DAY)] = 0.0
    scale: Annotated[float, Field(ge=1e-3, le=1e5)] = 1.0
    noise: Noise | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from super().check(values)
        ways = ("curve", "preset", "peak_to_mean")
        given = [way for way in ways if values[way] is not None]
        if len(given) != 1:
            yield "", f"found {' and '.join(given) or 'none'} of {', '.join(ways)}; exactly one of them says what the day looks like"
        if values["preset"] is not None and _days.unknown(values["preset"]):
            yield "preset", _days.unknown(values["preset"])
        for key in ("curve", "weekdays"):
            if values[key] is not None and not sum(values[key]):
                yield key, "all are zero; at least one above zero is wanted"
        if values["peak"] != cls.peak and values["peak_to_mean"] is None:
            yield "peak", "not used here: it is the time of the peak that peak_to_mean asks for"

    def day(self) -> np.ndarray:
        """The rate in each five minutes of a day over its mean."""
        if self.peak_to_mean is not None:
            return peaked(self.peak_to_mean, clock(self.peak))
        hours = _days.published(self.preset) if self.preset is not None else self.curve
        assert hours is not None
        return smooth(hours)

    def pieces(self, rng: np.random.Generator) -> Pieces:
        week = np.array([1.0] * 7 if self.weekdays is None else self.weekdays)
        rates = self.rate * np.outer(week / week.mean(), self.day()).ravel()
        steady = around(rates, clock(self.begin) + self.time_zone, self.scale)
        if self.noise is None:
            return steady
        return swung(steady, swings(rng, self.noise.sigma, self.noise.memory, STEP))
