"""What is wrong between trainers, the pools whose GPUs they share, and those that drive them: names nobody has, batches that do not divide,
checkpoints that go nowhere, engines that nobody would put to sleep.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.core.errors import Problem, did_you_mean

if TYPE_CHECKING:
    from sim.spec.scenario import Cluster, Pool, Scenario
    from sim.spec.trainer import Trainer

COLOCATED = "sync_colocated"


def sharer(cluster: Cluster, pool: str) -> Trainer | None:
    """The trainer that shares the GPUs of a pool, if there is one."""
    return next((trainer for trainer in cluster.trainers if trainer.shares == pool), None)


def residual(cluster: Cluster, pool: str) -> float:
    """Bytes that a trainer leaves on each GPU of a pool while its engines serve."""
    found = sharer(cluster, pool)
    return found.residual if found is not None else 0.0


def home(cluster: Cluster, trainer: Trainer) -> Pool | None:
    """The pool whose GPUs a trainer shares; None where it has its own."""
    return next((pool for pool in cluster.pools if pool.name == trainer.shares), None)


def seated(cluster: Cluster, trainer: Trainer) -> Trainer:
    """A trainer that shares its GPUs, with what its pool says of where they stand."""
    pool = home(cluster, trainer)
    return trainer if pool is None else trainer.model_copy(update={"node": pool.node, "region": pool.region})


def problems(scenario: Scenario) -> Iterator[Problem]:
    """All of it, with dotted keys."""
    trainers = {trainer.name: trainer for trainer in scenario.cluster.trainers}
    yield from _shared(scenario.cluster)
    yield from _colocated(scenario, trainers)
    pools = [pool.name for pool in scenario.cluster.pools]
    driven: dict[str, int] = {}
    trained: dict[str, int] = {}
    for number, workload in enumerate(scenario.workloads):
        if workload.get("kind") not in ("train", "rl") or "trainer" not in workload:
            continue
        if workload["kind"] == "rl":
            yield from _rollout(workload["rollout"], pools, (number, trained))
        where = f"workloads.{number}"
        name = workload["trainer"] or (next(iter(trainers)) if len(trainers) == 1 else "")
        if name not in trainers:
            near = did_you_mean(name, trainers) if name and trainers else f"known: {', '.join(trainers) or 'none; write cluster.trainers'}"
            yield Problem(f"no trainer is named '{name}'; {near}" if name else f"it is not said which trainer; {near}", f"{where}.trainer")
            continue
        if name in driven:
            yield Problem(f"workloads.{driven[name]} has trainer '{name}' already; one trainer does one thing", f"{where}.trainer")
        driven.setdefault(name, number)
        if workload["kind"] == "rl":
            yield from _updates(workload, trainers[name], where)
            yield from _checkpoint(scenario, workload["checkpoint"], f"{where}.checkpoint.store")
            continue
        if trainers[name].shares is not None:
            what = f"trainer {name} has the GPUs of pool {trainers[name].shares} only while its engines sleep, and kind train wakes nobody"
            yield Problem(f"{what}; kind rl with mode {COLOCATED} does, or give the trainer GPUs of its own", f"{where}.trainer")
        yield from _batch(workload, trainers[name], where)
        yield from _checkpoint(scenario, workload["checkpoint"], f"{where}.checkpoint.store")


def _shared(cluster: Cluster) -> Iterator[Problem]:
    """Trainers that share GPUs which they cannot have."""
    pools = {pool.name: pool for pool in cluster.pools}
    taken: dict[str, str] = {}
    for number, trainer in enumerate(cluster.trainers):
        name, where = trainer.shares, f"cluster.trainers.{number}"
        if name is None:
            continue
        if name not in pools:
            near = did_you_mean(name, pools) if pools else "there are no pools"
            yield Problem(f"no pool is named '{name}'; {near}", f"{where}.shares")
            continue
        if name in taken:
            yield Problem(f"trainer {taken[name]} shares the GPUs of pool {name} already; one trainer does", f"{where}.shares")
        taken.setdefault(name, trainer.name)
        yield from _divided(trainer, pools[name], where)
        yield from (Problem(f"pool {name} {what}", f"{where}.shares") for what in _unfit(pools[name]))


def _divided(trainer: Trainer, pool: Pool, where: str) -> Iterator[Problem]:
    """A trainer whose GPUs are not those of its pool."""
    if trainer.gpu != pool.gpu:
        yield Problem(f"found {trainer.gpu}, but the GPUs of pool {pool.name} are {pool.gpu}", f"{where}.gpu")
    there = pool.replicas * pool.parallel.gpus
    if trainer.gpus != there:
        what = f"found {trainer.gpus}, but pool {pool.name} has {pool.replicas} replicas of {pool.parallel.gpus}"
        yield Problem(f"{what}: {there} GPUs; the trainer has all of them, or none", f"{where}.gpus")


def _unfit(pool: Pool) -> Iterator[str]:
    """Why no trainer can have the GPUs of a pool."""
    if pool.autoscale is not None:
        yield "has autoscale, and a trainer cannot share GPUs that come and go; leave it out"
    if pool.start is not None:
        yield "has a start, and replicas that come up while a trainer has their GPUs would serve; leave it out"
    if pool.role != "both":
        yield f"has role {pool.role}; only engines that do both, prefill and decode, are put to sleep"
    for key, said in (("gpu_memory", pool.gpu_memory), ("power_cap", pool.power_cap)):
        if said is not None:
            yield f"has a {key}, of which its trainer knows nothing; give both the GPU with a profile of your own"


def _colocated(scenario: Scenario, trainers: dict[str, Trainer]) -> Iterator[Problem]:
    """Runs of reinforcement learning whose mode does not suit whose GPUs their trainer has."""
    pools = [pool.name for pool in scenario.cluster.pools]
    for number, workload in enumerate(scenario.workloads):
        if workload.get("kind") != "rl" or "mode" not in workload:
            continue
        name = workload["trainer"] or (next(iter(trainers)) if len(trainers) == 1 else "")
        if name not in trainers:
            continue  # said by whoever looks for it
        where, mode, shares = f"workloads.{number}", workload["mode"], trainers[name].shares
        pool = workload["rollout"] or (pools[0] if len(pools) == 1 else "")
        if mode == COLOCATED and shares is None:
            what = f"trainer {name} has GPUs of its own, which no engines could use"
            yield Problem(f"{what}; write shares: {pool or 'POOL'} there, or mode: sync_disaggregated", f"{where}.mode")
        elif mode == COLOCATED and shares in pools and pool and pool != shares:
            yield Problem(f"found pool {pool}, but trainer {name} shares the GPUs of pool {shares}", f"{where}.rollout")
        elif mode != COLOCATED and shares is not None:
            what = f"trainer {name} has the GPUs of pool {shares} only while its engines sleep, and with mode {mode} they do not"
            yield Problem(f"{what}; write mode: {COLOCATED}, or give the trainer GPUs of its own", f"{where}.mode")


def _rollout(name: str, pools: list[str], who: tuple[int, dict[str, int]]) -> Iterator[Problem]:
    """A pool that generates which there is not, or which is not said, or whose weights are another run's: `who` is the number of a
    workload, and which workload trains which pool.
    """
    number, trained = who
    where, found = f"workloads.{number}.rollout", name or (pools[0] if len(pools) == 1 else "")
    if found not in pools:
        near = did_you_mean(found, pools) if found and pools else f"known: {', '.join(pools) or 'none; write cluster.pools'}"
        yield Problem(f"no pool is named '{found}'; {near}" if found else f"it is not said which pool generates; {near}", where)
    elif found in trained:
        yield Problem(f"workloads.{trained[found]} trains pool '{found}' already; one pool has the weights of one", where)
    trained.setdefault(found, number)


def _updates(workload: dict[str, Any], trainer: Trainer, where: str) -> Iterator[Problem]:
    """Steps of the optimizer on fewer samples than the trainer has ranks."""
    updates = workload["updates"]
    parts = updates.trigger * updates.mini_batches
    samples = workload["prompts"] * workload["samples"] // parts
    if samples < trainer.dp:
        of = f" in each of {parts} steps of the optimizer" if parts > 1 else ""
        message = f"found {samples} samples{of} for the {trainer.dp} ranks of {trainer.name}; each needs at least one in a step"
        yield Problem(message, f"{where}.updates" if parts > 1 else f"{where}.samples")


def _batch(workload: dict[str, Any], trainer: Trainer, where: str) -> Iterator[Problem]:
    if workload["batch"] < trainer.dp:
        message = f"found {workload['batch']} samples for the {trainer.dp} ranks of {trainer.name}; each needs at least one in a step"
        yield Problem(message, f"{where}.batch")


def _checkpoint(scenario: Scenario, checkpoint: Any, where: str) -> Iterator[Problem]:
    """A checkpoint that goes to a store there is not."""
    if checkpoint is None or not checkpoint.store:
        return
    network = scenario.cluster.network
    if network is None:
        yield Problem(f"found '{checkpoint.store}', but there is no network; write cluster.network with this store, or give time", where)
        return
    known = [store.name for store in network.stores]
    if checkpoint.store not in known:
        near = did_you_mean(checkpoint.store, known) if known else "cluster.network has none"
        yield Problem(f"no store '{checkpoint.store}'; {near}", where)
