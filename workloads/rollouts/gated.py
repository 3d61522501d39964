"""Asynchronous training: groups begin whenever the gate of staleness lets them, and the trainer takes what is ready.

Nobody waits for a round. Whenever something has come or a version is out, what is scored goes to the buffer, the gate says what is too old
and how many may begin, and the trainer, if it waits, looks into the buffer. Gates that look only now and then (verl's monitor) are asked
again after their `poll`.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sim.core.rollout import PARTIAL, PENDING, SCORED, Group
from workloads.rollouts.buffer import Buffer
from workloads.rollouts.generation import Generation
from workloads.rollouts.learner import Learner
from workloads.rollouts.publish import Publisher
from workloads.rollouts.rounds import Spent

if TYPE_CHECKING:
    from sim.policy.stale.base import Staleness
    from workloads.base import Client
    from workloads.rl import Rl

Steps = Generator[Any, Any, None]
# As many batches may come to nothing before a run is given up.
TRIES = 10


class Gated:
    """Of one run."""

    def __init__(self, world: Client, run: Rl, learner: Learner, publisher: Publisher):
        self._env, self._run, self._learner, self._publisher = world.env, run, learner, publisher
        self._generation: Generation = publisher.generation
        self._ledger = self._generation.ledger
        self._gate: Staleness = run.gate
        self._sampling = run.dynamic_sampling
        self._buffer = Buffer(run.buffer.order, run.buffer.cap)
        self._control = world.control(run.rollout or world.pool)
        self._held = self._busy = self._over = False
        self._first = run.take if run.updates.stream is None else min(run.updates.stream, run.take)
        self._timer: Any = None
        self._since, self._seen = 0, (0, 0)
        self._why = ""
        publisher.gate, publisher.buffer, publisher.resumed = self._gate, self._buffer, self._resumed
        self._generation.heard = self._heard
        self._generation.turn = lambda group: self._gate.turn(self._ledger, group)
        if run.tail is not None:
            self._generation.limit, self._generation.masks = run.tail.limit(10**9), run.tail.masks

    def run(self) -> Steps:
        """All steps. Raises Spent when the filter accepts nothing."""
        learner, run, on_take = self._learner, self._run, self._gate.publishes == "on_take"
        yield from learner.data()
        self._fill()
        for step in range(run.steps):
            learner.begin()
            if step:
                yield from learner.data()
            for local in range(run.updates.trigger):
                groups = yield from self._taken(self._first)
                if on_take and step and not local:
                    yield from self._publisher.publish()
                yield from self._train(groups)
            if not on_take:
                yield from self._publisher.publish()
            yield from learner.end(len(self._buffer))
        self._over = True
        yield from self._publisher.close()
        yield from learner.close()

    # -- the trainer's side ------------------------------------------------------------
    def _taken(self, count: int) -> Generator[Any, Any, list[Group]]:
        groups = self._buffer.take(count, self._fits)
        while not groups:
            why = self._why or self._hopeless() or self._stuck(count)
            if why:
                self._over = True
                yield from self._publisher.close()
                raise Spent(why)
            # Where enough groups have all their answers, it waits for their rewards alone.
            part = "reward" if len(self._buffer) + self._ledger.done >= count else "wait"
            self._learner.trainer.enter(part)
            yield from self._learner.spent(part, self._changed())
            groups = self._buffer.take(count, self._fits)
        self._learner.trainer.enter("wait")
        self._since, self._seen = 0, (self._ledger.finished, self._ledger.accepted)
        return groups

    def _stuck(self, count: int) -> str:
        """Why nothing can come any more: none runs or is on its way, and the gate lets no other begin. Else nothing."""
        ledger = self._ledger
        if ledger.active or ledger.partial or self._publisher.pulls or self._gate.may_start(ledger).groups:
            return ""
        have = f"the trainer waits for {count} groups and {len(self._buffer)} are there"
        return f"{have}; none runs, and staleness lets no other begin before a version is out: groups that were lost keep their places"

    def _hopeless(self) -> str:
        """Why there is no point in going on: of many groups not one could be used. Else nothing."""
        finished, accepted = self._seen
        ended = self._ledger.finished - finished
        if self._sampling is not None or self._ledger.accepted > accepted or ended < TRIES * self._run.prompts:
            return ""
        return f"of {ended} groups that ended none could be trained on: graders or environments of all failed, or all answers were cut"

    def _train(self, groups: list[Group]) -> Steps:
        run, learner, used = self._run, self._learner, len(groups)
        if run.updates.stream is None:
            yield from learner.update(self._take(groups))
            return
        yield from learner.accumulate(self._take(groups), used / run.take)
        while used < run.take:
            groups = yield from self._taken(min(self._first, run.take - used))
            used += len(groups)
            yield from learner.accumulate(self._take(groups), len(groups) / run.take)
        yield from learner.finish()

    def _take(self, groups: list[Group]) -> list[int]:
        """The trainer has them, so that others may begin."""
        lengths = self._learner.take(groups)
        self._fill()
        return lengths

    def _fits(self, group: Group) -> bool:
        return self._gate.takes(self._ledger, group)

    def _changed(self) -> Steps:
        yield self._generation.change()

    # -- the rollouts' side ------------------------------------------------------------
    def _heard(self) -> None:
        """Something has come."""
        if self._busy:
            return
        self._busy = True
        self._sort()
        if self._gate.looks:
            self._ledger.kv, self._ledger.preemptions = self._control.load()
            for group, fate in self._gate.look(self._ledger):
                self._generation.lose(group, fate, "load" if fate == "drop" else "")
        self._busy = False
        self._fill()

    def _sort(self) -> None:
        """What is scored goes to the buffer, but for what has nothing to teach."""
        scored, generation = self._generation.scored, self._generation
        generation.complete.clear()
        while scored:
            group = scored.popleft()
            if group.state != SCORED:
                continue
            if all(one.masked for one in group.kept):
                generation.lose(group, "drop", "failed")
            elif self._sampling is not None and not self._sampling.accepts(group):
                generation.lose(group, "drop", "zero_variance")
            else:
                generation.accept(group)
                lost = self._buffer.put(group)
                if lost is not None:
                    generation.lose(lost, "drop", "stale")

    def _fill(self) -> None:
        """Begin what may begin."""
        if self._busy or self._held or self._over or self._publisher.draining or self._why:
            return
        self._busy = True
        room = self._gate.may_start(self._ledger)
        if room.held and self._gate.poll:
            self._held = True
            self._timer = self._env.timeout(self._gate.poll)
            self._timer.callbacks.append(self._poll)
        count = room.groups
        while count > 0:
            if self._sampling is not None and self._sampling.spent(self._run.take, len(self._buffer), self._since):
                self._why = self._sampling.why(self._run.take, len(self._buffer), self._since)
                self._generation.wake()
                break
            self._start()
            count -= 1
        self._busy = False

    def _start(self) -> None:
        generation = self._generation
        pending = generation.pending
        while pending and pending[0].state != PENDING:
            pending.popleft()
        if pending:
            group = pending.popleft()
            generation.start(group)
        else:
            group = generation.begin(self._run.samples + self._run.redundant)
            self._since += 1
        self._gate.started(self._ledger, group)

    def _poll(self, timer: Any) -> None:
        # A version that came out meanwhile has made an end of that pause.
        if timer is self._timer:
            self._held = False
            self._fill()

    def _resumed(self) -> None:
        """A version is out: who was stopped goes on, and others may begin, but for those of a version that nobody makes."""
        self._over = self._over or self._ledger.version >= self._run.steps
        self._busy = True
        for group in list(self._ledger.live(PARTIAL)):
            self._generation.start(group)
        self._busy = self._held = False
        self._timer = None
        self._heard()
        self._generation.wake()
