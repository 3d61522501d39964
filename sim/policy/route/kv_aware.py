"""KV-aware: the replica with the lowest cost, `overlap_weight` x blocks of the prompt to be computed + blocks in use there.

The cost function of NVIDIA Dynamo's KV router, at temperature 0. Blocks in use are those its requests hold; those still queued hold none,
and each counts as a prompt of the mean length seen so far.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.core.request import Request
from sim.policy.route._prefixes import Prefixes, Weight, refused
from sim.policy.route.base import WideView


@dataclasses.dataclass
class KvAware(Prefixes):
    """Fewest blocks to compute and in use."""

    overlap_weight: Weight = 1.0
    _tokens: int = dataclasses.field(default=0, init=False)
    _prompts: int = dataclasses.field(default=0, init=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return refused(dict(values))

    def pick(self, request: Request, views: Sequence[WideView]) -> int:
        self._tokens += request.prompt
        self._prompts += 1
        mean, prompt, weight = self._tokens / self._prompts, request.prompt, self.overlap_weight
        costs = [
            (weight * (prompt - tokens) + view.kv_used * view.room + view.queued * mean) / view.block_size
            for view, tokens in zip(views, self.cached(request, views), strict=True)
        ]
        return self.to(request, views[costs.index(min(costs))])
