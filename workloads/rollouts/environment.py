"""Environments that trajectories work in: how long they take to be made ready, and what it costs when one is broken.

A reset (the repository checked out, packages installed, a game begun) takes a time beside that of a sandbox, whose boot and image the pool
of sandboxes answers for. A broken environment does not say so: what it costs is the time-out after which somebody notices, not a mean
(RollArt, OSDI'26: one failure in ten steps makes them 513 s in place of 366). Then it is tried again, or the sample is lost.

Each reset is a row of `tool_calls`, of the tool `reset`: outcome ok, or timeout where the last try failed too; its seconds are those of all
tries. They count as the agent's seconds at tools.
"""
from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from sim.core.rng import Luck
from sim.spec.frozen import Spec
from sim.spec.law import Times
from workloads.programs.options import ZERO

Chance = Annotated[float, Field(ge=0, lt=1)]


class Readied(NamedTuple):
    """What came of a reset: `seconds` of all `tries` together, and whether the environment is `ready`."""

    seconds: float
    tries: int
    ready: bool


class Environment(Spec):
    """`reset`: what it takes if nothing is wrong. `failure`: the chance that a reset is in vain, which is seen after `time`; or
    `failure_per_step`: that of all resets of a step, if each is tried once, at least one is. `retries`: how often it is tried again.
    """

    reset: Times = ZERO
    failure: Chance = 0.0
    failure_per_step: Chance = 0.0
    time: Times | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0

    @model_validator(mode="after")
    def _whole(self) -> Environment:
        if self.failure and self.failure_per_step:
            raise ValueError("failure and failure_per_step both say how often a reset is in vain; give one of them")
        fails = self.failure or self.failure_per_step
        if fails and self.time is None:
            raise ValueError("a reset that fails ends at its time-out: write time, such as {dist: uniform, min: 250s, max: 400s}")
        for key, given in (("time", self.time is not None), ("retries", self.retries)):
            if given and not fails:
                raise ValueError(f"{key} is used when a reset fails: give failure or failure_per_step, or leave it out")
        return self

    def among(self, resets: int) -> Environment:
        """The same with `failure` for each of so many resets in a step: 1 - (1 - p)^(1 / n).

        >>> one = Environment.model_validate({"failure_per_step": 0.1, "time": "300s"}).among(128)
        >>> round(1 - (1 - one.failure) ** 128, 6)
        0.1
        """
        if not self.failure_per_step:
            return self
        each = -math.expm1(math.log1p(-self.failure_per_step) / resets)
        return self.model_copy(update={"failure": each, "failure_per_step": 0.0})

    def readied(self, luck: Luck) -> Readied:
        """What a reset with this luck comes to. Raises ValueError where it is not said how likely each is to fail (`among`)."""
        if self.failure_per_step:
            raise ValueError("failure_per_step hangs on how many resets a step has")
        seconds = 0.0
        for number in range(self.retries + 1):
            own = luck.part(number)
            fails, share = own.next() < self.failure, own.next()
            if not fails:
                return Readied(seconds + self.reset.at(share), number + 1, True)
            assert self.time is not None
            seconds += self.time.at(share)
        return Readied(seconds, self.retries + 1, False)
