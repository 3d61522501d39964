"""Lengths fitted to a published trace; the catalogue is workloads/presets."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workloads import presets
from workloads.lengths.base import Lengths
from workloads.lengths.empirical import Empirical


@dataclass(kw_only=True)
class Preset(Lengths):
    """`name`: a preset, such as azure_conv_2023."""

    name: str
    _law: Empirical = field(init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        unknown = presets.unknown(values["name"])
        if unknown:
            yield "name", unknown

    def prepare(self) -> list[str]:
        found = presets.load(self.name)
        self._law = Empirical(input=found.input, output=found.output, correlation=found.correlation)
        return []

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        return self._law.draw(rng, count)
