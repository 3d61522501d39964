"""What service levels ask, and how that is said."""
from __future__ import annotations

from typing import Any

REQUESTS = ("ttft", "tpot", "e2e")  # measures of a single request


def percentile_limits(slo: Any) -> dict[tuple[str, int], float]:
    """Every limit of an SLO by (measure, percentile), seconds."""
    limits = {}
    for name, limit in slo.model_dump().items():
        measure, _, percentile = name.partition("_p")
        if percentile and limit is not None:
            limits[measure, int(percentile)] = limit
    return limits


def request_limits(slo: Any) -> dict[str, float]:
    """The limit a single request is held to, per measure (`ttft`, `tpot`, `e2e`): that of the highest percentile the SLO gives."""
    limits = percentile_limits(slo)
    return {measure: limits[measure, percentile] for measure, percentile in sorted(limits) if measure in REQUESTS}


def worded(limit: str) -> str:
    """A limit of an SLO as people say it.

    >>> worded("ttft_p99"), worded("rl_step_p50"), worded("throughput")
    ('TTFT p99', 'RL step p50', 'throughput')
    """
    measure, _, percentile = limit.rpartition("_")
    words = {"rl_step": "RL step", "task": "task time"}.get(measure, measure.upper())
    return f"{words} {percentile}" if measure else limit
