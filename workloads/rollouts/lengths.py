"""How long answers are: a law with a limit, alike within a group, longer as training goes on and where a prompt is hard.

A prompt has a normal number z, and so has each of its samples; y = sqrt(rho) z + sqrt(1 - rho) e is normal too, and Phi(y) is the share
at which the law is read: whatever the law (lognormal in the main, but any will do), answers to one prompt correlate, their logarithms by
rho where it is a lognormal, the tokens themselves by (exp(rho sigma^2) - 1) / (exp(sigma^2) - 1) below the limit. With `difficulty` d a
prompt's z is -d times its ease plus sqrt(1 - d^2) times a normal of its own. At version v everything is times drift^(v / 100).

Answers end at `cap` tokens. Beside those that the law makes so long, a share `p_cap` of the wrong answers never ends and runs to the cap:
what is wrong often loops. The chance to hit the cap is what a round's time depends on most; the rest of the law can hardly make up for it.
"""
from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from sim.spec.law import NORMAL, Law

Tokens = Annotated[int, Field(ge=1, le=10**9)]
Chance = Annotated[float, Field(ge=0, le=1)]
REACH = 7.0
FAR = 9.0


class AnswerLengths(Law):
    """A law of tokens if there were no limit (`{mean: 2500, sigma: 0.8}`), and what it does not say. `drift_per_100_steps` is a factor.
    `scale` times all of it: what `Answers.matching` finds where a mean was measured with the cap in force.
    """

    cap: Tokens
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    group_rho: Annotated[float, Field(ge=0, le=0.99)] = 0.5
    drift_per_100_steps: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    difficulty: Annotated[float, Field(ge=-1, le=1)] = 0.0
    p_cap: Chance = 0.0

    @model_validator(mode="before")
    @classmethod
    def _fixed(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("value") is not None and "dist" not in value:
            return {"dist": "fixed", **value}
        return value

    @model_validator(mode="after")
    def _limited(self) -> AnswerLengths:
        if self.max is not None:
            raise ValueError("the limit of answers is `cap`, in place of `max`")
        if self.at(0.5) < 1:
            raise ValueError(f"half of the answers have {self.at(0.5):.3g} tokens or fewer; at least 1 is wanted")
        return self

    def effect(self, ease: float, own: float) -> float:
        """What a prompt adds to the lengths of its answers, a standard normal: of its ease and a normal of its own."""
        return -self.difficulty * ease + math.sqrt(1.0 - self.difficulty**2) * own

    def unlimited(self, effect: float, own: float, version: float = 0.0) -> float:
        """Tokens of an answer if there were no cap, of its prompt's effect and a normal of its own."""
        y = math.sqrt(self.group_rho) * effect + math.sqrt(1.0 - self.group_rho) * own
        return self.at(NORMAL.cdf(y)) * self.factor(version)

    def factor(self, version: float) -> float:
        """What the law is multiplied by at a version."""
        return self.scale * float(self.drift_per_100_steps ** (version / 100.0))

    def longest(self, versions: int = 0) -> int:
        """Tokens of the longest answer that can come by a version, but for one in a thousand million."""
        factor = max(self.factor(0), self.factor(versions))
        return self.cap if self.p_cap else min(self.cap, max(1, math.ceil(self.at(1.0 - 1e-9) * factor - 0.5)))

    def ends(self, version: float = 0.0) -> float:
        """The normal y up to which an answer ends by itself, with no more tokens than the cap; infinite where all do."""
        most = self.cap / self.factor(version)
        if self.at(1.0) <= most:
            return math.inf
        if self.at(0.0) > most:
            return -math.inf
        low, high = -FAR, FAR
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(NORMAL.cdf(middle)) <= most else (low, middle)
        return high

    def curve(self, version: float = 0.0, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
        """Normals y from -7 to 7 and the tokens there, the cap not yet applied."""
        grid = np.arange(-round(REACH / step), round(REACH / step) + 1) * step
        factor = self.factor(version)
        return grid, np.array([self.at(NORMAL.cdf(y)) * factor for y in grid])
