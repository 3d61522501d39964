"""vLLM V0's scheduler: while somebody waits and fits, a step computes whole prompts and nothing else; decoders pause. Else all decode.

vLLM 0.2 to 0.8 without chunked prefill (`Scheduler._schedule_default`): the shortest time to first token, at the price of gaps between
the tokens of those who decode. Admission leaves a `watermark` of the blocks free (there 0.01), and here also what the decoders need next,
so that nobody is admitted to be preempted at once; an empty engine admits whatever fits. When the decoders' next tokens do not fit, the
order's victim is preempted.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from pydantic import Field

from sim.policy.batch._continuous import WHOLE, Continuous, admitted, deadlocked
from sim.policy.batch.base import Limits, Plan, Queue
from sim.policy.kv.base import KvCache


@dataclasses.dataclass
class PrefillFirst(Continuous):
    """`watermark`: share of the KV blocks that admission leaves free."""

    refuses: ClassVar = WHOLE

    watermark: Annotated[float, Field(ge=0, lt=1)] = 0.01

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        needed = queue.next_blocks()
        if needed > kv.free:
            return Plan([], [self.order.victim(queue.running)])
        if not queue.admit:
            return Plan([], [])
        whole = limits._replace(enable_chunked_prefill=False, long_prefill_token_threshold=0)
        kept = max(needed, int(self.watermark * kv.blocks)) if queue.running else 0
        chunks = admitted(queue, kv, whole, (limits.max_num_batched_tokens, limits.max_num_batched_tokens, kept))
        stuck = deadlocked(queue, chunks)
        return Plan([], stuck) if stuck else Plan(chunks, [], decode=not any(tokens for _, tokens in chunks))
