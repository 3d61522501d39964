"""The trainer's side of the loop: log-probabilities, updates, checkpoints, and where the seconds of each step went.

A step makes one version. It begins when the one before is over, so that steps follow each other without gaps, and each part of it is time
that the trainer spent or stood still for.
"""
from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from sim.core.ledger import Ledger
from sim.core.rng import Luck
from sim.core.rollout import Group
from workloads._checkpoint import written
from workloads.rollouts.generation import Generation
from workloads.rollouts.record import Step

if TYPE_CHECKING:
    from workloads.base import Client
    from workloads.rl import Rl

Steps = Generator[Any, Any, None]


class Learner:
    """Of one run."""

    def __init__(self, world: Client, run: Rl, trainer: Any, generation: Generation):
        self._world, self._env, self._run, self.trainer = world, world.env, run, trainer
        self._generation, self._record = generation, generation.record
        self._ledger: Ledger = generation.ledger
        self._luck = Luck(int(world.rng("trainer").integers(2**63)))
        self._loaded = float(world.env.now) + self._law(run.data)
        self._saved: Any = None
        self.step = Step(0, self._record.now(), 0)

    # -- steps ------------------------------------------------------------
    def begin(self) -> None:
        """A step begins."""
        self.step = Step(self.step.version + 1, self._record.now(), self._record.begun)

    def spent(self, part: str, doing: Steps) -> Steps:
        """Do something, whose seconds are those of a part of the step."""
        begun = self._env.now
        yield from doing
        self.step.seconds[part] += self._env.now - begun

    def data(self) -> Steps:
        """The prompts of the next version have been read, one version ahead."""
        if self._loaded > self._env.now:
            self.trainer.enter("data")
            yield from self.spent("data", self._sleep(self._loaded - self._env.now))
            self.trainer.enter("wait")
        self._loaded = self._env.now + self._law(self._run.data)

    def end(self, queued: int) -> Steps:
        """The version is out: what comes now and then, and the step is over."""
        wanted = self._run.checkpoint
        if wanted is not None and self.step.version % wanted.every == 0:
            yield from self.spent("checkpoint", self._save(wanted))
        self._record.step(self.step, queued)

    def validation(self) -> float:
        """Seconds of the validation that is due at this version, or 0."""
        wanted = self._run.validation
        if wanted is None or self.step.version % wanted.every:
            return 0.0
        return self._law(wanted.time)

    def close(self) -> Steps:
        """Wait for a checkpoint that is under way."""
        if self._saved is not None and not self._saved.processed:
            self.trainer.enter("checkpoint")
            yield self._saved
            self.trainer.enter("wait")

    # -- training ------------------------------------------------------------
    def take(self, groups: Sequence[Group]) -> list[int]:
        """The trainer takes groups that were accepted; tokens of each of their samples that it trains on."""
        for group in groups:
            self.step.add(group)
        self._ledger.take(groups)
        self._record.trained(groups, self.step.version - 1)
        lengths = [one.length for group in groups for one in group.kept if not one.masked]
        for group in groups:
            self._generation.settle(group)
        return lengths

    def update(self, lengths: list[int]) -> Steps:
        """One local update."""
        updates = self._run.updates
        yield from self._passes(lengths)
        yield from self.spent("update", self.trainer.update(lengths, updates.epochs, updates.mini_batches, self._stated("update")))

    def accumulate(self, lengths: list[int], share: float) -> Steps:
        """A part of an update, as it comes: so large a `share` of its groups."""
        stated = self._stated("update")
        yield from self._passes(lengths, share)
        yield from self.spent("update", self.trainer.accumulate(lengths, None if stated is None else stated * share))

    def finish(self) -> Steps:
        """The step of the optimizer after what was accumulated."""
        yield from self.spent("update", self.trainer.finish(0.0 if self._run.times.update is not None else None))

    def _passes(self, lengths: list[int], share: float = 1.0) -> Steps:
        run = self._run
        for what, wanted in (("logprob", run.old_logprob), ("reference", run.reference)):
            if wanted:
                stated = self._stated(what)
                yield from self.spent(what, self.trainer.logprob(lengths, what, None if stated is None else stated * share))

    def _stated(self, what: str) -> float | None:
        times = self._run.times
        law = {"update": times.update, "logprob": times.logprob, "reference": times.reference}[what]
        return None if law is None else float(law.at(self._luck.next()))

    def _law(self, law: Any) -> float:
        return float(law.at(self._luck.next())) if law is not None else 0.0

    def _save(self, wanted: Any) -> Steps:
        self._saved = yield from written(self._world, self.trainer, wanted, self._saved)
        self.trainer.enter("wait")

    def _sleep(self, seconds: float) -> Steps:
        yield self._env.timeout(seconds)
