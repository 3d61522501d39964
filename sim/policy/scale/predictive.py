"""Replicas for the load that a season says is coming: what the same time of day saw before, times how busy this day is so far.

Exponential smoothing with a multiplicative season and no trend (Holt 1957; Winters, Forecasting Sales by Exponentially Weighted Moving
Averages, Management Science 6, 1960). Time is cut into slots; each slot of the season keeps a smoothed rate p <- p + seasonal (y - p) of
the rates y seen there. The level is the smoothed y over the smoothed p of the slots gone by: a ratio of sums, so that quiet slots, whose
single ratios are mostly chance, count little. The forecast is the highest p x level from now to `lead` from now; a cold start fits in that.
The answer is for the forecast or for the rate of the last `window`, whichever is more; the rate alone while a slot has not been seen.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sim.core.units import Seconds
from sim.policy.scale._recent import Recent
from sim.policy.scale._rounding import whole
from sim.policy.scale.base import Seen

DAY = 86400.0
MOST_SLOTS = 100_000
Share = Annotated[float, Field(gt=0, le=1)]
Duration = Annotated[Seconds, Field(gt=0, le=366 * DAY)]


@dataclasses.dataclass
class Predictive:
    """`capacity`: requests per second that a replica can take, of which `utilization` is aimed at; `level`, `seasonal`: weights of the new.

    Fewer replicas than at any time in the last `scale_down_delay` are never asked for.
    """

    sees: ClassVar[str] = "counts"

    capacity: Annotated[float, Field(gt=0)]
    utilization: Share = 0.8
    season: Duration = DAY
    slot: Duration = 300.0
    lead: Duration = 300.0
    window: Duration = 60.0
    level: Share = 0.2
    seasonal: Share = 0.3
    scale_down_delay: Annotated[Seconds, Field(ge=0, le=DAY)] = 300.0
    _rates: list[float | None] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)
    _came: Recent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _spans: Recent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _delayed: Recent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _last: float = dataclasses.field(default=0.0, init=False)
    _slot: int = dataclasses.field(default=0, init=False)
    _count: float = dataclasses.field(default=0.0, init=False)
    _seen: float = dataclasses.field(default=0.0, init=False)
    _usual: float = dataclasses.field(default=0.0, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        slots = values["season"] / values["slot"]
        if slots > MOST_SLOTS:
            yield "slot", f"found {values['slot']:g} s; at most {MOST_SLOTS} slots in a season ({values['season']:g} s) are wanted"
        elif abs(slots - round(slots)) > 1e-9 * slots:
            yield "slot", f"found {values['slot']:g} s; a whole number of slots in a season ({values['season']:g} s) is wanted"
        if values["lead"] >= values["season"]:
            yield "lead", f"found {values['lead']:g} s; less than a season ({values['season']:g} s) is wanted"

    def want(self, seen: Seen) -> int:
        if self._came is None or self._spans is None or self._delayed is None:
            self._came, self._spans, self._delayed = Recent(self.window), Recent(self.window), Recent(self.scale_down_delay)
            self._rates = [None] * round(self.season / self.slot)
        span = seen.time - self._last
        if span > 0:
            self._learn(self._last, seen.time, seen.arrivals)
            self._came.add(seen.time, seen.arrivals)
            self._spans.add(seen.time, span)
        self._last = seen.time
        spans = self._spans.total()
        rate = max(self._came.total() / spans if spans else 0.0, self.forecast(seen.time))
        wanted = max(whole(rate / (self.capacity * self.utilization)), int(seen.held + seen.in_flight > 0))
        self._delayed.add(seen.time, wanted)
        return int(self._delayed.highest())

    def forecast(self, time: float) -> float:
        """The highest rate expected from `time` to `lead` later, requests/s; 0 where nothing has been seen."""
        level = self._seen / self._usual if self._usual > 0 else 1.0
        first, last = int(time // self.slot), int((time + self.lead) // self.slot)
        known = [self._rates[number % len(self._rates)] for number in range(first, last + 1)]
        return level * max((rate for rate in known if rate is not None), default=0.0)

    def _learn(self, begin: float, end: float, arrivals: int) -> None:
        """Spreads the arrivals evenly over the time they came in, and closes the slots that are over."""
        density, at = arrivals / (end - begin), begin
        while (edge := (self._slot + 1) * self.slot) <= end:
            self._close((self._count + density * (edge - at)) / self.slot)
            self._count, at = 0.0, edge
            self._slot += 1
        self._count += density * (end - at)

    def _close(self, rate: float) -> None:
        place = self._slot % len(self._rates)
        usual = self._rates[place]
        if usual is None:
            self._rates[place] = rate
            return
        self._seen += self.level * (rate - self._seen)
        self._usual += self.level * (usual - self._usual)
        self._rates[place] = usual + self.seasonal * (rate - usual)
