"""Sarathi: every step carries all decoders and a fixed chunk of prompt tokens, so that no prompt stalls decoding for longer than that.

Agrawal et al., SARATHI (2023): prompts are cut into equal chunks and decoders ride along. `chunk_size` bounds the prompt tokens of a step,
of all prompts together; a step as a whole stays within max_num_batched_tokens. Sarathi-Serve (OSDI 2024) has one budget for both: that is
vllm_v1 with max_num_batched_tokens as its chunk size.
"""
from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from pydantic import Field

from sim.policy.batch._continuous import Continuous, beside_decoders
from sim.policy.batch.base import Limits, Plan, Queue
from sim.policy.kv.base import KvCache


@dataclasses.dataclass
class Sarathi(Continuous):
    """`chunk_size`: most prompt tokens of a step."""

    refuses: ClassVar = {"long_prefill_token_threshold": "its chunk_size bounds the prompt tokens of a step"}
    needs: ClassVar = {"enable_chunked_prefill": "it computes prompts in chunks"}

    chunk_size: Annotated[int, Field(ge=1, le=10_000_000)] = 512

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        left = limits.max_num_batched_tokens - queue.decoders * limits.tokens_per_decoder
        return beside_decoders(self, queue, kv, limits, min(self.chunk_size, left))
