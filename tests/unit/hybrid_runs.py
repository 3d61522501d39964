"""Runs of a trainer that shares the GPUs of a pool: a workload that alternates between the two, and what its tables say."""
from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

from workloads.base import Traffic

MODEL = "Qwen/Qwen2.5-1.5B"
NETWORK = {"fabric": "one_switch", "hosts": [{"gpu": "h100_sxm", "count": 2}], "stores": [{"name": "disks", "bandwidth": "10GB/s"}]}


@dataclass(kw_only=True)
class Alternating(Traffic):
    """Rounds of answers and an update each. `cut`: seconds after which a round's answers have to wait for the update."""

    closed_loop: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    rounds: int = 3
    cut: float | None = None
    publish: float = 0.5
    to_train: float | None = None
    to_rollout: float | None = None
    paused: bool = False

    def prepare(self):
        return []

    def expected(self):
        return self.rounds * 16

    def drive(self, world):
        trainer, hybrid = world.trainer(""), world.hybrid("")
        for _ in range(self.rounds):
            trainer.enter("data")
            calls = [world.call(world.request(100, 50 + 20 * number)) for number in range(16)]
            yield world.env.all_of(calls) if self.cut is None else world.env.timeout(self.cut)
            if self.paused:
                yield hybrid.control.pause()
                yield world.env.timeout(0.25)
            yield from hybrid.to_train(self.to_train)
            yield from trainer.logprob([500] * 16)
            trainer.enter("reward")
            yield world.env.timeout(0.125)
            yield from trainer.update([500] * 16)
            yield from hybrid.to_rollout(self.publish, self.to_rollout)
            yield world.env.all_of(calls)


def plugged():
    """The workload of these tests, as an installed plug-in is."""
    found = {"alternating": SimpleNamespace(load=lambda: Alternating)}
    return mock.patch("sim.core.registry._plugins", lambda family: found if family == "workload" else {})


def scenario(trainer=None, pool=None, workload=None, **changes):
    return {
        "name": "hybrid", "model": MODEL,
        "cluster": {
            "pools": [{"name": "rollouts", "gpu": "h100_sxm", "replicas": 4, "parallel": {"tp": 2}, "price_per_hour": 2.0, **(pool or {})}],
            "trainers": [{"gpu": "h100_sxm", "gpus": 8, "shares": "rollouts", **(trainer or {})}], **changes.pop("cluster", {}),
        },
        "workloads": [{"kind": "alternating", **(workload or {})}], **changes,
    }  # fmt: skip


def sound(result):
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    return result


def spans(result):
    table = result.tables["train_states"]
    names = [table.labels["state"][code] for code in table["state"]]
    return list(zip(names, table["start"].tolist(), table["end"].tolist(), strict=True))


def spent(result):
    return {state: sum(end - start for name, start, end in spans(result) if name == state) for state, *_ in spans(result)}
