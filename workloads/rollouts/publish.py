"""A new version goes out: weights leave the trainer, engines stop, take them in and go on, and who was too old is dropped.

What stands still for what is the kind of weight sync's to say (`sim/policy/sync`): engines from begin to end (blocking), engines only while
they load (in flight), or the trainer only until a relay has them (pull). In all, segments end where engines stand still, caches are kept or
computed again as `interrupt` says, and gates are asked before engines go on.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from sim.core.rollout import ACCEPTED, RUNNING, Group
from sim.core.transfer import Transfer
from workloads.rollouts.generation import Generation
from workloads.rollouts.learner import Learner

if TYPE_CHECKING:
    from sim.policy.sync.base import Ends, Plan
    from workloads.base import Client
    from workloads.rl import Rl

Steps = Generator[Any, Any, None]


class Publisher:
    """Of one run. `gate` is asked what becomes of groups, which leave `buffer`; `draining`: nobody is to begin now; `resumed` is called
    when engines go on.
    """

    def __init__(self, world: Client, run: Rl, learner: Learner, generation: Generation, to: tuple[str, Ends]):
        self._pool, self._ends = to
        self._world, self._env, self._run = world, world.env, run
        self._learner, self.generation = learner, generation
        self._control = world.control(self._pool)
        self._ledger = generation.ledger
        self.gate: Any = None
        self.buffer: Any = None
        self.resumed: Callable[[], None] = _nobody
        self.draining = False
        self._pulled: Any = None

    def to_train(self) -> Steps:
        """The trainer has GPUs of its own."""
        return
        yield

    def publish(self) -> Steps:
        """Make what the trainer has the next version; the trainer goes on when this is over."""
        if self.pulls:
            # The relay holds one version: the next waits until engines have it.
            yield from self._learner.spent("sync", self._wait(self._pulled))
        plan: Plan = self._run.sync.plan(self._ends)
        pulled = self._run.sync.blocking == "pull"
        row = Row(self._ledger.version + 1, self._env.now)
        validating = self._learner.validation()
        yield from self._learner.spent("sync", self._gathered(plan, row))
        rest = self._env.process(self._engines(plan, row, 0.0 if pulled else validating))
        if pulled:
            row.released = self._env.now
            self._pulled = rest
        else:
            yield from self._learner.spent("sync", self._wait(rest))
            self._learner.step.seconds["sync"] -= validating
            self._learner.step.seconds["validation"] += validating
        self._learner.trainer.enter("wait")

    @property
    def pulls(self) -> bool:
        """Whether engines have yet to pull a version that the trainer has handed over."""
        return self._pulled is not None and not self._pulled.processed

    def close(self) -> Steps:
        """Wait until engines have pulled the last version."""
        if self.pulls:
            yield self._pulled

    def _wait(self, event: Any) -> Steps:
        self._learner.trainer.enter("publish")
        yield event

    def _gathered(self, plan: Plan, row: Row) -> Steps:
        self._learner.trainer.enter("publish")
        if plan.gather > 0:
            yield self._env.timeout(plan.gather)
        row.gathered = self._env.now

    def _engines(self, plan: Plan, row: Row, validating: float) -> Steps:
        interrupt, control, env = self._run.interrupt, self._control, self._env
        if self._run.sync.blocking == "blocking":
            yield from self._still(row)
            yield from self._moved(plan, row)
        else:
            yield from self._moved(plan, row)
            yield from self._still(row)
        row.running, row.held = self.generation.mark()
        self._ledger.version += 1
        self._dropped(row)
        yield control.update(plan.load, interrupt.kv, clear_prefix=interrupt.kv == "recompute")
        if validating:
            yield env.timeout(validating)
        control.resume()
        row.resumed = env.now
        self.draining = False
        self.generation.record.sync(row.facts(self._ends.served))
        self.resumed()

    def _still(self, row: Row) -> Steps:
        """Engines stand still."""
        wait = self._run.interrupt.wait
        if wait == "drain":
            self.draining = True
            while self._ledger.running:
                yield self.generation.change()
        yield self._control.pause("calls" if wait == "calls" else "none")
        row.paused = self._env.now

    def _moved(self, plan: Plan, row: Row) -> Steps:
        """All engines have the bytes."""
        env, source, store = self._env, self._learner.trainer.spec.name, self._run.sync.store
        if plan.fixed:
            yield env.timeout(plan.fixed)
        if self._world.networked and plan.order is not None:
            algorithm, chunk, size = plan.order
            if store:
                yield self._world.transfer(Transfer("weights", source, store, size))
            yield self._world.transfer(Transfer("weights", store or source, self._pool, size, algorithm, chunk))
        elif plan.move:
            yield env.timeout(plan.move)
        row.moved = env.now

    def _dropped(self, row: Row) -> None:
        """Do with groups what gate and interrupt say."""
        abort = self._run.interrupt.abort
        for group, fate in self.gate.on_publish(self._ledger) if self.gate is not None else ():
            row.stopped += self._lose(group, fate)
        if abort != "never":
            for group in self._ledger.live(RUNNING):
                row.stopped += self._lose(group, abort)

    def _lose(self, group: Group, fate: str) -> int:
        count = sum(not one.ended for one in group.trajectories) if group.state == RUNNING else 0
        if group.state == ACCEPTED and self.buffer is not None:
            self.buffer.remove((group.number,))
        self.generation.lose(group, fate, "stale")
        return count


class Row:
    """A publication as it goes: times in seconds, samples."""

    def __init__(self, version: int, start: float):
        self.version, self.start = version, start
        self.gathered = self.paused = self.moved = self.resumed = self.released = start
        self.running = self.stopped = self.held = 0

    def facts(self, size: float) -> tuple[float, ...]:
        """As a row of `rl_syncs`."""
        released = self.released if self.released > self.start else self.resumed
        return (
            self.version, self.start, self.gathered, self.paused, self.moved, self.resumed, released, size, self.running, self.stopped,
            self.held,
        )  # fmt: skip


def _nobody() -> None:
    return
