"""GPUs that two pools share: whose they are, who has them at the beginning, who decides when they change hands, and how that is done.

The pool that says `shares` is the borrower; the one it names owns the GPUs. A replica of the borrower stands on the GPUs of one of the
owner, and of the two one alone is awake: its weights are in the GPUs, those of the other in the memory of their host.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from sim.core.errors import Problem, did_you_mean
from sim.core.registry import BATCHERS, WORKLOADS
from sim.core.units import Seconds
from sim.spec.frozen import Spec
from sim.spec.training import sharer

if TYPE_CHECKING:
    from sim.spec.scenario import Cluster, Pool, Scenario

DAY = 86400.0
GRACE = 30.0  # terminationGracePeriodSeconds of Kubernetes
DURING, EVERY = 60.0, 15.0
Time = Annotated[Seconds, Field(ge=0, le=1e7)]
OfDay = Annotated[Seconds, Field(ge=0, lt=DAY)]
Load = Annotated[float, Field(ge=0, le=1e6)]


class HandOver(Spec):
    """How a replica gives its GPUs up: it takes no more requests, and `drain` finishes those it has, for `grace`. What is left then, and
    with `preempt` at the end of the step in flight, goes through the front door to another replica with the tokens it has, where prompt
    and tokens are computed again. With `abort`, requests that have tokens are called off then, and fail; only those without any move on.

    `switch`: seconds from when the GPUs are free until the other replica serves; by default the weights of the one go to the host's memory
    over PCIe, and then those of the other come.
    """

    how: Literal["drain", "preempt", "abort"] = "drain"
    grace: Time = GRACE
    switch: Time | None = None

    @model_validator(mode="after")
    def _used(self) -> HandOver:
        if self.how != "drain" and self.grace != GRACE:
            raise ValueError(f"grace is given, but with how: {self.how} nobody is waited for; leave it out, or write how: drain")
        return self


class When(Spec):
    """When the borrower has the GPUs. By the clock: `between` two times of day, as time since midnight; the run begins at `offset`.

    Or by load: the owner's requests, under way and held, per replica that it has with all its GPUs, looked at `every` so many seconds. It
    lends when the load has been under `load_below` `during` so many seconds, and takes back when it is over `load_above`.
    """

    between: Annotated[tuple[OfDay, ...], Field(min_length=2, max_length=2)] | None = None
    offset: OfDay = 0.0
    load_below: Load | None = None
    load_above: Load | None = None
    during: Time = DURING
    every: Annotated[Seconds, Field(gt=0, le=DAY)] = EVERY

    @model_validator(mode="after")
    def _one_way(self) -> When:
        loads = (self.load_below, self.load_above)
        if (self.between is None) == (loads == (None, None)):
            raise ValueError("say it in one way: by the clock, such as {between: [22h, 6h]}, or by load, {load_below: 2, load_above: 6}")
        if self.between is not None:
            if self.between[0] == self.between[1]:
                raise ValueError(f"between two equal times ({self.between[0]:g} s) is no time at all")
            late = [name for name, value, usual in (("during", self.during, DURING), ("every", self.every, EVERY)) if value != usual]
            if late:
                raise ValueError(f"{' and '.join(late)}: nothing to do with the clock; leave out, or say when by load_below and load_above")
        elif self.load_below is None or self.load_above is None:
            raise ValueError("load_below and load_above belong together, such as {load_below: 2, load_above: 6}")
        elif self.load_below > self.load_above:
            raise ValueError(f"load_below ({self.load_below:g}) is above load_above ({self.load_above:g}): GPUs would go to and fro")
        elif self.offset:
            raise ValueError("offset is of a clock; leave it out, or say when by between")
        return self

    def lent(self, time: float) -> bool:
        """Whether the borrower has the GPUs at this time of the run, by the clock.

        >>> night = When(between=("22h", "6h"))
        >>> [night.lent(hour * 3600.0) for hour in (0, 6, 21.9, 22, 30)]
        [True, False, False, True, False]
        """
        assert self.between is not None
        begin, end = self.between
        return (time + self.offset - begin) % DAY < (end - begin) % DAY

    def change(self, time: float) -> float:
        """When that changes next, after this time, s."""
        assert self.between is not None
        return time + min((mark - time - self.offset) % DAY or DAY for mark in self.between)


class Shares(Spec):
    """On whose GPUs a pool stands. `awake`: who has them when the run begins, by default as `when` says, else the owner.

    Without `when` a workload that trains decides.
    """

    pool: Annotated[str, Field(min_length=1)]
    awake: Literal["owner", "borrower"] | None = None
    lend: HandOver = HandOver()
    take_back: HandOver = HandOver()
    when: When | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"pool": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _awake(self) -> Shares:
        if self.awake is not None and self.when is not None and self.when.between is not None:
            raise ValueError("awake is given, but the clock says who has the GPUs when the run begins; leave it out")
        return self

    @property
    def lent(self) -> bool:
        """Whether the borrower has the GPUs when the run begins."""
        if self.when is not None and self.when.between is not None:
            return self.when.lent(0.0)
        return self.awake == "borrower"


def lenders(cluster: Cluster) -> dict[str, Pool]:
    """The owner of the GPUs of each pool that borrows some, by the borrower's name."""
    pools = {pool.name: pool for pool in cluster.pools}
    return {pool.name: pools[pool.shares.pool] for pool in cluster.pools if pool.shares is not None}


