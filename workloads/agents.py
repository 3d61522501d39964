"""Agents: sessions that are programs. A user's message starts LLM calls that ask for tools or for sub-agents, until there is an answer.

Sessions come as a Poisson process (`rate`, per second), or from `concurrency` users who begin the next when one is over. All within a
session waits for what came before it: answers, tools, sandboxes, sub-agents, its user. Turns, lengths, times and outcomes of tools are
drawn from the session's own luck, so that the k-th session is the same whatever the cluster does.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from sim.core.errors import BadInput, did_you_mean
from sim.core.registry import FILE
from sim.core.units import CENTURY
from sim.spec.law import Amounts, Times
from workloads._crew import Crew, needless
from workloads.base import BLOCK, Client, Clients, Count, NonNegativeSeconds, PositiveSeconds, Rate
from workloads.programs import checks, never, presets, python
from workloads.programs.base import Program, Role
from workloads.programs.checks import Whole
from workloads.programs.declared import Declared
from workloads.programs.mix import Mix
from workloads.programs.options import ONE, ZERO, Kind, Weight
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
    of them; one of the two is needed. `mix`, in place of `agent`: several kinds that sessions begin with, and the share of each.
    """

    rate: Rate | None = None
    concurrency: Clients | None = None
    start: NonNegativeSeconds = 0.0
    num_sessions: Count | None = None
    duration: PositiveSeconds | None = None
    turns: Amounts = ONE
    think_time: Times = ZERO
    mix: dict[str, Weight] = field(default_factory=dict)
    program: Annotated[str | None, FILE] = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def complete(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super().complete(options)
        if isinstance(options.get("preset"), str) and options.get("agent") is not None and "mix" not in options:
            found = presets.alone(found, options["agent"], options.get("agents") or ())
        if options.get("preset") is not None and options.get("turns") == 1 and "think_time" not in options:
            # Of a preset's conversation one message is wanted: its time to think is not.
            found.pop("think_time", None)
        return found

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
            mixed = [name for name, share in values["mix"].items() if share]
            if mixed and values["agent"] is not None:
                yield "mix", "agent says which kind sessions begin with; write one of the two"
            for name in mixed:
                if name not in values["agents"]:
                    yield f"mix.{name}", f"there is no agent '{name}'; {did_you_mean(name, values['agents'])}"
            if values["mix"] and not mixed:
                yield "mix", "all shares are 0; one above 0 is wanted"
            first = values["agent"] if values["agent"] is not None else next(iter(mixed or values["agents"]))
            begun = [values["agents"][name] for name in mixed or [first] if name in values["agents"]]
            if begun:
                yield from _turns(values, begun)
            if not mixed or first in values["agents"]:
                yield from checks.problems(Whole(first, values["agents"], values["tools"], values["apis"], mixed=tuple(mixed[1:])))
            return
        for key, silent in (("turns", ONE), ("think_time", ZERO), ("agent", None), ("mix", {})):
            if values[key] != silent:
                yield key, "not used here: the program says what a session does"
        yield from checks.problems(Whole("", values["agents"], values["tools"], values["apis"]))
        try:
            python.made(values["program"], values["options"])
        except BadInput as error:
            for problem in error.problems:
                yield problem.path, f"{problem.message} ({problem.file}, line {problem.line})" if problem.line else problem.message

    @property
    def closed_loop(self) -> bool:
        return self.concurrency is not None

    @property
    def models(self) -> Mapping[str, str]:
        role = self._role
        return {**super().models, **({"program": role.model} if role is not None and role.model else {})}

    @property
    def sandboxes(self) -> Mapping[str, str]:
        role = self._role
        return {**super().sandboxes, **({"program": role.sandbox.pool} if role is not None and role.sandbox is not None else {})}

    @property
    def _role(self) -> Role | None:
        """What surrounds the program, where there is one."""
        return None if self.program is None else python.made(self.program, self.options).role

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        programs: dict[str, Program] = {name: Declared(name, self.agents, self.tools) for name in self.agents}
        if self.program is not None:
            mix = Mix([python.made(self.program, self.options)], [1.0])
        else:
            shares = {name: share for name, share in self.mix.items() if share} or {self.first: 1.0}
            for name in shares:
                programs[name] = Declared(name, self.agents, self.tools, (self.turns, self.think_time))
            mix = Mix([programs[name] for name in shares], list(shares.values()))
        shared = Shared(world, programs, self.tools, self.apis)
        if self.start > world.env.now:
            yield world.env.timeout(self.start - world.env.now)
        numbers = iter(range(self.num_sessions or 10**9))
        if self.concurrency is not None:
            users = min(self.concurrency, self.num_sessions or self.concurrency)
            yield world.env.all_of([world.env.process(self._user(shared, numbers, mix)) for _ in range(users)])
            return
        running: list[Any] = []
        for number, at in zip(numbers, self._times(world.rng("arrivals")), strict=False):
            if self.duration is not None and at >= self.duration:
                break
            if self.start + at > world.env.now:
                yield world.env.timeout(self.start + at - world.env.now)
            running = [one for one in running if one.is_alive] if len(running) >= BLOCK else running
            running.append(shared.begin(number, mix.of(shared.luck(number))).process)
        yield world.env.all_of(running)

    def _user(self, shared: Shared, numbers: Iterator[int], mix: Mix) -> Generator[Any, Any, None]:
        env, first = shared.env, True
        for number in numbers:
            began = env.now
            away = 0.0 if first else self.think_time.at(shared.luck(number).part(BEFORE).next())
            if away:
                yield env.timeout(away)
            first = False
            yield shared.begin(number, mix.of(shared.luck(number))).process
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


def _turns(values: Mapping[str, Any], begun: Sequence[Kind]) -> Iterator[tuple[str, str]]:
    """What is said of turns that nobody has; sessions begin with the kinds in `begun`."""
    if values["turns"] != ONE:
        yield from never.count("turns", values["turns"])
        if all(kind.turns is not None for kind in begun):
            yield "turns", "not used here: each kind of agent that sessions begin with has turns of its own"
    most = max((kind.turns or values["turns"]).whole(1.0) for kind in begun)
    if values["think_time"] != ZERO and values["concurrency"] is None and most <= 1:
        yield "think_time", "not used here: a session has one turn; say turns, or leave it out"


def _arrivals(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if values["num_sessions"] is None and values["duration"] is None:
        yield "", "neither num_sessions nor duration is given, so this traffic would never end; give one of them (or both)"
    elif values["duration"] is None and values["rate"] and values["num_sessions"] / values["rate"] > CENTURY:
        yield "rate", f"found {values['rate']:g}; at that rate {values['num_sessions']} sessions take more than 100 years"
    if (values["rate"] is None) == (values["concurrency"] is None):
        found = "neither" if values["rate"] is None else "both"
        yield "", f"found {found} of rate (sessions per second) and concurrency (users); exactly one of them is wanted"
