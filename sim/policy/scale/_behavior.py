"""How fast a Kubernetes HorizontalPodAutoscaler may move: stabilization windows, and at most so many pods or percent in a period.

The rules are those of `behavior` in autoscaling/v2 (kubernetes.io, "Horizontal Pod Autoscaling", Configurable scaling behavior; in the
source `stabilizeRecommendationWithBehaviors`, `calculateScaleUpLimitWithScalingRules` and `calculateScaleDownLimitWithBehaviors` of
pkg/controller/podautoscaler/horizontal.go), names in this project's spelling, with the defaults of Kubernetes.
"""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sim.core.units import Seconds
from sim.policy.scale._recent import Recent
from sim.policy.scale._rounding import whole
from sim.spec.frozen import Spec

DAY = 86400.0
Select = Literal["max", "min", "disabled"]


class Policy(Spec):
    """At most `value` pods, or `value` percent of those there were at its beginning, in each `period`."""

    type: Literal["pods", "percent"]
    value: Annotated[float, Field(gt=0, le=1e6)]
    period: Annotated[Seconds, Field(gt=0, le=DAY)] = 15.0


AT_ONCE = Policy(type="percent", value=100.0)


class _Way(Spec):
    """`select_policy`: which of several policies counts, the one that moves most or least; disabled: never this way."""

    stabilization_window: Annotated[Seconds, Field(ge=0, le=DAY)] = 0.0
    select_policy: Select = "max"
    policies: tuple[Policy, ...] = Field((AT_ONCE,), min_length=1)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.select_policy == "disabled" and self.policies != type(self).model_fields["policies"].default:
            raise ValueError("policies are given, but select_policy is disabled, so that it never moves this way; leave one of them out")
        return self


class ScaleUp(_Way):
    """How fast up; by default 4 pods or as many as there are in each 15 s, whichever is more."""

    policies: tuple[Policy, ...] = Field((AT_ONCE, Policy(type="pods", value=4.0)), min_length=1)


class ScaleDown(_Way):
    """How fast down; by default to the most that was wanted in the last five minutes, at once."""

    stabilization_window: Annotated[Seconds, Field(ge=0, le=DAY)] = 300.0


class Pace:
    """What was wanted and what was done of late, and how far that lets the next answer go."""

    __slots__ = ("_asked", "_changes", "_down", "_highest", "_lowest", "_up")

    def __init__(self, up: ScaleUp, down: ScaleDown):
        self._up, self._down = up, down
        self._lowest, self._highest = Recent(up.stabilization_window), Recent(down.stabilization_window)
        self._changes: deque[tuple[float, int]] = deque()
        self._asked: tuple[float, int, int] | None = None

    def limit(self, time: float, current: int, desired: int) -> int:
        """The replicas to ask for when there are `current` and the metrics call for `desired`."""
        if self._asked is None:
            # The controller's first recommendation is what it finds, so that it does not scale down at once.
            self._highest.add(time, current)
            self._lowest.add(time, current)
        else:
            self._settle(current)
        self._highest.add(time, desired)
        self._lowest.add(time, desired)
        wanted = int(min(max(current, self._lowest.lowest()), self._highest.highest()))
        if wanted > current:
            wanted = min(wanted, self._ceiling(time, current))
        elif wanted < current:
            wanted = max(wanted, self._floor(time, current))
        self._asked = (time, current, wanted)
        return wanted

    def _settle(self, current: int) -> None:
        """Note what came of the last answer: bounds may have cut it, and a replica that failed is no change of ours."""
        assert self._asked is not None, "there was an answer before"
        time, before, wanted = self._asked
        low, high = min(0, wanted - before), max(0, wanted - before)
        change = min(max(current - before, low), high)
        if change:
            self._changes.append((time, change))
        longest = max(policy.period for policy in (*self._up.policies, *self._down.policies))
        while self._changes and self._changes[0][0] < time - longest:
            self._changes.popleft()

    def _ceiling(self, time: float, current: int) -> int:
        if self._up.select_policy == "disabled":
            return current
        starts = [current - self._changed(time, policy) for policy in self._up.policies]
        limits = [
            begin + int(policy.value) if policy.type == "pods" else whole(begin * (1 + policy.value / 100))
            for begin, policy in zip(starts, self._up.policies, strict=True)
        ]
        return max(current, self._choose(self._up.select_policy, limits))

    def _floor(self, time: float, current: int) -> int:
        if self._down.select_policy == "disabled":
            return current
        starts = [current - self._changed(time, policy) for policy in self._down.policies]
        # The limit of a percentage is cut, not rounded up, as the controller converts it to an integer.
        limits = [
            begin - int(policy.value) if policy.type == "pods" else math.floor(begin * max(0.0, 1 - policy.value / 100) + 1e-9)
            for begin, policy in zip(starts, self._down.policies, strict=True)
        ]
        return max(0, min(current, -self._choose(self._down.select_policy, [-limit for limit in limits])))

    def _changed(self, time: float, policy: Policy) -> int:
        return sum(change for at, change in self._changes if at > time - policy.period)

    @staticmethod
    def _choose(select: Select, limits: Sequence[int]) -> int:
        return max(limits) if select == "max" else min(limits)
