"""Every request alike, as in most benchmarks: `input` prompt tokens, `output` generated ones."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.lengths.base import Lengths, Tokens


@dataclass(kw_only=True)
class Fixed(Lengths):
    input: Tokens
    output: Tokens

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(count, self.input, dtype=np.int64), np.full(count, self.output, dtype=np.int64)
