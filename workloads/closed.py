"""A closed loop: `concurrency` clients, each sending its next request when the last one has ended.

This is what benchmarks do with a concurrency limit: the load bends to the speed of the cluster, so it can never be overloaded.
"""
from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from sim.core.registry import LENGTHS
from workloads.base import Cached, Client, Clients, Count, NonNegativeSeconds, pairs, prepared


@dataclass(kw_only=True)
class Closed:
    """`num_requests` in all. `think_time`: pause between an answer and the client's next request. A rejected request counts as sent."""

    closed_loop: ClassVar[bool] = True
    name: str = ""
    cached_prefix: Cached = 0
    lengths: Annotated[Any, LENGTHS]
    concurrency: Clients
    num_requests: Count
    think_time: NonNegativeSeconds = 0.0
    start: NonNegativeSeconds = 0.0

    def prepare(self) -> list[str]:
        return prepared(self.lengths)

    def expected(self) -> int | None:
        return self.num_requests

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        if self.start > world.env.now:
            yield world.env.timeout(self.start - world.env.now)
        turns = iter(range(self.num_requests))
        lengths = pairs(self.lengths, world.rng("lengths"))
        clients = min(self.concurrency, self.num_requests)
        yield world.env.all_of([world.env.process(self._client(world, turns, lengths)) for _ in range(clients)])

    def _client(self, world: Client, turns: Iterator[int], lengths: Iterator[tuple[int, int]]) -> Generator[Any, Any, None]:
        first = True
        for _ in turns:
            if self.think_time and not first:
                yield world.env.timeout(self.think_time)
            first = False
            prompt, output = next(lengths)
            yield world.call(world.request(prompt, output))
