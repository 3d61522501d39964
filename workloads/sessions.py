"""Conversations of several turns: each prompt is all that was said before and a new message, and the user waits for the answer.

Sessions come as a Poisson process (`rate`, sessions per second), which can overload a cluster, or from `concurrency` users who begin the
next session when one is over. Within a session the loop is closed: an answer, a pause, the next message. The k-th session to begin is the
same whatever the cluster does: its turns, lengths and pauses are drawn when it begins.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sim.core.content import Content
from sim.core.registry import LENGTHS
from sim.core.units import CENTURY
from workloads._prefixes import beginnings, longer
from workloads.base import (
    BLOCK,
    Client,
    Clients,
    Count,
    NonNegativeSeconds,
    PositiveSeconds,
    Rate,
    Samples,
    Traffic,
    pairs,
    prepared,
)

BACK = 1.0
Turns = Annotated[float, Field(ge=1, le=1e4)]
Sigma = Annotated[float, Field(ge=0, le=5)]


class Draws(NamedTuple):
    """What sessions are drawn from, all without end: beginnings, (message, answer) tokens, numbers of turns, pauses."""

    starts: Iterator[Content]
    lengths: Iterator[tuple[int, int]]
    turns: Iterator[int]
    pauses: Iterator[float]


@dataclass(kw_only=True)
class Sessions(Traffic):
    """`lengths`: `input` is a user's message, without what comes before it, and `output` the answer.

    `turns`: messages of a session, on average with `turns_law: geometric` and always so many with `fixed`. `think_time`: mean pause between
    an answer and the next message, lognormal with standard deviation `think_sigma` of the logarithm; 0: always the same. A session begins
    with `shared_prefix` tokens, then one of `prefixes`; they come on top of the message. It ends early where prompt and answer would exceed
    `max_context`, and when a request is turned away; a user whose session was over at once comes back after a second. `samples`: each
    prompt is sent so many times at once; the user waits for all answers and goes on from the first. Sessions begin in [start, start +
    duration), at most `num_sessions` of them; one of the two is needed.
    """

    samples: Samples = 1
    lengths: Annotated[Any, LENGTHS]
    turns: Turns
    turns_law: Literal["geometric", "fixed"] = "geometric"
    rate: Rate | None = None
    concurrency: Clients | None = None
    think_time: NonNegativeSeconds = 0.0
    think_sigma: Sigma = 0.0
    max_context: Count | None = None
    start: NonNegativeSeconds = 0.0
    num_sessions: Count | None = None
    duration: PositiveSeconds | None = None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values["num_sessions"] is None and values["duration"] is None:
            yield "", "neither num_sessions nor duration is given, so this traffic would never end; give one of them (or both)"
        elif values["duration"] is None and values["rate"] and values["num_sessions"] / values["rate"] > CENTURY:
            yield "rate", f"found {values['rate']:g}; at that rate {values['num_sessions']} sessions take more than 100 years"
        if (values["rate"] is None) == (values["concurrency"] is None):
            found = "neither" if values["rate"] is None else "both"
            yield "", f"found {found} of rate (sessions per second) and concurrency (users); exactly one of them is wanted"
        if values["turns_law"] == "fixed" and values["turns"] != int(values["turns"]):
            yield "turns", f"found {values['turns']:g}; with turns_law: fixed a whole number is wanted"
        if values["think_sigma"] and not values["think_time"]:
            yield "think_sigma", "not used here: think_time is 0"
        front = values["shared_prefix"] + (values["prefixes"].tokens if values["prefixes"] else 0)
        if values["max_context"] is not None and front + 2 > values["max_context"]:
            yield "max_context", f"found {values['max_context']}; the {front} tokens every session begins with leave no room for a turn"

    @property
    def closed_loop(self) -> bool:
        return self.concurrency is not None

    def prepare(self) -> list[str]:
        return prepared(self.lengths)

    def expected(self) -> int | None:
        return None

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        if self.start > world.env.now:
            yield world.env.timeout(self.start - world.env.now)
        starts = beginnings(world, self.shared_prefix, self.prefixes)
        draws = Draws(starts, pairs(self.lengths, world.rng("lengths")), self._turns(world), self._pauses(world))
        process, numbers = world.env.process, iter(range(self.num_sessions or 10**9))
        if self.concurrency is None:
            running: list[Any] = []
            for number, at in zip(numbers, self._arrivals(world), strict=False):
                if self.duration is not None and at >= self.duration:
                    break
                if self.start + at > world.env.now:
                    yield world.env.timeout(self.start + at - world.env.now)
                running = [one for one in running if one.is_alive] if len(running) >= BLOCK else running
                running.append(process(self._session(world, number, draws, False)))
        else:
            users = min(self.concurrency, self.num_sessions or self.concurrency)
            running = [process(self._user(world, numbers, draws)) for _ in range(users)]
        yield world.env.all_of(running)

    def _user(self, world: Client, numbers: Iterator[int], draws: Draws) -> Generator[Any, Any, None]:
        first = True
        for number in numbers:
            began = world.env.now
            yield from self._session(world, number, draws, not first)
            first = False
            if world.env.now == began:
                # Else users who are always turned away at once would come back without end in one instant.
                yield world.env.timeout(BACK)
            if self.duration is not None and world.env.now >= self.start + self.duration:
                return

    def _session(self, world: Client, number: int, draws: Draws, pause: bool) -> Generator[Any, Any, None]:
        """One conversation; with `pause`, the user thinks before its first message too."""
        turns = next(draws.turns)
        lengths, pauses = list(islice(draws.lengths, turns)), list(islice(draws.pauses, turns))
        content = next(draws.starts)
        said = content.ends[-1] if content.ends else 0
        ahead = sum(answer for _, answer in lengths)
        key = world.keys(turns * (self.samples + 1))
        for turn, (message, answer) in enumerate(lengths):
            prompt = said + message
            if self.max_context is not None and prompt + answer > self.max_context:
                return
            if pauses[turn] and (turn or pause):
                yield world.env.timeout(pauses[turn])
            # The first key of a turn is that of its message, the others are those of the answers.
            first = key + turn * (self.samples + 1)
            content = longer(content, first, prompt)
            sent = [world.request(prompt, answer, number, content, first + sample) for sample in range(1, self.samples + 1)]
            ahead -= answer
            for request in sent:
                request.ahead = ahead
                if turn + 1 < turns:
                    request.pause = self.think_time
            calls = [world.call(request) for request in sent]
            yield calls[0] if self.samples == 1 else world.env.all_of(calls)
            if any(call.value.generated < call.value.output for call in calls):
                return
            said = prompt + answer
            content = longer(content, first + 1, said)

    def _arrivals(self, world: Client) -> Iterator[float]:
        """Times of a Poisson process after `start`."""
        rng, now = world.rng("arrivals"), 0.0
        assert self.rate is not None
        while True:
            times = now + np.cumsum(rng.standard_exponential(BLOCK) / self.rate)
            yield from times.tolist()
            now = times[-1]

    def _turns(self, world: Client) -> Iterator[int]:
        rng = world.rng("turns")
        while True:
            if self.turns_law == "fixed":
                yield int(self.turns)
            else:
                yield from rng.geometric(1 / self.turns, BLOCK).tolist()

    def _pauses(self, world: Client) -> Iterator[float]:
        rng, sigma = world.rng("pauses"), self.think_sigma
        while True:
            # The mean of exp(sigma z) is exp(sigma^2 / 2).
            yield from (self.think_time * np.exp(sigma * rng.standard_normal(BLOCK) - sigma * sigma / 2)).tolist()
