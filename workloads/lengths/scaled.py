"""Lengths of another law, multiplied: what if prompts were a fifth longer?

Products are rounded to whole tokens, at least 1; draws are those of the law itself, so that two factors share their luck.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sim.core.registry import LENGTHS
from workloads.lengths.base import Lengths, tokens

Factor = Annotated[float, Field(gt=0, le=1000)]


@dataclass(kw_only=True)
class Scaled(Lengths):
    """`lengths` with prompts `input` times and answers `output` times as long."""

    lengths: Annotated[Any, LENGTHS]
    input: Factor = 1.0
    output: Factor = 1.0

    def prepare(self) -> list[str]:
        remarks: list[str] = self.lengths.prepare()
        return remarks

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        prompts, answers = self.lengths.draw(rng, count)
        return tokens(prompts * self.input), tokens(answers * self.output)
