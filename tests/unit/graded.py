"""A workload that does nothing but grade, for tests of graders: on a cluster, or in a world without one."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import driven
from pydantic import TypeAdapter

import sim
from sim.core.content import Content
from sim.core.rng import Luck, mix
from workloads.base import Traffic
from workloads.rewards import graders
from workloads.rewards.base import Case
from workloads.rewards.graders import Graders, Reward

OPTIONS = TypeAdapter(tuple[Reward, ...])


def case(number, samples=1, right=0.5, key=7, content=None, **more):
    """Answer `number`, of prompts with so many samples; how right they are is a share, or said."""
    luck = Luck(mix(key, number))
    prompt = number // samples
    known = {} if content is None else {"content": Content((1000 + prompt,), (100,)), "reply": 10**6 + number}
    found = luck.part(99).next() < right
    return Case(prompt, number % samples, prompt, luck, found, False, tokens=200, asked=100, **known)._replace(**more)


@dataclass(kw_only=True)
class Graded(Traffic):
    """`cases` one every `gap` seconds, `samples` of each prompt, a share `right` of them."""

    closed_loop: ClassVar[bool] = True
    cases: int
    gap: float = 0.0
    samples: int = 1
    right: float = 0.5
    contents: bool = False
    rewards: tuple[Reward, ...]

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return graders.problems(values["rewards"])

    @property
    def models(self):
        return graders.models(self.rewards)

    @property
    def sandboxes(self):
        return graders.sandboxes(self.rewards)

    def prepare(self):
        return []

    def expected(self):
        return None

    def drive(self, world):
        graded, waiting = Graders(world, self.rewards, 11), []
        for number in range(self.cases):
            done = world.env.event()
            graded.grade(case(number, self.samples, self.right, content=self.contents or None), done.succeed)
            waiting.append(done)
            if self.gap:
                yield world.env.timeout(self.gap)
        yield world.env.all_of(waiting)


class Entry:
    """An entry point of a plug-in."""

    @staticmethod
    def load():
        return Graded


def known():
    """While this lasts there is a workload of kind graded."""
    return mock.patch("sim.core.registry._plugins", lambda family: {"graded": Entry} if family == "workload" else {})


def scenario(*rewards, cluster=(), seed=1, **options):
    """Grades on an L40S with a small model."""
    return {"model": "Qwen/Qwen2.5-0.5B", "seed": seed, "cluster": {"pools": [{"name": "judges", "gpu": "l40s"}], **dict(cluster)},
            "workloads": [{"kind": "graded", "rewards": list(rewards), **options}]}  # fmt: skip


def run(*rewards, **options):
    """The result of such a scenario, of which the audit has nothing to say, and its grades in order of cases."""
    with known():
        result = sim.run(sim.loads(scenario(*rewards, **options)))
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    return result, in_order(result.tables)


def in_order(tables):
    return tables["rl_grades"].to_pandas().sort_values(["group", "number"], ignore_index=True)


class Bare:
    """A world without a cluster, and the graders in it: `grade` a case at a time, `end` and read the rows."""

    def __init__(self, *rewards, world=None):
        self.world = world or driven.World()
        self.env = self.world.env
        self.graders = Graders(self.world, OPTIONS.validate_python(list(rewards)), 11)
        self.verdicts, self.gradings = {}, {}

    def grade(self, at, case):
        """A case that comes at a time, by its group and number."""
        self.at(at, lambda: self._grade(case))
        return self

    def at(self, at, call):
        self.env.timeout(at).callbacks.append(lambda _: call())
        return self

    def cancel(self, at, place):
        return self.at(at, lambda: self.gradings[place].cancel())

    def _grade(self, case):
        place = case.group, case.number
        self.gradings[place] = self.graders.grade(case, lambda verdict: self.verdicts.setdefault(place, verdict))
        assert place not in self.verdicts

    def end(self, until=None):
        """The rows after the world has gone on to its end, or to a time."""
        self.env.run(until)
        for close in self.world.closed:
            close()
        return in_order(self.world.tables)
