"""Synchronous training: a round of rollouts, its rewards, updates, and a new version before the next round begins.

On GPUs of its own the trainer stands still while rollouts run and they while it trains; on shared ones they take turns. What is left of a
round is up to the tail policy; with dynamic sampling a round goes on until enough groups have something to teach. With `stream` the trainer
works on groups as they are scored, which overlaps its work with the tail, all on one version.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

from sim.core.rollout import DONE, PARTIAL, RUNNING, SCORED, Group, Prompt
from sim.core.rounds import Batch, Launch, Left
from workloads.rollouts.generation import Generation
from workloads.rollouts.learner import Learner

if TYPE_CHECKING:
    from workloads.rl import Rl

Steps = Generator[Any, Any, None]


class Spent(Exception):
    """The run ends here, for the reason given."""


class Exchange(Protocol):
    """What goes on between trainer and engines."""

    def to_train(self) -> Steps:
        """The round is over: the trainer may use its GPUs when this is."""

    def publish(self) -> Steps:
        """Engines have a new version, and may generate."""


class Rounds:
    """Of one run. `exchange` brings the trainer in, where GPUs are shared, and makes a version of what was trained."""

    def __init__(self, run: Rl, learner: Learner, generation: Generation, exchange: Exchange):
        self._run, self._learner, self._generation, self._exchange = run, learner, generation, exchange
        self._ledger, self._tail = generation.ledger, run.tail
        self._sampling = run.dynamic_sampling
        self._losers: list[Prompt] = []
        self._valid: list[Group] = []
        self._launch: Launch | None = None
        self._over, self._ended = False, 0.0
        self._used = 0
        generation.heard = self._look
        generation.limit = self._tail.limit(10**9)
        generation.masks = self._tail.masks

    def run(self) -> Steps:
        """All steps. Raises Spent when no batch can be had."""
        learner, run = self._learner, self._run
        for _ in range(run.steps):
            learner.begin()
            yield from learner.data()
            yield from self._generate()
            yield from self._exchange.to_train()
            yield from self._train()
            yield from self._exchange.publish()
            yield from learner.end(len(self._valid))
        yield from learner.close()

    # -- generation ------------------------------------------------------------
    def _generate(self) -> Steps:
        """A round: `valid` has the batch when it is over, but for what was trained on meanwhile."""
        learner, generation, begun = self._learner, self._generation, self._generation.now()
        self._used, self._over = 0, False
        if self._sampling is not None:
            yield from learner.spent("wait", self._sampled())
            self._ended = generation.now()
        else:
            self._begin()
            yield from self._waited("wait", lambda: self._over)
        learner.step.generate = self._ended - begun
        if generation.holds_grades and self._sampling is None:
            generation.grade(generation.complete)
        yield from self._rewarded()

    def _begin(self) -> None:
        """Launch a round."""
        generation, tail, run = self._generation, self._tail, self._run
        generation.complete.clear()
        partial = list(self._ledger.live(PARTIAL))
        self._launch = launch = tail.launch(Batch(run.prompts, run.samples), Left(len(partial), len(self._losers)))
        for group in partial[: launch.resumed]:
            generation.start(group)
        again, self._losers = self._losers[: launch.again], self._losers[launch.again :]
        for prompt in again:
            generation.begin(launch.samples, prompt)
        for _ in range(launch.fresh):
            generation.begin(launch.samples)

    def _look(self) -> None:
        """Something has come: end the round if that is enough."""
        if self._sampling is None and not self._over and self._launch is not None:
            complete = self._generation.complete
            if self._tail.over(self._launch, len(complete)):
                self._over, self._ended = True, self._generation.now()
                self._end(self._launch)

    def _end(self, launch: Launch) -> None:
        generation, fate = self._generation, self._tail.fate()
        for group in generation.complete[launch.needed :]:
            generation.lose(group, "drop", "surplus")
        del generation.complete[launch.needed :]
        for group in list(self._ledger.live(RUNNING)):
            if fate == "resume":
                generation.lose(group, "resume")
            else:
                generation.lose(group, "drop", "surplus" if fate == "drop" else "loser")
                if fate == "restart":
                    self._losers.append(group.prompt)

    def _waited(self, part: str, holds: Callable[[], bool]) -> Steps:
        """Wait, which is this part of the step, and with `stream` train on what is scored meanwhile."""
        stream, learner = self._run.updates.stream, self._learner
        while not holds():
            self._sort()
            if stream is not None and len(self._valid) >= stream:
                yield from self._streamed(stream)
            else:
                learner.trainer.enter(part)
                yield from learner.spent(part, self._changed())
        learner.trainer.enter("wait")

    def _rewarded(self) -> Steps:
        """The rewards of all that is complete are there."""
        yield from self._waited("reward", lambda: not self._missing())
        self._sort()

    def _missing(self) -> bool:
        return any(group.state == DONE for group in self._generation.complete) if self._sampling is None else False

    def _changed(self) -> Steps:
        yield self._generation.change()

    def _sort(self) -> None:
        """What is scored is accepted, but for what has nothing to teach."""
        scored = self._generation.scored
        while scored:
            group = scored.popleft()
            if group.state != SCORED:
                continue
            if all(one.masked for one in group.kept):
                self._generation.lose(group, "drop", "failed")
            elif self._sampling is not None and not self._sampling.accepts(group):
                self._generation.lose(group, "drop", "zero_variance")
            else:
                self._generation.accept(group)
                self._valid.append(group)

    def _sampled(self) -> Steps:
        """Generate until enough groups are valid."""
        sampling, wanted, launched = self._sampling, self._run.prompts, 0
        assert sampling is not None
        generation, ledger = self._generation, self._ledger
        for group in list(ledger.live(PARTIAL)):
            generation.start(group)
            launched += 1
        while True:
            self._sort()
            if len(self._valid) >= wanted and (sampling.style == "stream" or not ledger.active):
                break
            more = sampling.more(wanted, len(self._valid), ledger.active, launched)
            if more.spent:
                raise Spent(sampling.why(wanted, len(self._valid), launched))
            for _ in range(more.groups):
                generation.begin(self._run.samples)
            launched += more.groups
            if not more.groups:
                if not ledger.running:
                    complete, generation.complete = generation.complete, []
                    if complete and generation.holds_grades:
                        generation.grade(complete)
                        continue
                yield generation.change()
        for group in list(ledger.live(RUNNING)):
            generation.lose(group, *(("drop", "surplus") if sampling.rest == "drop" else ("resume", "")))
        for group in list(ledger.live(DONE, SCORED)):
            generation.lose(group, "drop", "surplus")
        if sampling.style == "batch":
            # Of a whole batch the first are kept, and not the fastest.
            self._valid.sort(key=_number)
        if sampling.surplus == "discard":
            for group in self._valid[wanted:]:
                generation.lose(group, "drop", "surplus")
            del self._valid[wanted:]

    # -- training ------------------------------------------------------------
    def _streamed(self, most: int) -> Steps:
        groups, self._valid = self._valid[:most], self._valid[most:]
        self._used += len(groups)
        yield from self._learner.accumulate(self._learner.take(groups), len(groups) / self._run.prompts)

    def _train(self) -> Steps:
        run, learner = self._run, self._learner
        left = run.prompts - self._used
        groups, self._valid = self._valid[:left], self._valid[left:]
        if not groups and not self._used:
            raise Spent("no group of a round could be trained on: graders or environments of all failed, or all answers were cut")
        if run.updates.stream is not None:
            if groups:
                yield from learner.accumulate(learner.take(groups), len(groups) / run.prompts)
            yield from learner.finish()
            return
        size = -(-len(groups) // run.updates.trigger)
        for first in range(0, len(groups), size):
            yield from learner.update(learner.take(groups[first : first + size]))


def _number(group: Group) -> int:
    return group.number
