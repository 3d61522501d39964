"""The adapters of one replica: which are on the GPUs, which in the host's memory, and who of those that wait may run.

As vLLM keeps them: `max_loras` slots on the GPUs, so many different adapters at most among the running requests; one that is needed takes
the slot that was used least recently, and the engine waits for its copy before the step. `max_cpu_loras` are kept in the host's memory, in
the same order; the others are read from storage first. Both keep the most recently used, so that what has a slot is in the host's memory.
"""
from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence

from sim.core.record import Table
from sim.core.request import Request
from sim.core.rng import Keyed, mix
from sim.physics.lora import LoraCost
from sim.spec.lora import Lora

SLOT, HOST, STORAGE = range(3)


class Adapters:
    """`active` counts the running requests of each adapter in use; the idle ones wait in order of last use."""

    __slots__ = ("_cost", "_host", "_index", "_lora", "_slots", "_table", "_tokens", "active", "running")

    def __init__(self, lora: Lora, cost: LoraCost, queries: int, record: tuple[int, Table]):
        self._lora, self._cost, self._tokens = lora, cost, queries
        self._index, self._table = record
        self.active: Counter[int] = Counter()
        self.running = 0
        self._slots: OrderedDict[int, None] = OrderedDict()
        self._host: OrderedDict[int, None] = OrderedDict()

    def room(self, adapter: int, beside: Collection[int]) -> bool:
        """Whether a request of this adapter (-1: none) may run with those running and those of the adapters `beside`."""
        active = self.active
        if adapter < 0 or adapter in active or adapter in beside:
            return True
        return len(active) + sum(other not in active for other in beside) < self._lora.max_loras

    def enter(self, request: Request, now: float) -> float:
        """A request runs from now on; returns the seconds that its engine waits for the adapter."""
        adapter = request.adapter
        if adapter < 0:
            return 0.0
        seconds, source = 0.0, SLOT
        if adapter not in self.active:
            source = SLOT if adapter in self._slots else HOST if adapter in self._host else STORAGE
            seconds = (0.0, self._cost.load, self._cost.load + self._cost.read)[source]
            _take(self._slots, adapter, self._lora.max_loras - len(self.active))
            _take(self._host, adapter, self._lora.kept - len(self.active))
        self.active[adapter] += 1
        self.running += 1
        self._table.append((request.id, adapter, self._index, now, source, seconds))
        return seconds

    def leave(self, request: Request) -> None:
        """A request runs no more."""
        adapter = request.adapter
        if adapter < 0:
            return
        self.running -= 1
        self.active[adapter] -= 1
        if not self.active[adapter]:
            del self.active[adapter]
            self._slots[adapter] = self._host[adapter] = None

    def seconds(self, chunks: Sequence[tuple[Request, int]], prefilling: Sequence[Request], decode: bool) -> float:
        """What the adapters add to a step with these chunks, and with all decoders where they `decode`.

        The prompts under way are `prefilling`, or new and among the chunks; those without a chunk take no part.
        """
        if not chunks and not prefilling:
            return self._cost.seconds(self._tokens * self.running, len(self.active))
        own = {request.order: request.adapter for request, _ in chunks if request.adapter >= 0}
        tokens = sum(n for request, n in chunks if request.adapter >= 0)
        if not decode:
            return self._cost.seconds(tokens, len(set(own.values())))
        still = Counter(request.adapter for request in prefilling if request.adapter >= 0 and request.order not in own)
        decoders = self.running - len(own) - still.total()
        unused = sum(self.active[adapter] == count for adapter, count in still.items())
        return self._cost.seconds(tokens + self._tokens * decoders, len(self.active) - unused)

    def plainly(self, chunks: Sequence[tuple[Request, int]], decoding: Sequence[Request]) -> float:
        """The same from first principles: every token of the step counted."""
        taking = [*((request, self._tokens) for request in decoding), *chunks]
        own = [(request.adapter, n) for request, n in taking if request.adapter >= 0]
        return self._cost.seconds(sum(n for _, n in own), len({adapter for adapter, _ in own}))


class Wanted:
    """Which adapter each request of one workload asks for: the first of `numbers` whose entry of `chances`, ascending, is above a draw.

    A session keeps its adapter. The name of what a prompt begins with carries the adapter, so that those of different adapters never
    match in a cache, as vLLM puts the adapter into the hash of a prompt's first block and thereby of all.
    """

    __slots__ = ("_chances", "_count", "_draws", "_numbers")

    def __init__(self, chances: Sequence[float], numbers: Sequence[int], draws: Keyed):
        self._chances, self._numbers, self._draws = chances, numbers, draws
        self._count = 0

    def put_on(self, request: Request) -> None:
        """Draw the request's adapter."""
        if request.session >= 0:
            luck = self._draws.at(request.session, 1, 1)
        else:
            luck = self._draws.at(self._count, 0, 1)
            self._count += 1
        place = bisect_right(self._chances, float(luck[0]))
        if place == len(self._numbers):
            return
        request.adapter = adapter = self._numbers[place]
        content = request.content
        if content is not None and content.keys:
            first, *rest = content.keys
            request.content = content._replace(keys=(mix(adapter + 1, first), *rest))
        elif request.reply:
            request.reply = mix(adapter + 1, request.reply)


def _take(idle: OrderedDict[int, None], adapter: int, most: int) -> None:
    """An adapter comes into use; where the idle ones and it are more than `most`, the one used least recently goes."""
    idle.pop(adapter, None)
    if len(idle) >= most:
        idle.popitem(last=False)
