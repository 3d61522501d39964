"""Any whole number of tokens between two bounds, both included, all equally likely."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from workloads.lengths.base import Lengths

Bound = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True)
class Uniform(Lengths):
    """`input: [low, high]` and `output: [low, high]`, tokens."""

    input: tuple[Bound, Bound]
    output: tuple[Bound, Bound]

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        for key in ("input", "output"):
            low, high = values[key]
            if low > high:
                yield key, f"found [{low}, {high}]; the lower bound comes first: [{high}, {low}]"

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            rng.integers(self.input[0], self.input[1], count, endpoint=True),
            rng.integers(self.output[0], self.output[1], count, endpoint=True),
        )
