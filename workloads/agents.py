"""Agents: sessions that are programs. A user's message starts LLM calls that ask for tools or for sub-agents, until there is an answer.

Sessions come as a Poisson process (`rate`, per second), or from `concurrency` users who begin the next when one is over. All within a
session waits for what came before it: answers, tools, sandboxes, sub-agents, its user. Turns, lengths, times and outcomes of tools are
drawn from the session's own luck, so that the k-th session is the same whatever the cluster does.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from sim.core.errors import BadInput
from sim.core.registry import FILE
from sim.core.units import CENTURY
from sim.spec.law import Amounts, Times
from workloads._crew import Crew, needless
from workloads.base import BLOCK, Client, Clients, Count, NonNegativeSeconds, PositiveSeconds, Rate
from workloads.programs import checks, presets, python
from workloads.programs.base import Program
from workloads.programs.checks import Whole
from workloads.programs.declared import Declared
from workloads.programs.options import ONE, ZERO
from workloads.programs.shared import Shared

BACK = 1.0
# The part of a session's luck that says how long its user was away before it began.
BEFORE = 5_000_000


@dataclass(kw_only=True)
class Agents(Crew):
    """`turns`: messages of a user in a session, the others `think_time` after the answer. `agent`: the kind of agent that sessions begin
    with, by default the first of `agents`. `tools` that these have, and services outside (`apis`) with a quota that tools go through.

    `preset`: all of that ready made; what is written here goes before it. `program: path.py:Class`, with its `options`, takes the place of
    `agent` and `turns`: what a session does is then written in Python. Sessions begin in [start, start + duration), at most `num_sessions`
    of them; one of the two is needed.
    """

    rate: Rate | None = None
    concurrency: Clients | None = None
    start: NonNegativeSeconds = 0.0
    num_sessions: Count | None = None
    duration: PositiveSeconds | None = None
    turns: Amounts = ONE
    think_time: Times = ZERO
    program: Annotated[str | None, FILE] = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from _arrivals(values)
        yield from needless(values)
        if values["program"] is None:
            if values["options"]:
                yield "options", "not used here: there is no program"
            if not values["agents"]:
                near = ", ".join(presets.names())
                yield "agents", f"missing; say what agents do, or take a preset ({near}), or a program: path.py:Class"
                return
            first = values["agent"] if values["agent"] is not None else next(iter(values["agents"]))
            yield from checks.problems(Whole(first, values["agents"], values["tools"], values["apis"]))
            return
        for key, silent in (("turns", ONE), ("think_time", ZERO), ("agent", None)):
            if values[key] != silent:
                yield key, "not used here: the program says what a session does"
        try:
            python.made(values["program"], values["options"])
        except BadInput as error:
            yield from ((problem.path, problem.message) for problem in error.problems)

    @property
    def closed_loop(self) -> bool:
        return self.concurrency is not None

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        programs: dict[str, Program] = {name: Declared(name, self.agents, self.tools) for name in self.agents}
        if self.program is not None:
            first: Program = python.made(self.program, self.options)
        else:
            first = programs[self.first] = Declared(self.first, self.agents, self.tools, (self.turns, self.think_time))
        shared = Shared(world, programs, self.tools, self.apis)
        if self.start > world.env.now:
            yield world.env.timeout(self.start - world.env.now)
        numbers = iter(range(self.num_sessions or 10**9))
        if self.concurrency is not None:
            users = min(self.concurrency, self.num_sessions or self.concurrency)
            yield world.env.all_of([world.env.process(self._user(shared, numbers, first)) for _ in range(users)])
            return
        running: list[Any] = []
        for number, at in zip(numbers, self._times(world.rng("arrivals")), strict=False):
            if self.duration is not None and at >= self.duration:
                break
            if self.start + at > world.env.now:
                yield world.env.timeout(self.start + at - world.env.now)
            running = [one for one in running if one.is_alive] if len(running) >= BLOCK else running
            running.append(shared.begin(number, first).process)
        yield world.env.all_of(running)

    def _user(self, shared: Shared, numbers: Iterator[int], program: Program) -> Generator[Any, Any, None]:
        env, first = shared.env, True
        for number in numbers:
            began = env.now
            away = 0.0 if first else self.think_time.at(shared.luck(number).part(BEFORE).next())
            if away:
                yield env.timeout(away)
            first = False
            yield shared.begin(number, program).process
            if env.now == began:
                # Else users who are always turned away at once would come back without end in one instant.
                yield env.timeout(BACK)
            if self.duration is not None and env.now >= self.start + self.duration:
                return

    def _times(self, rng: np.random.Generator) -> Iterator[float]:
        """Times of a Poisson process after `start`."""
        now = 0.0
        assert self.rate is not None
        while True:
            times = now + np.cumsum(rng.standard_exponential(BLOCK) / self.rate)
            yield from times.tolist()
            now = times[-1]


def _arrivals(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if values["num_sessions"] is None and values["duration"] is None:
        yield "", "neither num_sessions nor duration is given, so this traffic would never end; give one of them (or both)"
    elif values["duration"] is None and values["rate"] and values["num_sessions"] / values["rate"] > CENTURY:
        yield "rate", f"found {values['rate']:g}; at that rate {values['num_sessions']} sessions take more than 100 years"
    if (values["rate"] is None) == (values["concurrency"] is None):
        found = "neither" if values["rate"] is None else "both"
        yield "", f"found {found} of rate (sessions per second) and concurrency (users); exactly one of them is wanted"
