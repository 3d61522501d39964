"""What is wrong between trainers and those that drive them: names nobody has, batches that do not divide, checkpoints that go nowhere."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.core.errors import Problem, did_you_mean

if TYPE_CHECKING:
    from sim.spec.scenario import Scenario
    from sim.spec.trainer import Trainer


def problems(scenario: Scenario) -> Iterator[Problem]:
    """All of it, with dotted keys."""
    trainers = {trainer.name: trainer for trainer in scenario.cluster.trainers}
    driven: dict[str, int] = {}
    for number, workload in enumerate(scenario.workloads):
        if workload.get("kind") != "train" or "trainer" not in workload:
            continue
        where = f"workloads.{number}"
        name = workload["trainer"] or (next(iter(trainers)) if len(trainers) == 1 else "")
        if name not in trainers:
            near = did_you_mean(name, trainers) if name and trainers else f"known: {', '.join(trainers) or 'none; write cluster.trainers'}"
            yield Problem(f"no trainer is named '{name}'; {near}" if name else f"it is not said which trainer; {near}", f"{where}.trainer")
            continue
        if name in driven:
            yield Problem(f"workloads.{driven[name]} has trainer '{name}' already; one trainer does one thing", f"{where}.trainer")
        driven.setdefault(name, number)
        yield from _batch(workload, trainers[name], where)
        yield from _checkpoint(scenario, workload["checkpoint"], f"{where}.checkpoint.store")


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
