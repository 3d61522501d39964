"""A closed loop: `concurrency` clients, each sending its next request when the last one has ended.

This is what benchmarks do with a concurrency limit: the load bends to the speed of the cluster, so it can never be overloaded.
"""
from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from sim.core.content import Content
from sim.core.registry import LENGTHS
from workloads._prefixes import beginnings, cut
from workloads.base import Client, Clients, Count, NonNegativeSeconds, Traffic, pairs, prepared


@dataclass(kw_only=True)
class Closed(Traffic):
    """`num_requests` in all. `think_time`: pause between an answer and the client's next request. A rejected request counts as sent.

    `prefixes`: after the shared prefix, a prompt has one of several beginnings; both are part of its length.
    """

    closed_loop: ClassVar[bool] = True
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
        starts = None if self.prefixes is None else beginnings(world, self.shared_prefix, self.prefixes)
        clients = min(self.concurrency, self.num_requests)
        yield world.env.all_of([world.env.process(self._client(world, turns, lengths, starts)) for _ in range(clients)])

    def _client(
        self, world: Client, turns: Iterator[int], lengths: Iterator[tuple[int, int]], starts: Iterator[Content] | None
    ) -> Generator[Any, Any, None]:
        first = True
        for _ in turns:
            if self.think_time and not first:
                yield world.env.timeout(self.think_time)
            first = False
            prompt, output = next(lengths)
            content = None if starts is None else cut(next(starts), prompt)
            yield world.call(world.request(prompt, output, content=content))
