"""A service as the sum of its clients: few of them send most of the requests, and each has a rate, a burstiness and lengths of its own.

Production traffic of language models is made so (ServeGen, arXiv:2505.09999): a handful of clients, often programs, cause both the bulk and
the bunches, which no single law of gaps reproduces. Every client is a stationary renewal process of its own, run on the clock of its rate
(`_rate.py`), so their sum has exactly the mean rate asked for, and over long windows a Fano factor near sum of share * cv^2.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sim.core.errors import BadInput
from sim.core.registry import LENGTHS
from workloads._clients import Member, Sizes, merged
from workloads._days import PER_HOUR, STEP, Clock, Noise, around, clock, smooth
from workloads._rate import Pattern, Pieces, gaps, in_blocks, paced, points, swings, swung, unfit, until
from workloads.base import BLOCK, OpenLoop, Rate, Variation, needs_an_end, prepared
from workloads.presets import services


@dataclass(kw_only=True)
class Clients(OpenLoop):
    """`rate`: mean requests per second of all clients together, by default that of the `preset`. Who they are is one of three:

    `preset`: the clients of a published service, servegen_deepseek_r1, servegen_m_mid or servegen_m_small, with shares, gaps, days and
    lengths of their own. `population`: a list of clients. `count`: so many clients alike but for their rates, which fall as rank to the
    power -`zipf`; `cv`, `gaps_law` and `noise` are those of each. `lengths`: of the clients that have none of their own. `begin`: the time
    of day at `start`.
    """

    lengths: Annotated[Any, LENGTHS] = None
    rate: Rate | None = None
    preset: str | None = None
    population: Annotated[list[Member], Field(min_length=1, max_length=10_000)] | None = None
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    zipf: Annotated[float, Field(ge=0, le=10)] = 1.0
    cv: Variation = 1.0
    gaps_law: Pattern = "gamma"
    noise: Noise | None = None
    begin: Clock = "00:00"
    _members: list[Member] = field(default_factory=list, init=False, repr=False, compare=False)
    _sizes: Sizes | None = field(default=None, init=False, repr=False, compare=False)
    _laws: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from needs_an_end(values)
        ways = ("preset", "population", "count")
        given = [way for way in ways if values[way] is not None]
        if len(given) != 1:
            yield "", f"found {' and '.join(given) or 'none'} of {', '.join(ways)}; exactly one of them says who the clients are"
            return
        [way] = given
        members = values["population"] or []
        if way == "preset" and services.unknown(values["preset"]):
            yield "preset", services.unknown(values["preset"])
        if way != "preset" and values["rate"] is None:
            yield "rate", "missing; the mean rate of all clients together, in requests per second, is wanted"
        if values["lengths"] is None and (way == "count" or any(member.lengths is None for member in members)):
            yield "lengths", "missing; there are clients that have none of their own"
        if way != "count":
            for key in ("zipf", "cv", "gaps_law", "noise"):
                if values[key] != vars(cls)[key]:
                    yield key, f"not used here: it belongs to count; every client of {way} has its own"
        elif unfit(values["gaps_law"], values["cv"]):
            yield "cv", unfit(values["gaps_law"], values["cv"])
        for number, member in enumerate(members):
            yield from ((f"population.{number}.{path}", message) for path, message in _wrong(member))

    def prepare(self) -> list[str]:
        remarks = [] if self.lengths is None else prepared(self.lengths)
        if self.preset is not None:
            self._members, sizes = services.load(self.preset)
            # Lengths given here are those of every client.
            self._sizes = sizes if self.lengths is None else None
        elif self.population is not None:
            self._members = self.population
        else:
            assert self.count is not None
            shares = np.arange(1, self.count + 1, dtype=float) ** -self.zipf
            self._members = [Member(share=share, cv=self.cv, gaps_law=self.gaps_law, noise=self.noise) for share in shares.tolist()]
        self._laws = {}
        for number, member in enumerate(self._members):
            if member.lengths is not None:
                self._laws[number] = LENGTHS.make(LENGTHS.check(member.lengths)[0])
                try:
                    remarks += self._laws[number].prepare()
                except BadInput as error:
                    where = f"population.{number}.lengths"
                    raise BadInput([problem._replace(path=f"{where}.{problem.path}".rstrip(".")) for problem in error.problems]) from None
        return remarks

    def mean_rates(self) -> np.ndarray:
        """Requests per second of each client. Only after `prepare`."""
        shares = np.array([member.share for member in self._members])
        total = services.rate(self.preset) if self.rate is None and self.preset is not None else self.rate
        assert total is not None
        return np.asarray(total * shares / shares.sum())

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return (times for times, _ in self.sent(rng))

    def sent(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rates = self.mean_rates()
        blocks = np.clip(np.rint(BLOCK * rates / rates.sum()), 64, BLOCK).astype(int)
        each = zip(rng.spawn(len(rates)), self._members, rates.tolist(), blocks.tolist(), strict=True)
        streams = [self._stream(*one) for one in each]
        # Every client costs a little in each span, so many of them want long ones.
        span = max(8 * BLOCK, 50 * len(rates)) / float(rates.sum())
        for times, who in in_blocks(merged(streams, span)):
            yield times, who.astype(np.int64)

    def sizes(self, rng: np.random.Generator, senders: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert senders is not None
        if self._sizes is not None:
            return self._sizes.draw(rng, senders)
        prompts, outputs = self.lengths.draw(rng, BLOCK) if self.lengths is not None else np.ones((2, BLOCK), dtype=np.int64)
        for number, law in self._laws.items():
            # Whole blocks for everyone: whose turn it is must not move the draws of the others.
            drawn, own = law.draw(rng, BLOCK), np.flatnonzero(senders == number)
            prompts[own], outputs[own] = drawn[0][own], drawn[1][own]
        return prompts, outputs

    def _stream(self, rng: np.random.Generator, member: Member, rate: float, block: int) -> Iterator[tuple[np.ndarray, float]]:
        """The arrivals of one client, as `merged` takes them."""
        process = points(rng, gaps(member.gaps_law, member.cv), block)
        return paced(process, until(self.pieces(rng, member, rate), self.duration))

    def pieces(self, rng: np.random.Generator, member: Member, rate: float) -> Pieces:
        """The rate of one client from `start` on, without end."""
        if member.hours is None and member.noise is None:
            return _steady(rate)
        cycle = np.ones(24 * PER_HOUR) if member.hours is None else smooth(member.hours)
        pieces = around(rate * cycle, clock(self.begin))
        if member.noise is None:
            return pieces
        # A stream of its own: how many points there are must not move the swings.
        return swung(pieces, swings(rng.spawn(1)[0], member.noise.sigma, member.noise.memory, STEP))


def _steady(rate: float) -> Pieces:
    while True:
        yield np.array([BLOCK / rate]), np.array([rate])


def _wrong(member: Member) -> Iterable[tuple[str, str]]:
    """What is wrong with one client, the paths relative to it."""
    if unfit(member.gaps_law, member.cv):
        yield "cv", unfit(member.gaps_law, member.cv)
    if member.hours is not None and not sum(member.hours):
        yield "hours", "all are zero; at least one above zero is wanted"
    if member.lengths is not None:
        for problem in LENGTHS.check(member.lengths)[1]:
            yield f"lengths.{problem.path}".rstrip("."), problem.message
