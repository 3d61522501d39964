"""Who computes what in the next step: one token budget, shared by everybody.

Decoders are implicit: each gets one token of the budget in every step. A batcher decides the prompt chunks beside them, whom to admit, and
whom to preempt when the KV cache is full. It sees a state and returns a decision; the engine carries it out. After a preemption it is
asked again, with `admit` off: as in vLLM V1, a step that preempted admits nobody.
"""
from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from sim.core.request import Request
from sim.policy.kv.base import KvCache


class Limits(NamedTuple):
    """An engine's limits, by vLLM's names; `long_prefill_token_threshold` 0 means none.

    `lookahead`: a step's batch is chosen when the step before it starts (asynchronous scheduling), so that who comes in between joins one
    step later.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    enable_chunked_prefill: bool
    long_prefill_token_threshold: int
    lookahead: bool = False


class Queue(Protocol):
    """The engine's state as a batcher reads it."""

    waiting: deque[Request]
    prefilling: list[Request]
    running: dict[int, Request]
    decoders: int
    admit: bool

    def next_blocks(self) -> int:
        """Blocks the decoders take in the next step."""


class Plan(NamedTuple):
    """`chunks`: (request, tokens) pairs, those of `prefilling` first, then the newly admitted. `preempt`: who gives up its cache, first."""

    chunks: list[tuple[Request, int]]
    preempt: list[Request]


class Batcher(Protocol):
    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan: ...
