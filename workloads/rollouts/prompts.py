"""The prompts of a run, in order and epoch after epoch, and what answers to them will be like.

A prompt's length belongs to it, and so do how hard it is and how long its answers are: two what-ifs meet the same prompts.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from sim.core.content import Content
from sim.core.rng import Luck, mix
from sim.core.rollout import Prompt
from sim.spec.law import Law
from workloads.rollouts.answers import Answer, Answers
from workloads.rollouts.lengths import AnswerLengths

if TYPE_CHECKING:
    from workloads.base import Client
    from workloads.rl import Rl

TOKENS = 1 << 41
AGENT = AnswerLengths(dist="fixed", value=1.0, cap=10)


class Prompts:
    """Of one run; `key` is its luck, `first` the key of the content of prompt 0."""

    def __init__(self, world: Client, run: Rl):
        self.key = int(world.rng("answers").integers(2**63))
        self.first = world.keys(run.data_prompts)
        self._run = run
        self.answering = Answers(run.answers or AGENT, run.solving, self.key)
        self._number = 0
        self._visits: dict[int, int] = {}

    def next(self) -> Prompt:
        """The next prompt of the data."""
        epoch, number = divmod(self._number, self._run.data_prompts)
        self._number += 1
        return self.prompt(number, epoch)

    def prompt(self, number: int, epoch: int = 0) -> Prompt:
        """A prompt of the data."""
        law: Law = self._run.prompt or self._run.team().task
        tokens = max(1, law.whole(Luck(mix(self.key, TOKENS + number)).next()))
        return Prompt(number, epoch, float("nan"), tokens, number)

    def answers(self, prompt: Prompt, samples: int, version: int) -> tuple[int, list[Answer]]:
        """Which time it is that the prompt is asked, and answers as a version gives them."""
        visit = self._visits.get(prompt.id, 0)
        self._visits[prompt.id] = visit + 1
        return visit, self.answering.group(prompt.id, visit, samples, version)

    def content(self, prompt: Prompt) -> Content:
        """What samples of a prompt have in common."""
        return Content((self.first + prompt.id,), (prompt.tokens,))


def longest(law: Law, count: int) -> int:
    """Tokens of the longest prompt of so many that is to be expected: one in as many is longer."""
    return max(1, law.whole(1.0 - 1.0 / max(count, 2)))
