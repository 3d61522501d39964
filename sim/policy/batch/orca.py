"""Orca: iteration-level scheduling with selective batching. Prompts join the running batch whole, beside decoders, first come first served.

Yu et al., Orca (OSDI 2022), Algorithm 1: a step's batch is bounded by the number of requests (max_num_seqs), not by tokens; the prompts of
a step together stay within max_num_batched_tokens here, which is what activations have room for. Orca reserves the keys and values of a
request's longest possible answer on admission, so that nobody is ever preempted: that is `paged: false`. With a paged cache it preempts
like vllm_v1.
"""
from __future__ import annotations

import dataclasses
from typing import ClassVar

from sim.policy.batch._continuous import WHOLE, Continuous, beside_decoders
from sim.policy.batch.base import Limits, Plan, Queue
from sim.policy.kv.base import KvCache


@dataclasses.dataclass
class Orca(Continuous):
    """Whole prompts beside decoders."""

    refuses: ClassVar = WHOLE

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        whole = limits._replace(enable_chunked_prefill=False, long_prefill_token_threshold=0)
        return beside_decoders(self, queue, kv, whole, limits.max_num_batched_tokens)
