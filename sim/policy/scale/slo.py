"""Replicas by what users notice: more when requests are late, fewer when they have long been far from it.

The idea is that of SLO-driven autoscalers (Chiron, arXiv 2501.08090, scales on what endangers service levels and not on utilisation);
the rule is this project's own. The pressure is the worst of the measures over its limit, over the last `window`: the share of late
requests, mean TTFT, mean TPOT. Above 1 the pool grows by that factor, at most by `growth`. Below `low` for `patience` it shrinks by a
tenth, at least by one, but not to where the arrivals per replica come within a tenth of those under which it was too slow before; that is
what keeps a steady load from going up and down for ever. After each change of the ready replicas it waits for a window of new measurements.
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

DAY = 86400.0
SHRINK, MARGIN = 0.1, 0.9
Limit = Annotated[Seconds, Field(gt=0)]
Duration = Annotated[Seconds, Field(gt=0, le=DAY)]


@dataclasses.dataclass
class Slo:
    """Limits: `late`, the share of completed requests beyond the scenario's SLO; `ttft`, `tpot`: means. One of the three at least.

    Only requests that are over are measured. That none is in a whole window while some are queued counts as too slow.
    """

    sees: ClassVar[str] = "counts"

    late: Annotated[float, Field(gt=0, lt=1)] | None = None
    ttft: Limit | None = None
    tpot: Limit | None = None
    window: Duration = 60.0
    low: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Duration = 300.0
    growth: Annotated[float, Field(gt=1, le=10)] = 2.0
    _sums: dict[str, Recent] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)
    _ready: int = dataclasses.field(default=-1, init=False)
    _last: float = dataclasses.field(default=0.0, init=False)
    _since: float = dataclasses.field(default=0.0, init=False)
    _calm: float | None = dataclasses.field(default=None, init=False)
    _too_much: float = dataclasses.field(default=math.inf, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["late"] is None and values["ttft"] is None and values["tpot"] is None:
            yield "", "none of late, ttft and tpot is given; at least one limit is wanted, such as ttft: 500ms"

    def want(self, seen: Seen) -> int:
        if not seen.current:
            return int(seen.held > 0)
        self._note(seen)
        if not seen.ready or seen.time - self._since < self.window:
            return seen.current
        pressure, load = self._pressure(seen), self._sum("arrivals") / self._sum("seconds") / seen.ready
        if pressure is None:
            return seen.current
        if pressure > self.low:
            self._calm = None
        elif self._calm is None:
            self._calm = seen.time
        if pressure > 1:
            self._too_much = min(self._too_much, load)
            return max(seen.current, whole(seen.ready * min(pressure, self.growth)))
        if load >= self._too_much:
            self._too_much = math.inf
        if self._calm is None or seen.time - self._calm < self.patience or seen.starting:
            return seen.current
        enough = math.floor(load * seen.ready / (MARGIN * self._too_much)) + 1
        return min(seen.ready, max(seen.ready - max(1, int(SHRINK * seen.ready)), enough))

    def _note(self, seen: Seen) -> None:
        if seen.ready != self._ready:
            self._sums, self._calm = {}, None
            self._ready, self._since = seen.ready, seen.time
        ttft, tpot = (0.0 if math.isnan(mean) else mean * seen.ended for mean in (seen.ttft, seen.tpot))
        facts = {"seconds": seen.time - self._last, "arrivals": seen.arrivals, "ended": seen.ended, "late": seen.late}
        for name, value in (facts | {"ttft": ttft, "tpot": tpot}).items():
            self._sums.setdefault(name, Recent(self.window)).add(seen.time, value)
        self._last = seen.time

    def _sum(self, name: str) -> float:
        return self._sums[name].total()

    def _pressure(self, seen: Seen) -> float | None:
        """The worst measure over its limit; None when nothing can be said."""
        ended = self._sum("ended")
        if not ended:
            if seen.queued + seen.held:
                return math.inf
            return None if seen.in_flight else 0.0
        limits = (("late", self.late), ("ttft", self.ttft), ("tpot", self.tpot))
        return max(self._sum(name) / ended / limit for name, limit in limits if limit is not None)
