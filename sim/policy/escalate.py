"""How likely an answer of a cascade's stage is not good enough, by the rule the user gives."""
from __future__ import annotations

from sim.core.request import Request
from sim.spec.cascade import Escalate


def chance(rule: Escalate, answered: Request, workload: str) -> float:
    """The chance, 0 to 1, that the answered request of a workload goes on to the next stage."""
    if rule.share is not None:
        return rule.share
    if rule.classes is not None:
        return rule.classes.get(workload, 0.0)
    assert rule.above is not None, "a rule by tokens has a limit"
    tokens = answered.prompt if rule.by == "input_tokens" else answered.output
    return float(tokens > rule.above)
