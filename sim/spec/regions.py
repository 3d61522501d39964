"""Regions, and how far requests travel between them.

Pools and workloads say where they are by `region`; `cluster.regions`, or the `wan` of `cluster.network`, says how long a request is on its
way from one region to another, one way. A request that is served elsewhere reaches its engine that much later, and its answer comes back
as late. Within a region it takes no time.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.core.units import Seconds
from sim.spec.frozen import Spec

if TYPE_CHECKING:
    from sim.spec.scenario import Cluster

Distances = Mapping[tuple[str, str], float]


class Way(Spec):
    """The way of requests between two regions, alike in both directions; `latency` is one way."""

    between: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    latency: Annotated[Seconds, Field(ge=0, le=60)]

    @model_validator(mode="after")
    def _apart(self) -> Way:
        if self.between[0] == self.between[1]:
            raise ValueError(f"found '{self.between[0]}' twice; two regions are wanted")
        return self


def ways(cluster: Cluster) -> Distances:
    """{(one region, another): seconds one way} of the ways that a cluster gives, in both directions."""
    given = cluster.network.wan if cluster.network is not None else cluster.regions
    there = {(way.between[0], way.between[1]): way.latency for way in given}
    return there | {(b, a): latency for (a, b), latency in there.items()}


def distances(cluster: Cluster, origins: Sequence[str | None], reached: Sequence[Sequence[str]]) -> Distances:
    """{(a workload's region, a pool's): seconds one way}; empty without regions.

    `origins` has the region of each workload (None: it sends no requests), `reached` the pools that may serve it, by name. Raises BadInput
    when a pool or a workload has no region while others have one, when a region is nowhere, and when no latency is known between two that
    need one.
    """
    where = "cluster.network.wan" if cluster.network is not None else "cluster.regions"
    if cluster.network is not None and cluster.regions:
        message = "cluster.network is given, whose `wan` says how far regions are apart; leave one of them out"
        raise BadInput([Problem(message, "cluster.regions")])
    homes = {pool.name: pool.region for pool in cluster.pools}
    # With a network, a pool's region says where it is placed; requests know none unless workloads do.
    if not any(origins) and (cluster.network is not None or not any(homes.values())):
        if cluster.regions:
            raise BadInput([Problem("no pool and no workload says its region; without that it has no effect", "cluster.regions")])
        return {}
    between = dict(ways(cluster))
    problems = list(_twice(cluster.regions))
    known = {name for pair in between for name in pair} | {region for region in homes.values() if region}
    for number, (pool, region) in enumerate(homes.items()):
        if not region:
            others = f"others have one; known: {', '.join(sorted(known))}" if known else "workloads have one"
            message = f"pool {pool} has no region while {others}"
            problems.append(Problem(message, f"cluster.pools.{number}"))
    for number, (origin, pools) in enumerate(zip(origins, reached, strict=True)):
        here = f"workloads.{number}"
        if origin is None:
            continue
        if not origin:
            problems.append(Problem(f"no region is given; say where its requests come from: {', '.join(sorted(known))}", here))
        elif origin not in known:
            near = did_you_mean(origin, known) if known else "no pool has a region"
            message = f"no pool is in region '{origin}', and no way leads there; {near}"
            problems.append(Problem(message, f"{here}.region"))
        else:
            far = sorted({homes[pool] for pool in pools} - {origin, ""})
            problems += [
                Problem(f"no latency is known between {origin} and {region}; give it in {where}, such as "
                        f"{{between: [{origin}, {region}], latency: 40ms}}", f"{here}.region")
                for region in far if (origin, region) not in between
            ]  # fmt: skip
    if problems:
        raise BadInput(problems)
    return between | {(region, region): 0.0 for region in known}


def _twice(given: Sequence[Way]) -> Iterator[Problem]:
    seen: list[set[str]] = []
    for number, way in enumerate(given):
        if set(way.between) in seen:
            yield Problem(f"the way between {' and '.join(way.between)} is given twice", f"cluster.regions.{number}.between")
        seen.append(set(way.between))
