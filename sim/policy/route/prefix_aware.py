"""Prefix-aware: the replica with the best marks for how much of the prompt it holds, how short its queue is, and how free its KV cache.

As llm-d and the Kubernetes Gateway API inference extension score endpoints, with their default weights of 3, 2 and 2: the share of the
prompt that is held; (longest queue - its queue) / (longest - shortest), 1 where all are alike; the share of its KV cache that is free.
`load` weighs requests in flight like queues, as their active-request scorer. Of equal marks the least loaded is taken, then the first.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.core.request import Request
from sim.policy.route._prefixes import Prefixes, Weight, refused
from sim.policy.route.base import WideView


@dataclasses.dataclass
class PrefixAware(Prefixes):
    """`prefix`, `queue`, `kv` and `load` weigh the marks."""

    prefix: Weight = 3.0
    queue: Weight = 2.0
    kv: Weight = 2.0
    load: Weight = 0.0

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from refused(dict(values))
        if not any(values[name] for name in ("prefix", "queue", "kv", "load")):
            yield "", "prefix, queue, kv and load are all 0, so that all replicas are alike; at least one above 0 is wanted"

    def pick(self, request: Request, views: Sequence[WideView]) -> int:
        found = self.cached(request, views)
        scale = self.prefix / request.prompt
        queues = _marks([view.queued for view in views], self.queue) if self.queue else ()
        loads = [view.in_flight for view in views]
        busy = _marks(loads, self.load) if self.load else ()
        best, chosen = (-1.0, 0), views[0]
        for number, view in enumerate(views):
            mark = found[number] * scale
            if queues:
                mark += queues[number]
            if busy:
                mark += busy[number]
            if self.kv:
                mark += self.kv * (1.0 - view.kv_used)
            if (mark, -loads[number]) > best:
                best, chosen = (mark, -loads[number]), view
        return self.to(request, chosen)


def _marks(loads: list[int], weight: float) -> list[float]:
    least, most = min(loads), max(loads)
    if least == most:
        return [weight] * len(loads)
    return [weight * (most - load) / (most - least) for load in loads]
