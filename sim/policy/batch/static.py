"""Static batching, as FasterTransformer serves: a batch is formed when the engine is empty, runs until its last member ends, and only then
makes way for the next.

Whoever waits is taken, in order of arrival, up to max_num_seqs; nobody is waited for. Prompts are padded to the longest of the batch, and
all generate until the longest answer is done: padding is computed, held in the cache and thrown away, and every answer comes when all have
ended. Room for all of it is found before the batch starts, so nothing is preempted; the padded prompts of a batch stay within
max_num_batched_tokens, and padded lengths within max_model_len.
"""
from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import ClassVar

from sim.core.request import Request
from sim.policy.batch._continuous import WHOLE
from sim.policy.batch.base import Limits, Plan, Queue, Waiting
from sim.policy.kv.base import KvCache
from sim.policy.order.base import Order
from sim.policy.order.fcfs import Fcfs


@dataclasses.dataclass
class Static:
    """Batches that start and end together."""

    pads: ClassVar[bool] = True
    refuses: ClassVar = WHOLE | {
        "enable_prefix_caching": "it pads prompts, so that their blocks are not those of the text",
        "lora": "its kernels know one model",
        "role": "a batch that starts and ends together cannot be passed on in part",
    }
    needs: ClassVar[Mapping[str, str]] = {}
    overtakes: ClassVar[bool] = False
    order: ClassVar[Order] = Fcfs()

    def queue(self) -> Waiting:
        return deque()

    def plan(self, queue: Queue, kv: KvCache, limits: Limits, now: float) -> Plan:
        if queue.running:
            return Plan([], [])
        batch: list[Request] = []
        prompt = output = 0
        for request in queue.waiting:
            padded = max(prompt, request.prompt), max(output, request.output)
            if batch and not _fits(batch[0], len(batch) + 1, padded, kv, limits):
                break
            prompt, output = padded
            batch.append(request)
        for request in batch:
            request.asked = request.prompt, request.output
            request.prompt, request.output, request.computed = prompt, output, 0
            kv.grow(request, prompt)
        return Plan([(request, prompt) for request in batch], [])


def _fits(probe: Request, members: int, padded: tuple[int, int], kv: KvCache, limits: Limits) -> bool:
    """Whether a batch of so many, padded so, has seats, budget and blocks to its end; the cache is asked of `probe`, one of them."""
    prompt, output = padded
    if members > limits.max_num_seqs or members * prompt > limits.max_num_batched_tokens or prompt + output > limits.longest:
        return False
    own, probe.computed = (probe.prompt, probe.output), 0
    probe.prompt, probe.output = padded
    # The last token's keys and values are never computed.
    blocks = kv.need(probe, prompt + output - 1)
    probe.prompt, probe.output = own
    return members * blocks <= kv.free
