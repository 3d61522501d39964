"""Published times of weight syncs against the kind of sync that does the same, row by row; nothing runs, as a sync alone is a plan.

Rows are those of `rl_published.csv` whose framework is checkpoint-engine: weights lie registered beside the engines' GPUs. Assumed of all:
a model goes in the format its checkpoint is published in (FP8 by blocks, else 16 bits), and a replica has 16 GPUs where there are as many.
"""
from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

from sim.core.registry import SYNCS
from sim.policy.ends import registered
from sim.policy.sync.base import Ends, Plan
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import llm
from sim.spec.scenario import Pool

FRAMEWORK, KIND = "checkpoint-engine", "checkpoint_engine"
LARGEST = 16  # GPUs of a replica
FORMATS = {"": "bf16", "fp8": "fp8_block"}


class Row(NamedTuple):
    """A published time, and what it comes to; `plan` says of what, in seconds. `reported` and `predicted` are from weights that are
    registered to engines that have them.
    """

    id: str
    model: str
    gpu: str
    gpus: int
    source: str
    reported: float
    predicted: float
    ends: Ends
    plan: Plan

    @property
    def error(self) -> float:
        """Of what is reported, positive where too long is predicted."""
        return self.predicted / self.reported - 1.0


def rows() -> list[Row]:
    """Every published sync."""
    lines = files("sim.study.validate").joinpath("rl_published.csv").read_text("utf-8").splitlines()
    return [_row(row) for row in csv.DictReader(lines) if row["framework"] == FRAMEWORK]


def predicted(model: str, gpu: str, n_gpus: int) -> float:
    """Seconds from weights that are registered to engines that have them."""
    return _seconds(_plan(model, gpu, n_gpus)[1])


def _row(row: dict[str, str]) -> Row:
    gpus = int(row["n_gpus"])
    ends, plan = _plan(row["model"], row["gpu"].lower(), gpus)
    return Row(row["id"], row["model"], row["gpu"], gpus, row["source"], float(row["reported"]), _seconds(plan), ends, plan)


def _plan(name: str, gpu: str, gpus: int) -> tuple[Ends, Plan]:
    model, each = llm(name), min(gpus, LARGEST)
    layout, precision = Parallel(tp=each), Precision.model_validate(FORMATS[model.checkpoint])
    ends = registered(model, Pool(gpu=gpu, replicas=gpus // each, parallel=layout, precision=precision))
    plan: Plan = SYNCS.make({"kind": KIND}).plan(ends)
    return ends, plan


def _seconds(plan: Plan) -> float:
    # What comes before, out of the trainer's GPUs into host memory, is not in the published time.
    return plan.fixed + plan.move + plan.load
