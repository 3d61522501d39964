"""Target concurrency with a panic mode and scale to zero: the Knative Pod Autoscaler (KPA).

As `Scale` of pkg/autoscaler/scaling/autoscaler.go in knative/serving, with its defaults, names in this project's spelling: the mean
concurrency of the last `stable_window` over what a replica should hold; when the mean of the last `panic_window` calls for
`panic_threshold` times the ready replicas, that counts, and for a stable window nothing goes down. A step is at most `max_scale_up_rate`
times up and `max_scale_down_rate` times down. Requests held at the front door count as those at Knative's activator do. A window sees one
value per scrape, where Knative has one per second: with scrapes further apart than `panic_window` it holds the newest alone.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sim.core.units import Seconds
from sim.policy.scale._recent import Recent
from sim.policy.scale._rounding import whole
from sim.policy.scale.base import Seen

HOUR = 3600.0


@dataclasses.dataclass
class Concurrency:
    """`target`: requests a replica may hold; `utilization`: the share of it aimed at; `scale_to_zero_grace`: the last one stays so long."""

    sees: ClassVar[str] = "counts"

    target: Annotated[float, Field(gt=0, le=1e6)]
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.7
    stable_window: Annotated[Seconds, Field(ge=6, le=HOUR)] = 60.0
    panic_window: Annotated[Seconds, Field(gt=0, le=HOUR)] = 6.0
    panic_threshold: Annotated[float, Field(gt=1, le=10)] = 2.0
    max_scale_up_rate: Annotated[float, Field(gt=1)] = 1000.0
    max_scale_down_rate: Annotated[float, Field(gt=1)] = 2.0
    scale_down_delay: Annotated[Seconds, Field(ge=0, le=HOUR)] = 0.0
    scale_to_zero_grace: Annotated[Seconds, Field(ge=0, le=HOUR)] = 30.0
    _load: Recent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _delayed: Recent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _panic: float | None = dataclasses.field(default=None, init=False)
    _most: int = dataclasses.field(default=0, init=False)
    _idle: float | None = dataclasses.field(default=None, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["panic_window"] >= values["stable_window"]:
            limit = f"stable_window ({values['stable_window']:g} s)"
            yield "panic_window", f"found {values['panic_window']:g} s; less than {limit} is wanted"

    def want(self, seen: Seen) -> int:
        if self._load is None or self._delayed is None:
            self._load, self._delayed = Recent(self.stable_window), Recent(self.scale_down_delay)
        self._load.add(seen.time, seen.in_flight + seen.held)
        ready, per_replica = max(1, seen.ready), self.target * self.utilization
        most, least = math.ceil(self.max_scale_up_rate * ready), math.floor(ready / self.max_scale_down_rate)
        calm = min(max(whole(self._load.since(seen.time - self.stable_window) / per_replica), least), most)
        hot = whole(self._load.since(seen.time - self.panic_window) / per_replica)
        wanted = self._at_least(seen.time, calm, min(max(hot, least), most), hot / ready >= self.panic_threshold)
        self._delayed.add(seen.time, wanted)
        return self._last_one(seen, int(self._delayed.highest()))

    def _at_least(self, time: float, calm: int, hot: int, over: bool) -> int:
        if over:
            self._panic = time
        elif self._panic is not None and self._panic + self.stable_window < time:
            self._panic, self._most = None, 0
        if self._panic is None:
            return calm
        self._most = max(self._most, calm, hot)
        return self._most

    def _last_one(self, seen: Seen, wanted: int) -> int:
        """Keeps one replica until the pool has been wanted at zero for the grace period."""
        if wanted or not seen.current:
            self._idle = None
            return wanted
        if self._idle is None:
            self._idle = seen.time
        return 0 if seen.time - self._idle >= self.scale_to_zero_grace else 1