def awake(cluster: Cluster, pool: Pool) -> int:
    """Replicas of a pool that are there when the run begins: neither those whose GPUs are lent nor those that have none yet."""
    if pool.shares is not None:
        return pool.replicas if pool.shares.lent else 0
    return pool.replicas - sum(
        other.replicas for other in cluster.pools if other.shares is not None and other.shares.pool == pool.name and other.shares.lent
    )


def problems(scenario: Scenario) -> Iterator[Problem]:
    """All that is wrong with pools that share GPUs, with dotted keys."""
    cluster = scenario.cluster
    pools = {pool.name: (number, pool) for number, pool in enumerate(cluster.pools)}
    taken: dict[str, str] = {}
    for number, pool in enumerate(cluster.pools):
        if pool.shares is None:
            continue
        here, name = f"cluster.pools.{number}.shares", pool.shares.pool
        if name not in pools or name == pool.name:
            others = [other for other in pools if other != pool.name]
            near = did_you_mean(name, others) if others else "there is no other"
            what = "a pool shares the GPUs of another one" if name == pool.name else f"no pool is named '{name}'"
            yield Problem(f"{what}; {near}", here)
            continue
        index, owner = pools[name]
        if owner.shares is not None:
            message = f"pool {name} has no GPUs of its own, it shares those of {owner.shares.pool}"
            yield Problem(f"{message}; GPUs are shared by two pools, one of which owns them", here)
        elif name in taken:
            yield Problem(f"pool {taken[name]} shares the GPUs of {name} already; GPUs are shared by two pools", here)
        taken.setdefault(name, pool.name)
        yield from (Problem(message, f"cluster.pools.{number}.{key}") for key, message in _alike(pool, owner))
        for at, one in ((number, pool), (index, owner)):
            yield from (Problem(message, f"cluster.pools.{at}.{key}".rstrip(".")) for key, message in _settled(cluster, one))
        yield from (Problem(message, path) for path, message in _paid(scenario, number, pool, owner))
        if cluster.gate is not None:
            yield Problem("a gate keeps programs at their replicas, and those of shared GPUs come and go; leave out one", "cluster.gate")
        if pool.shares.when is None and not any(_lends(workload) for workload in scenario.workloads):
            asked = "say when, such as {between: [22h, 6h]} or {load_below: 2, load_above: 6}, or lends in a workload of kind rl"
            yield Problem(f"nobody decides when the GPUs change hands; {asked}", here)


def _alike(pool: Pool, owner: Pool) -> Iterator[tuple[str, str]]:
    """What would have to be the same, as the GPUs are."""
    if pool.gpu != owner.gpu:
        yield "gpu", f"found {pool.gpu}, but pool {owner.name}, whose GPUs these are, has {owner.gpu}"
    if pool.parallel.gpus != owner.parallel.gpus:
        message = f"a replica has {pool.parallel.gpus} GPUs, and one of pool {owner.name}, whose GPUs these are, {owner.parallel.gpus}"
        yield "parallel", f"{message}; they must be as many"
    if pool.replicas > owner.replicas:
        yield "replicas", f"found {pool.replicas}, but pool {owner.name}, whose GPUs these are, has {owner.replicas}"
    for key in ("node", "region", "gpu_memory"):
        own, other = vars(pool)[key], vars(owner)[key]
        if own != other:
            yield key, f"found {own or 'nothing'}, but {other or 'nothing'} at pool {owner.name}, whose GPUs these are; write the same"


def _settled(cluster: Cluster, pool: Pool) -> Iterator[tuple[str, str]]:
    """What a pool that shares GPUs, be it as owner or borrower, cannot have."""
    why = f"the GPUs of pool {pool.name} are shared"
    if pool.autoscale is not None:
        yield "autoscale", f"{why}, so that their number is fixed; leave out autoscale or shares"
    elif pool.start is not None:
        yield "start", f"{why}: its replicas sleep and wake, and none starts from nothing; leave it out"
    if pool.role != "both":
        yield "role", f"{why}, but with role: {pool.role} others fetch what was computed there; share those of a pool with role: both"
    kind = pool.engine.batcher.get("kind")
    if kind is not None and BATCHERS.find(kind).pads:  # type: ignore[attr-defined]
        yield "engine.batcher", f"{why}, and static batches cannot be interrupted; choose another batcher, such as vllm_v1"
    trainer = sharer(cluster, pool.name)
    if trainer is not None:
        yield "", f"trainer {trainer.name} shares the GPUs of pool {pool.name} already; GPUs are shared by two"


def _paid(scenario: Scenario, number: int, pool: Pool, owner: Pool) -> Iterator[tuple[str, str]]:
    """Prices of GPUs that are the owner's."""
    why = f"the GPUs of pool {pool.name} are paid as those of {owner.name}, whose they are; leave it out"
    if pool.price_per_hour is not None:
        yield f"cluster.pools.{number}.price_per_hour", why
    for key in ("commitment", "reserved") if scenario.prices is not None else ():
        if pool.name in vars(scenario.prices)[key]:
            yield f"prices.{key}.{pool.name}", why


def _lends(workload: Mapping[str, Any]) -> bool:
    """Whether it may decide. Of kinds that lend where they are told to (`lends`), those that were told."""
    trains = "kind" in workload and bool(WORKLOADS.find(workload["kind"]).trains)  # type: ignore[attr-defined]
    return trains and ("lends" not in workload or workload["lends"] is not None)
