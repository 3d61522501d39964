"""Which low-rank adapter each request of a workload asks for.

Popularity falls as a power of the rank, 1/rank^zipf, as that of variants of a model does; 0 makes all alike. Draws are keyed by the
session, or by the number of the request where it has none, so that a conversation keeps its adapter and nothing else moves a draw. Samples
of one prompt draw each for itself.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

Adapted = Annotated[int, Field(ge=1, le=100_000)]


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """`count` adapters of the workload's own, or those of `names`, the most popular first, which workloads may have in common.

    `share` of the requests ask for one, the others for the model itself.
    """

    count: Adapted | None = None
    names: tuple[str, ...] | None = None
    zipf: Annotated[float, Field(ge=0, le=10)] = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        if (self.count is None) == (self.names is None):
            raise ValueError("say either count or names: how many adapters there are, or which")
        if self.names is not None and (not self.names or len(set(self.names)) < len(self.names)):
            raise ValueError("names must be at least one, and differ")

    def called(self, workload: str) -> list[str]:
        """Their names, the most popular first."""
        return list(self.names) if self.names is not None else [f"{workload}.{number}" for number in range(self.count or 0)]

    def chances(self, count: int) -> np.ndarray:
        """The chance of a request to ask for one of the first 1, 2, ... `count` adapters, ascending to `share`."""
        weights = np.arange(1, count + 1) ** -self.zipf
        return np.asarray(self.share * np.cumsum(weights) / weights.sum())
