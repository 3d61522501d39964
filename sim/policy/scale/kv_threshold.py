"""Room in the KV cache and in the queue, as llm-d's workload variant autoscaler has it (its saturation analyzer, "V1").

A replica is saturated when its share of KV blocks in use is at or above `kv_cache_threshold`, or its queue at or above
`queue_length_threshold`. The spare room of the others is their distance to the thresholds; when its mean falls below a trigger, one replica
more. One less when the load of the unsaturated, spread over one fewer of them, would leave the mean spare above both triggers. While
replicas start nothing moves, so that one shortage is answered once. Names and defaults are llm-d's (kvCacheThreshold 0.80,
queueLengthThreshold 5, kvSpareTrigger 0.1, queueSpareTrigger 3).
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sim.policy.scale.base import Seen


@dataclasses.dataclass
class KvThreshold:
    """One replica at a time. Where the single replicas are not seen, all are taken to be like their mean."""

    sees: ClassVar[str] = "replicas"

    kv_cache_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    queue_length_threshold: Annotated[float, Field(gt=0, le=1e6)] = 5.0
    kv_spare_trigger: Annotated[float, Field(ge=0, le=1)] = 0.1
    queue_spare_trigger: Annotated[float, Field(ge=0, le=1e6)] = 3.0

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        for trigger, threshold in (("kv_spare_trigger", "kv_cache_threshold"), ("queue_spare_trigger", "queue_length_threshold")):
            if values[trigger] >= values[threshold]:
                yield trigger, f"found {values[trigger]:g}; a value below {threshold} ({values[threshold]:g}) is wanted, or it never rests"

    def want(self, seen: Seen) -> int:
        if not seen.current:
            return int(seen.held > 0)
        if seen.starting or not seen.ready:
            return seen.current
        kvs, queues = seen.kvs, seen.queues
        if not kvs:
            kvs, queues = (seen.kv,) * seen.ready, ()
        waiting = queues or (seen.queued / seen.ready,) * seen.ready
        free = [
            (kv, queue) for kv, queue in zip(kvs, waiting, strict=True)
            if kv < self.kv_cache_threshold and queue < self.queue_length_threshold
        ]  # fmt: skip
        kv, queue = sum(kv for kv, _ in free), sum(queue for _, queue in free)
        if not self._spare(kv, queue, len(free)):
            return seen.ready + 1
        # With any of them saturated a replica less would be one too few.
        return seen.ready - 1 if len(free) == seen.ready > 1 and self._spare(kv, queue, len(free) - 1) else seen.ready

    def _spare(self, kv: float, queue: float, replicas: int) -> bool:
        """Whether the sums over so many replicas leave enough room on average."""
        if not replicas:
            return False
        return (
            self.kv_cache_threshold - kv / replicas >= self.kv_spare_trigger
            and self.queue_length_threshold - queue / replicas >= self.queue_spare_trigger
        )
