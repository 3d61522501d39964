"""Figures by dotted names: what studies over several runs have for columns.

A figure is a number or a yes-or-no of `summary.json` under the keys that lead to it, such as `ttft_s.p99` or `rl.math.step_s.mean`. Texts,
lists and figures that a run does not have are left out, so that a column is missing where a run says nothing.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sim.core.errors import BadInput, did_you_mean

# What people look at first, in this order; a star stands for a name that the scenario gives.
MAIN = (
    "ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "tpot_s.p99", "e2e_s.p50", "e2e_s.p99", "throughput.requests_per_s",
    "throughput.output_tokens_per_s", "throughput.output_tokens_per_s_per_gpu", "slo.attainment", "gpu.mean", "gpu.busy_fraction",
    "kv.peak_fraction", "kv.prefix_hit_rate", "cost.usd_per_hour", "cost.usd_per_million_output_tokens", "energy.joules_per_output_token",
    "carbon.grams_per_output_token", "agents.task_time_s.p50", "agents.task_time_s.p95", "agents.tasks_per_hour", "agents.usd_per_task",
    "evals.*.finish_s", "training.*.mfu", "training.*.tokens_per_s_per_gpu", "rl.*.step_s.mean", "rl.*.trainer_idle_frac",
    "rl.*.throughput.trained_tokens_per_s_per_gpu", "rl.*.money.usd_per_trained_sample",
)  # fmt: skip
# How a run went about it, and not what it found: no figures of the system simulated.
ASIDE = ("run.", "audit.", "warmup.")


def flat(summary: Mapping[str, Any]) -> dict[str, float | bool]:
    """Every number and yes-or-no of a summary by its dotted name, in the summary's order.

    >>> flat({"verdict": "stable", "ttft_s": {"p50": 0.2, "p99": None}, "slo": {"met": True, "limits": [1]}, "energy": None})
    {'ttft_s.p50': 0.2, 'slo.met': True}
    """
    return dict(_walk(summary, ""))


def _walk(part: Mapping[str, Any], above: str) -> Iterator[tuple[str, float | bool]]:
    for key, value in part.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _walk(value, f"{name}.")
        elif isinstance(value, (bool, int, float)) and math.isfinite(value):
            # NumPy's floats are floats too, but their comparisons are no bool.
            yield name, float(value) if isinstance(value, float) else value


def findings(names: Iterable[str]) -> list[str]:
    """The names of what a run found about the system, without those of the run itself and of its audit.

    >>> findings(["run.cpu_s", "ttft_s.p99", "audit.I1.ok"])
    ['ttft_s.p99']
    """
    return [name for name in names if not name.startswith(ASIDE)]


def main(names: Iterable[str]) -> list[str]:
    """Those of `names` that people look at first, in the order of MAIN.

    >>> main(["gpu.count", "rl.math.step_s.mean", "ttft_s.p99"])
    ['ttft_s.p99', 'rl.math.step_s.mean']
    """
    known = list(names)
    return [name for pattern in MAIN for name in known if fnmatchcase(name, pattern)]


def known(name: str, names: Sequence[str], option: str = "") -> str:
    """`name`, when it is one of `names`. Raises BadInput with the nearest ones; `option` says where it was written."""
    if name in names:
        return name
    where = f"{option}: " if option else ""
    raise BadInput(f"{where}unknown figure '{name}'; {did_you_mean(name, findings(names))}")
