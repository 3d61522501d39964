"""What a run comes to, in a few sentences for who reads no further: are the service levels met, what is carried, what does it cost."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from sim.report.rl import runs
from sim.report.words import dollars, number, percent, seconds
from sim.spec.limits import worded


def answer(summary: dict[str, Any]) -> list[str]:
    """The sentences, of what the run has figures of."""
    return [text for text in (_levels(summary["slo"]), " ".join((*_learned(summary), *_tasks(summary), *_carried(summary)))) if text]


def _levels(slo: dict[str, Any]) -> str:
    """Whether service levels are met, and by how much the tightest is, or those that are not are missed."""
    if slo["met"] is None:
        return ""
    said = [_limit(limit) for limit in slo["limits"] if limit["ok"] is slo["met"] and limit["measured_s"] is not None]
    target, share = slo["target"], slo["attainment"]
    if target is not None and share is not None and (share >= target) is slo["met"]:
        said.append(f"{percent(share)} of the requests are good (wanted {percent(target)})")
    return f"The service levels are {'met' if slo['met'] else 'not met'}{': ' if said else ''}{', '.join(said)}."


def _limit(limit: dict[str, Any]) -> str:
    return f"{worded(limit['limit'])} is {seconds(limit['measured_s'])} (limit {seconds(limit['limit_s'])})"


def _learned(summary: dict[str, Any]) -> Iterator[str]:
    """What a step of reinforcement learning takes, and costs."""
    for name, one in runs(summary).items():
        usd = one["money"]["usd_per_step"]
        cost = f" and costs {dollars(usd)}" if usd is not None else ""
        waits = "" if one["colocated"] else f"; its trainer waits {percent(one['trainer_idle_frac'])} of the time"
        yield f"A step of {name} takes {seconds(one['step_s']['mean'])} on average{cost}{waits}."


def _tasks(summary: dict[str, Any]) -> Iterator[str]:
    """How long tasks of agents take."""
    found = summary["agents"]
    if found and found["task_time_s"]:
        took = found["task_time_s"]
        yield f"Half of the tasks of agents are done within {seconds(took['p50'])}, 95% within {seconds(took['p95'])}."


def _carried(summary: dict[str, Any]) -> Iterator[str]:
    """What is carried by how many GPUs, and for how much."""
    rates, cost, gpu = summary["throughput"], summary["cost"], summary["gpu"]
    if rates["output_tokens_per_s"] and gpu["count"]:
        mean = summary["ttft_s"]
        first = f", half of the first tokens within {seconds(mean['p50'])} and 99% within {seconds(mean['p99'])}" if mean else ""
        yield (
            f"{number(rates['requests_per_s'])} requests and {number(rates['output_tokens_per_s'])} output tokens per second on "
            f"{gpus_of(summary)}, which are busy {percent(gpu['busy_fraction'])} of the time{first}."
        )
    if cost["usd_per_hour"]:
        token = cost["usd_per_million_output_tokens"]
        each = f", {dollars(token)} per million output tokens" if token else ""
        yield f"It costs {dollars(cost['usd_per_hour'])} an hour{each}."


def gpus_of(summary: dict[str, Any]) -> str:
    """How many GPUs, the most at a time where that changes."""
    scaling, count = summary["scaling"], summary["gpu"]["count"]
    # The mean is of a sum of lives, up to rounding.
    mean = scaling and scaling["replicas"]["mean"]
    changes = mean and not math.isclose(mean, scaling["replicas"]["peak"], rel_tol=1e-9)
    return f"{'at most ' if changes else ''}{count:,} GPU{'s' * (count != 1)}"
