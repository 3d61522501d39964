"""What a scenario says to no effect, because of something else that it says: an error, for whoever wrote it expects an effect.

Single parts refuse by themselves what they have no use for; here is what only the whole can tell. A value equal to its default says
nothing, since a scenario that was written out in full holds all defaults.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sim.core.errors import Problem
from sim.core.registry import ADMISSIONS, AUTOSCALERS, ROUTERS, WORKLOADS, Family
from sim.spec.limits import request_limits
from sim.spec.scaling import NONE, Autoscale, ColdStart

if TYPE_CHECKING:
    from sim.spec.scenario import Pool, Scenario
    from sim.spec.trainer import Trainer


def problems(scenario: Scenario) -> Iterator[Problem]:
    """All that has no effect, with dotted keys. A kind that could not be read has no options here, and nothing is said of it."""
    yield from _front_door(scenario)
    for number, pool in enumerate(scenario.cluster.pools):
        here = f"cluster.pools.{number}"
        if pool.autoscale is not None:
            yield from _policy(scenario, pool.autoscale, f"{here}.autoscale.policy")
        if pool.start is not None:
            yield from _start(pool, pool.start, f"{here}.start")
    for number, sandboxes in enumerate(scenario.cluster.sandboxes):
        here = f"cluster.sandboxes.{number}.autoscale.policy"
        if sandboxes.autoscale is not None:
            yield from _policy(scenario, sandboxes.autoscale, here)
            if sandboxes.autoscale.policy.get("kind") == "slo":
                message = "it goes by the times of requests, which sandboxes do not have; hpa and concurrency go by how many there are"
                yield Problem(message, here)
    yield from _orders(scenario)
    yield from _carbon(scenario)


def _front_door(scenario: Scenario) -> Iterator[Problem]:
    cluster = scenario.cluster
    if cluster.gate is not None and any(pool.role != "both" for pool in cluster.pools):
        message = "prefill and decode pools share a program's cache, and a gate counts that of one replica; leave out the gate or the roles"
        yield Problem(message, "cluster.gate")
    router, admission = cluster.router, cluster.admission
    if cluster.views is not None and _blind(ROUTERS, router) and _blind(ADMISSIONS, admission):
        what = f"router {router['kind']} and admission {admission['kind']} do not look at replicas"
        yield Problem(f"{what}, so that it does not matter how old what they see is; leave views out", "cluster.views")
    kinds = _chain(router)
    if kinds and "weighted" not in kinds:
        for number, pool in enumerate(cluster.pools):
            if pool.weight is not None:
                yield Problem(f"router {kinds[0]} heeds no weights; write router: {{kind: weighted}}, or leave weight out",
                              f"cluster.pools.{number}.weight")  # fmt: skip
    if "spill_over" in kinds and not (any(pool.region for pool in cluster.pools) and any(one.get("region") for one in scenario.workloads)):
        who = "workload" if any(pool.region for pool in cluster.pools) else "pool"
        message = f"no {who} has a region, so that nothing spills over; give pools and workloads one, or choose another router"
        yield Problem(message, "cluster.router")


def _orders(scenario: Scenario) -> Iterator[Problem]:
    """Orders that go by what lies ahead, under workloads that do not tell."""
    blind = [options["kind"] for options in scenario.workloads if "kind" in options and not _foresees(options)]
    for number, pool in enumerate(scenario.cluster.pools if blind else ()):
        if (pool.engine.batcher.get("order") or {}).get("kind") == "shortest_program":
            message = f"{blind[0]} do not foresee how much a program will still generate; least_attained goes by what it was given"
            yield Problem(message, f"cluster.pools.{number}.engine.batcher.order")


def _foresees(options: Mapping[str, Any]) -> bool:
    """Whether requests of a workload say what lies ahead of them, or are a program each."""
    cls = WORKLOADS.find(options["kind"])
    return options.get("lengths") is not None or not hasattr(cls, "foresees") or cls.foresees


def _policy(scenario: Scenario, scaled: Autoscale, here: str) -> Iterator[Problem]:
    options, least, most = scaled.policy, scaled.min, scaled.max
    kind = options.get("kind")
    if kind == "slo" and options["late"] is not None and not request_limits(scenario.slo):
        yield Problem("without slo no request is late; write slo: {ttft_p99: 500ms}, or give the policy a ttft or tpot", f"{here}.late")
    if kind == "concurrency" and least and options["scale_to_zero_grace"] != _default(AUTOSCALERS, "concurrency", "scale_to_zero_grace"):
        yield Problem(f"with min {least} the last replica stays; write min: 0, or leave it out", f"{here}.scale_to_zero_grace")
    for number, line in enumerate(options["table"] if kind == "scheduled" else ()):
        if not least <= line.replicas <= most:
            message = f"found {line.replicas}; from min {least} to max {most} of autoscale is wanted"
            yield Problem(message, f"{here}.table.{number}.replicas")


def _start(pool: Pool, start: ColdStart, here: str) -> Iterator[Problem]:
    if not pool.engine.cuda_graph and start.capture != ColdStart().capture:
        yield Problem("cuda_graph is false, so that no graph is captured; leave it out", f"{here}.capture")
    if start.provision != NONE and start.weights.cache == "host":
        message = "hosts are provisioned anew for every start, so that none remembers weights; leave out provision or cache"
        yield Problem(message, f"{here}.weights.cache")


def _carbon(scenario: Scenario) -> Iterator[Problem]:
    carbon = scenario.carbon
    if carbon is None:
        return
    pools: list[Pool | Trainer] = [*scenario.cluster.pools, *(one for one in scenario.cluster.trainers if one.shares is None)]
    if carbon.grid is not None and all(pool.name in carbon.pools or pool.region in carbon.regions for pool in pools):
        yield Problem("each pool has a grid of its own or of its region; leave it out", "carbon.grid")
    said = [carbon.of(pool.name, pool.region) for pool in pools]
    if carbon.start_hour and all(isinstance(one, int | float) for one in said):
        yield Problem("one value for all hours does not tell them apart; leave start_hour out, or give 24 values or a grid's name",
                      "carbon.start_hour")  # fmt: skip


def _blind(family: Family, options: Mapping[str, Any]) -> bool:
    """Whether a kind says that it looks at nothing."""
    return "kind" in options and vars(family.find(options["kind"])).get("sees") == "nothing"


def _chain(router: Mapping[str, Any]) -> list[str]:
    """A router's kind, and those of the routers within it."""
    inner = router.get("then")
    return [router["kind"], *(_chain(inner) if isinstance(inner, Mapping) else [])] if "kind" in router else []


def _default(family: Family, kind: str, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(family.find(kind)) if field.name == name)
