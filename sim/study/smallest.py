"""The smallest fleet that carries the traffic within its service levels, found by bisection.

That more replicas never carry less is taken for granted. It holds but for chance: a router may deal one peak a little worse to nine
replicas than to eight, so that the answer is right to about one replica.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sim.core.errors import BadInput, Problem
from sim.core.registry import WORKLOADS
from sim.spec.limits import percentile_limits
from sim.spec.scenario import Scenario
from sim.study.result import Result
from sim.study.run import run

MEASURED = {"task": ("tasks", ("agents", "agent_trace", "evals", "rl")), "rl_step": ("steps of reinforcement learning", ("rl",))}
MOST = 512  # replicas of the largest pool: beyond it the answer is that no fleet of this kind will do


class Fleet(NamedTuple):
    """`replicas` of each pool, and the run with them."""

    replicas: tuple[int, ...]
    result: Result


def smallest(scenario: Scenario, guess: int | None = None, most: int = MOST, simulate: Callable[[Scenario], Result] = run) -> Fleet | None:
    """The fewest replicas with which the SLO is met and the verdict is not `overloaded`; None where `most` are not enough.

    Pools grow and shrink together, in the proportions written; then each in turn is lowered as far as the others allow, and with it the
    pool that stands on its GPUs. `guess`: replicas of the largest pool to begin with, by default those written. Raises BadInput without an
    SLO.
    """
    limited(scenario)
    written = [pool.replicas for pool in scenario.cluster.pools]
    runs: dict[tuple[int, ...], Result] = {}

    def carried(replicas: tuple[int, ...]) -> bool:
        if replicas not in runs:
            runs[replicas] = simulate(with_replicas(scenario, replicas))
        return carries(runs[replicas])

    def together(count: int) -> tuple[int, ...]:
        return tuple(max(1, math.ceil(one * count / max(written))) for one in written)

    count = least(lambda n: carried(together(n)), guess or max(written), most)
    if count is None:
        return None
    found = together(count)
    for pool in range(len(found)) if len(found) > 1 else ():
        here = found
        fewer = least(lambda n, at=pool, now=here: carried(_changed(scenario, now, at, n)), here[pool], here[pool])  # type: ignore[misc]
        found = _changed(scenario, here, pool, fewer or here[pool])
    return Fleet(found, runs[found])


def limited(scenario: Scenario) -> None:
    """Raise BadInput when the scenario has no SLO that a fleet could be held to, or a limit on what its traffic does not have."""
    if not scenario.slo.model_dump(exclude_none=True).keys() - {"attainment"}:
        message = f"{scenario.name} has no limits, so that any fleet will do; give some, such as slo: {{ttft_p95: 2s, tpot_p95: 80ms}}"
        raise BadInput([Problem(message, "slo")])
    problems = list(_unmeasured(scenario))
    if problems:
        raise BadInput(problems)


def _unmeasured(scenario: Scenario) -> Iterator[Problem]:
    """Limits on tasks or steps where nothing has any. What a plug-in's traffic has is not known, and taken to be there."""
    kinds = list(dict.fromkeys(str(one["kind"]) for one in scenario.workloads))
    if not all(WORKLOADS.find(kind).__module__.startswith("workloads.") for kind in kinds):
        return
    for measure, percentile in percentile_limits(scenario.slo):
        what, able = MEASURED.get(measure, ("", ()))
        if able and not any(kind in able for kind in kinds):
            message = f"traffic of kind {', '.join(kinds)} has no {what} to be measured (those are of {', '.join(able)}); leave it out"
            yield Problem(message, f"slo.{measure}_p{percentile}")


def carries(result: Result) -> bool:
    """Whether a run met its SLO without being overloaded."""
    return bool(result.summary["slo"]["met"]) and result.summary["verdict"] != "overloaded"


def with_replicas(scenario: Scenario, replicas: tuple[int, ...]) -> Scenario:
    """The scenario with so many replicas of each pool."""
    pools = tuple(pool.model_copy(update={"replicas": n}) for pool, n in zip(scenario.cluster.pools, replicas, strict=True))
    return scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update={"pools": pools})})


def _changed(scenario: Scenario, replicas: tuple[int, ...], pool: int, count: int) -> tuple[int, ...]:
    """So many replicas of one pool, and no more of another one than it stands on the GPUs of."""
    pools = scenario.cluster.pools
    found = {one.name: n for one, n in zip(pools, (*replicas[:pool], count, *replicas[pool + 1 :]), strict=True)}
    return tuple(n if one.shares is None else min(n, found[one.shares.pool]) for one, n in zip(pools, found.values(), strict=True))


def least(holds: Callable[[int], bool], guess: int, most: int) -> int | None:
    """The smallest n from 1 to `most` for which `holds(n)`, which stays true once it is; None when there is none.

    From `guess` in steps of a half up or a third down until the answer is between two of them, then by bisection.

    >>> least(lambda n: n >= 23, 8, 256), least(lambda n: n >= 23, 90, 256), least(lambda n: n >= 300, 8, 256)
    (23, 23, None)
    """
    fails, true, n = 0, None, min(guess, most)
    while true is None or true - fails > 1:
        if holds(n):
            true = n
        elif n >= most:
            return None
        else:
            fails = n
        n = min(most, fails + (fails + 1) // 2) if true is None else max(1, true * 2 // 3) if not fails else (fails + true) // 2
    return true
