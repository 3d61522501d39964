"""vLLM V1's scheduler: running requests first, then those that wait, in order; chunked prefill; preemption by recompute.

Order of a step: every decoder gets its token, prompts under way continue in order of admission, and the head of the queue is admitted while
budget, seats and blocks last. When the running requests' next tokens do not fit in the cache, one of them is preempted (first come first
served: the newest), whether it decodes or is partly prefilled.
"""
from __future__ import annotations

import dataclasses

from sim.policy.batch._continuous import Continuous, beside_decoders
from sim.policy.batch.base import Limits, Plan, Queue
from sim.policy.kv.base import KvCache


@dataclasses.dataclass
class VllmV1(Continuous):
    """The default batcher. Its limits are the engine's own options."""

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        return beside_decoders(self, queue, kv, limits, limits.max_num_batched_tokens - queue.decoders * limits.tokens_per_decoder)
