"""The arithmetic of the Kubernetes HorizontalPodAutoscaler: desired = ceil(replicas x current / target), of several metrics the most.

As `GetMetricReplicas` and `calcPlainMetricReplicas` of pkg/controller/podautoscaler/replica_calculator.go: nothing moves while the ratio
is within `tolerance` of 1; replicas that are not ready count as using nothing when the ready ones call for more, and when that turns the
direction round nothing moves either. Without a ready replica there is no metric and nothing moves; a pool at zero with requests held is
woken to one replica, as KEDA does for an HPA. How fast it may move is in `_behavior.py`.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from sim.policy.scale._behavior import Pace, ScaleDown, ScaleUp
from sim.policy.scale._rounding import whole
from sim.policy.scale.base import Seen

UP, DOWN = ScaleUp(), ScaleDown()
Metric = Literal["concurrency", "queue", "kv", "busy", "rate"]


@dataclasses.dataclass
class Hpa:
    """`target`: what each metric should be, as a mean over ready replicas.

    `concurrency`: requests there; `queue`: requests waiting there; `kv`: share of KV blocks in use; `busy`: share of time in steps;
    `rate`: requests a second. Beware of `queue` alone: an empty queue does not say how many replicas keep it empty, so with a target below
    what a replica serves at once the pool swings between too many and too few, as under Kubernetes.
    """

    target: Annotated[dict[Metric, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    scale_up: ScaleUp = UP
    scale_down: ScaleDown = DOWN
    _pace: Pace | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _last: float = dataclasses.field(default=0.0, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        for metric in ("kv", "busy"):
            found = values["target"].get(metric, 0.0)
            if found > 1:
                yield f"target.{metric}", f"found {found:g}; a share of at most 1 is wanted, such as 0.8 for 80 %"

    @property
    def sees(self) -> str:
        return "use" if "kv" in self.target or "busy" in self.target else "counts"

    def want(self, seen: Seen) -> int:
        if self._pace is None:
            self._pace = Pace(self.scale_up, self.scale_down)
        seconds, self._last = seen.time - self._last, seen.time
        if not seen.current:
            return int(seen.held > 0)
        desired = seen.current
        if seen.ready:
            desired = max(self._desired(seen, self._value(metric, seen, seconds) / target) for metric, target in self.target.items())
        return self._pace.limit(seen.time, seen.current, desired)

    def _desired(self, seen: Seen, ratio: float) -> int:
        if not (seen.starting and ratio > 1):
            return seen.current if self._near(ratio) else whole(ratio * seen.ready)
        with_starting = ratio * seen.ready / seen.current
        if with_starting < 1 or self._near(with_starting):
            return seen.current
        return whole(with_starting * seen.current)

    def _near(self, ratio: float) -> bool:
        return 1 - self.tolerance <= ratio <= 1 + self.tolerance

    def _value(self, metric: Metric, seen: Seen, seconds: float) -> float:
        if metric == "concurrency":
            return seen.in_flight / seen.ready
        if metric == "queue":
            return seen.queued / seen.ready
        if metric == "kv":
            return seen.kv
        if metric == "busy":
            return seen.busy
        # Without time since the last scrape no rate is known: as if on target.
        return seen.arrivals / seconds / seen.ready if seconds > 0 else self.target["rate"]
