"""Trainer and engines on the same GPUs, which change hands twice a step: engines sleep while it works, and wake with its weights."""
from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from workloads.rollouts.generation import Generation
from workloads.rollouts.learner import Learner
from workloads.rollouts.publish import Row

if TYPE_CHECKING:
    from sim.policy.sync.base import Ends
    from workloads.rl import Rl

Steps = Generator[Any, Any, None]


class Colocated:
    """Of one run; `hybrid` has the GPUs change hands, `ends` are those of its syncs."""

    def __init__(self, run: Rl, learner: Learner, generation: Generation, hybrid: Any, ends: Ends):
        self._run, self._learner, self._generation = run, learner, generation
        self._hybrid, self._ends = hybrid, ends

    def to_train(self) -> Steps:
        """Engines sleep, and the trainer's states are in its GPUs."""
        yield from self._learner.spent("switch", self._hybrid.to_train(self._run.switch.to_train))

    def publish(self) -> Steps:
        """Engines are awake, with the weights that the trainer has made."""
        learner, record = self._learner, self._generation.record
        row = Row(self._generation.ledger.version + 1, record.now())
        plan = self._run.sync.plan(self._ends)
        validating, begun = learner.validation(), record.now()
        handed = yield from self._hybrid.to_rollout(plan.seconds, self._run.switch.to_rollout)
        self._generation.ledger.version += 1
        seconds = learner.step.seconds
        seconds["sync"] += handed.publish
        seconds["switch"] += record.now() - begun - handed.publish
        row.moved = row.resumed = row.released = record.now()
        record.sync(row.facts(self._ends.served))
        if validating:
            yield from learner.spent("validation", learner.trainer.spend("asleep", validating))
