"""Service levels: which limits an SLO sets, and how a run did against them."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.core.request import COMPLETED, FAILED, REJECTED
from sim.spec.limits import REQUESTS, percentile_limits, request_limits
from sim.study.metric import Metric, ratio
from sim.study.spread import distribution

if TYPE_CHECKING:
    from sim.study.metrics import Facts


def _attainment(facts: Facts) -> Any:
    ended = facts.counts[[COMPLETED, REJECTED, FAILED]].sum() - facts.spare_copies
    return ratio(facts.good, ended) if request_limits(facts.result.scenario.slo) else None


def _goodput(facts: Facts) -> Any:
    return ratio(facts.good, facts.span) if request_limits(facts.result.scenario.slo) else None


def _target(facts: Facts) -> Any:
    slo = facts.result.scenario.slo
    highest = {measure: percentile for measure, percentile in sorted(percentile_limits(slo)) if measure in REQUESTS}
    return slo.attainment or min(highest.values()) / 100 if highest else None


def _limits(facts: Facts) -> Any:
    rows = []
    for (measure, percentile), limit in percentile_limits(facts.result.scenario.slo).items():
        measured = (_spread(facts, measure) or {}).get(f"p{percentile}")
        ok = None if measured is None else measured <= limit
        rows.append({"limit": f"{measure}_p{percentile}", "limit_s": limit, "measured_s": measured, "ok": ok})
    return rows


def _spread(facts: Facts, measure: str) -> dict[str, float] | None:
    """The distribution of what a limit is on; of several runs of reinforcement learning that with the longest steps."""
    if measure == "task":
        return distribution(facts.crowd.times) if facts.crowd is not None else None
    if measure == "rl_step":
        return max((one["step_s"] for one in (facts.rl or {}).values() if one), key=lambda one: float(one["mean"]), default=None)
    return facts.spreads[measure]


def _met(facts: Facts) -> Any:
    attainment, rows = _attainment(facts), _limits(facts)
    if attainment is None:
        # Without limits on single requests those on tasks and steps decide, once one of them was measured.
        known = [row["ok"] for row in rows if row["ok"] is not None]
        return all(known) if known and not request_limits(facts.result.scenario.slo) else None
    return attainment >= _target(facts) and all(row["ok"] is not False for row in rows)


LEVELS = (
    Metric("slo.attainment", "", "share of completed, rejected and failed requests, spare copies of a hedge aside, within each measure's "
           "limit of the highest percentile", _attainment),
    Metric("slo.goodput_requests_per_s", "requests/s", "requests within every such limit, over the span", _goodput),
    Metric("slo.target", "", "share of requests that must be within those limits: the attainment, else the lowest percentile", _target),
    Metric("slo.limits", "s", "each percentile limit: what was asked, what was measured over completed requests, tasks or steps, whether "
           "it holds", _limits),
    Metric("slo.met", "", "whether every limit holds and the attainment reaches its target; None without limits or requests", _met),
)  # fmt: skip
