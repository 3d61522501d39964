"""Answers are cut at fewer tokens than the run allows: the round is bounded, and what is cut has no answer to be graded.

With `overlong: mask` those cut are left out of the loss (overlong filtering, DAPO); with `keep` they are trained on as the failures they
are.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from sim.core.rollout import Trajectory
from sim.policy.tail.base import Tail


@dataclasses.dataclass
class Truncate(Tail):
    """`max_len` tokens of an answer."""

    max_len: Annotated[int, Field(ge=1, le=10**9)]
    overlong: Literal["mask", "keep"] = "mask"

    def limit(self, tokens: int) -> int:
        return min(self.max_len, tokens)

    def masks(self, trajectory: Trajectory) -> bool:
        return self.overlong == "mask" and trajectory.cut
