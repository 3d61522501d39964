"""A plan run: the figures that were published of such runs, as the simulator gives them, and how a length law is fitted to one of them.

Figures are means over the versions that count. A colocated generation includes what waking the engines takes, as verl's timer does.
"""
from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import BadInput
from sim.study.result import Result
from sim.study.run import run
from sim.study.validate.rl_lengths import fitted
from sim.study.validate.rl_plan import Plan
from sim.study.validate.syncs import predicted

# Versions of a run that a length law is fitted with; the first does not count.
TRIAL = 3
# Figures of the summary of a run that published rows name: where they are in it.
SUMMARY = {
    "idle_frac": ("rollout", "idle_frac"), "bubble": ("rollout", "bubble"), "preemptions": ("rollout", "preemptions"),
    "tail_idle_share": ("tail", "idle_frac"), "tail_last_10_share": ("tail", "last_10_percent"),
    "tail_gap_share": ("tail", "first_to_last"),
    "mfu": ("mfu", "update_full_attention"),
}  # fmt: skip


class Found(NamedTuple):
    """`figures` by metric, and the CPU-seconds it took."""

    figures: dict[str, float]
    cpu_s: float


def figures_of(plan: Plan) -> Found:
    """Run a plan. Raises BadInput for what cannot be simulated."""
    if "sync" in plan.scenario:
        return Found({"sync_s": predicted(**plan.scenario["sync"])}, 0.0)
    result = run(copy.deepcopy(plan.scenario))
    return Found(figures(result, plan), float(result.meta["cpu_s"]))


def figures(result: Result, plan: Plan) -> dict[str, float]:
    """Every figure a row may have, of a finished run; NaN where it has none. Raises BadInput where too few versions were made."""
    steps = result.tables["rl_steps"]
    skip = min(plan.skip, len(steps) - 1)
    if skip < 1:
        raise BadInput(f"{len(steps)} versions were made of {plan.scenario['workloads'][0]['steps']}: {'; '.join(result.meta['remarks'])}")

    def mean(name: str) -> float:
        values: np.ndarray = steps[name][skip:]
        return float(values.mean())

    step = mean("end") - mean("start")
    wait, reward, generate = mean("wait"), mean("reward"), mean("generate")
    if plan.mode == "one_step_off":
        # Without rounds it is from the first answer begun to the last one done, of a version.
        generate = next(iter(result.summary["rl"].values()))["generate_s"]
    length, tokens = mean("length"), mean("tokens")
    found = {
        "step_s": step, "wait_s": wait, "gen_s": generate + (mean("switch") if plan.mode == "sync_colocated" else 0.0),
        "train_s": mean("update"), "sync_s": mean("sync"), "gen_share": wait / step, "reward_share": reward / step,
        "train_share": 1 - (wait + reward) / step, "tok_s": tokens / step, "tok_s_gpu": length / step / gpus(plan.scenario),
        "total_h": step * plan.steps / 3600, "mean_tokens": tokens / max(mean("samples"), 1.0),
    }  # fmt: skip
    for name in plan.measured:
        if name in SUMMARY:
            found[name] = _summarised(result, SUMMARY[name])
    if "preemptions" in found:
        found["preemptions"] /= len(steps)
    return found


def gpus(scenario: Mapping[str, Any]) -> int:
    """GPUs of both roles, those shared counted once."""
    cluster = scenario["cluster"]
    rollout = sum(pool["replicas"] * math.prod(pool["parallel"].get(key, 1) for key in ("tp", "pp", "dp")) for pool in cluster["pools"])
    return int(rollout + sum(trainer["gpus"] for trainer in cluster["trainers"] if "shares" not in trainer))


def fit_of(plan: Plan) -> tuple[float, float]:
    """The mean length with which a generation takes what was published, and what it takes then, by a few versions of the plan. Raises
    BadInput where no length does.
    """
    trial = copy.deepcopy(plan.scenario)
    trial["workloads"][0]["steps"] = TRIAL

    def seconds(mean: float) -> float:
        trial["workloads"][0]["answers"]["mean"] = mean
        return figures(run(copy.deepcopy(trial)), plan)["gen_s"]

    assert plan.length is not None
    return fitted(plan.fits, seconds, plan.length.mean)


def _summarised(result: Result, path: tuple[str, ...]) -> float:
    found: Any = next(iter((result.summary["rl"] or {}).values()), None)
    for key in path:
        found = found.get(key) if found else None
    return math.nan if found is None else float(found)
