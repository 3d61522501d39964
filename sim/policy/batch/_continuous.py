"""What the batchers that admit at every step have in common: an order of service, and how prompts are fitted into a step.

The functions take a step's state and return what is planned; each batcher says by its arguments in what it differs.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar

from sim.core.registry import ORDERS
from sim.core.request import Request
from sim.policy.batch.base import Limits, Plan, Queue, Waiting
from sim.policy.kv.base import KvCache

# What the batchers that compute prompts whole have no use for.
WHOLE: dict[str, str] = {
    "enable_chunked_prefill": "it computes every prompt whole",
    "long_prefill_token_threshold": "it computes every prompt whole",
}


@dataclasses.dataclass
class Continuous:
    """`order` is a kind of order; it says who is served next and who is preempted."""

    pads: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {}
    needs: ClassVar[Mapping[str, str]] = {}

    order: Annotated[Any, ORDERS] = dataclasses.field(default_factory=lambda: {"kind": "fcfs"})
    overtakes: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.order, Mapping):
            self.order = ORDERS.make(self.order)
        self.overtakes = self.order.overtakes

    def queue(self) -> Waiting:
        waiting: Waiting = self.order.queue()
        return waiting


def beside_decoders(batcher: Continuous, queue: Queue, kv: KvCache, limits: Limits, budget: int) -> Plan:
    """A step in which every decoder gets its token and prompts get `budget` tokens: those under way first, then those admitted.

    When the running requests' next tokens do not fit in the cache, the order's victim is preempted, whether it decodes or is prefilled.
    """
    most = limits.long_prefill_token_threshold or limits.max_num_batched_tokens
    chunks: list[tuple[Request, int]] = []
    kept = blocks = queue.next_blocks()
    for request in queue.prefilling:
        tokens = min(request.prompt + request.generated - request.computed, most, budget)
        if tokens <= 0:
            break
        chunks.append((request, tokens))
        budget -= tokens
        blocks += kv.need(request, tokens)
    if blocks > kv.free:
        return Plan([], [batcher.order.victim(queue.running)])
    for request, tokens in chunks:
        kv.grow(request, tokens)
    if queue.admit and len(chunks) == len(queue.prefilling):
        if queue.ready or queue.waiting:
            chunks += admitted(queue, kv, limits, (budget, most, kept))
        stuck = queue.ready and deadlocked(queue, chunks)
        if stuck:
            return Plan([], stuck)
    return Plan(chunks, [])


def admitted(queue: Queue, kv: KvCache, limits: Limits, room: tuple[int, int, int]) -> list[tuple[Request, int]]:
    """Chunks of those who are let in from the head of the queue while seats, budget and blocks last; their blocks are taken.

    `room` for prompts is the budget in all, the most tokens of one prompt, and the free blocks to be kept.
    Who asks for an adapter that would be one too many is passed over (vLLM V1).
    """
    chunks: list[tuple[Request, int]] = []
    budget, most, kept = room
    seats = limits.max_num_seqs - len(queue.running)
    adapters = queue.adapters if limits.max_loras else None
    beside: set[int] = set()
    for request in chain(queue.ready, queue.waiting) if queue.ready else queue.waiting:
        if seats <= 0 or budget <= 0:
            break
        if adapters is not None and not adapters.room(request.adapter, beside):
            continue
        if request.order < 0:
            request.computed = kv.find(request)
        tokens = min(request.prompt + request.generated - request.computed, most) if not request.fetch else 0
        if tokens > budget:
            if not limits.enable_chunked_prefill:
                break
            tokens = budget
        if kv.need(request, tokens) > kv.free - kept:
            break
        kv.grow(request, tokens)
        budget -= tokens
        seats -= tokens > 0
        if adapters is not None and request.adapter >= 0 and tokens:
            beside.add(request.adapter)
        chunks.append((request, tokens))
    return chunks


def deadlocked(queue: Queue, chunks: list[tuple[Request, int]]) -> list[Request]:
    """When nobody runs and nobody can start, those that are ready hold each other's blocks: one has to give way."""
    return [queue.ready[-1]] if not chunks and not queue.running and len(queue.ready) > 1 else []
