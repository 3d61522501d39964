"""Any whole number of tokens between two bounds, both included, all equally likely."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.lengths.base import Lengths, Tokens


@dataclass(kw_only=True)
class Uniform(Lengths):
    """`input: [low, high]` and `output: [low, high]`, tokens."""

    input: tuple[Tokens, Tokens]
    output: tuple[Tokens, Tokens]

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
