"""What a kind of kernel offers to fitting and checking: its rows of a table sorted into groups, each with a form and parameters.

Tables have the columns of `shared/data/kernels` (one row per measured point, `latency_us`). Each file of this folder knows one kind:
which rows are its own, which of our dtypes and frameworks they measure, and how `sim/physics` predicts them. It offers one function,

    def groups(table: pd.DataFrame, gpu: Gpu) -> list[Group]

Fitting, hold-out, check and plot are the same for all and live in `calibrate/`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from calibrate.fitting import Parameter, held_out
from sim.spec.hardware import Gpu

SECONDS = 1e-6  # of the tables' unit


@dataclass(frozen=True)
class Group:
    """Rows that one fit explains: one kind of kernel, dtype and framework on one GPU.

    `rows` are those of the table, `shapes` (one word per row) what is held out together. `predict(gpu, parameters)` gives seconds for
    every row under the conditions they were measured in (operands that stayed in the cache included), `floor(gpu)` the least they could
    take by the datasheet (0 where caching voids the bound). `cold` marks the rows a serving engine would meet; `hull` is sizes by name.
    """

    op: str
    dtype: str
    framework: str
    library: str
    rows: pd.DataFrame
    shapes: np.ndarray
    parameters: Sequence[Parameter]
    predict: Callable[[Gpu, Mapping[str, float]], np.ndarray]
    floor: Callable[[Gpu], np.ndarray]
    cold: np.ndarray
    hull: Mapping[str, np.ndarray]

    @property
    def held_out(self) -> np.ndarray:
        """Rows no fit may see (bool): some of the shapes, and whatever the table itself keeps for validation."""
        kept_back = self.rows["role"].to_numpy() == "holdout" if "role" in self.rows else False
        return held_out(self.shapes) | kept_back

    curved = False  # whether a fit also holds measured points, so that no row can be held out from it

    def refine(self, gpu: Gpu, parameters: Mapping[str, float], kept: np.ndarray) -> dict[str, float]:
        """Parameters beside those of least squares, read from the rows `kept` (bool); none for most kernels."""
        return {}

    @property
    def seconds(self) -> np.ndarray:
        return self.rows["latency_us"].to_numpy(float) * SECONDS


class Op(Protocol):
    def groups(self, table: pd.DataFrame, gpu: Gpu) -> list[Group]: ...
