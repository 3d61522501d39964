"""vLLM V1's scheduler: running requests first, then first come first served; chunked prefill; newest-first preemption by recompute.

Order of a step: every decoder gets its token, prompts under way continue in order of admission, and the head of the queue is admitted while
budget, seats and blocks last. When the running requests' next tokens do not fit in the cache, the newest of them is preempted, whether it
decodes or is partly prefilled.
"""
from __future__ import annotations

import dataclasses

from sim.core.request import Request
from sim.policy.batch.base import Limits, Plan, Queue
from sim.policy.kv.base import KvCache


@dataclasses.dataclass
class VllmV1:
    """The default batcher. Its limits are the engine's own options, so it has no fields."""

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        budget = limits.max_num_batched_tokens - queue.decoders
        longest = limits.long_prefill_token_threshold or limits.max_num_batched_tokens
        chunks: list[tuple[Request, int]] = []
        blocks = queue.next_blocks()
        for request in queue.prefilling:
            tokens = min(request.prompt + request.generated - request.computed, longest, budget)
            if tokens <= 0:
                break
            chunks.append((request, tokens))
            budget -= tokens
            blocks += kv.need(request, tokens)
        if blocks > kv.free:
            return Plan([], [next(reversed(queue.running.values()))])
        if queue.admit and len(chunks) == len(queue.prefilling):
            self._admit(queue, kv, limits, chunks, (budget, longest, kv.free - blocks))
        return Plan(chunks, [])

    def _admit(
        self, queue: Queue, kv: KvCache, limits: Limits, chunks: list[tuple[Request, int]], room: tuple[int, int, int]
    ) -> None:
        budget, longest, free = room
        seats = limits.max_num_seqs - len(queue.running)
        for request in queue.waiting:
            if seats <= 0 or budget <= 0:
                break
            tokens = min(request.prompt + request.generated - request.computed, longest)
            if tokens > budget:
                if not limits.enable_chunked_prefill:
                    break
                tokens = budget
            blocks = kv.need(request, tokens)
            if blocks > free:
                break
            free -= blocks
            budget -= tokens
            seats -= 1
            chunks.append((request, tokens))
