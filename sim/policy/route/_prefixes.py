"""What the routers that heed prompts have in common: how they come to know what of a prompt a replica holds already.

`approximate`: by their own record of what they sent where, as SGLang's router and the prefix plug-in of the Kubernetes inference gateway
do. `events`: by what the replicas report of the blocks they keep and evict, as vLLM's and SGLang's KV events tell llm-d and Dynamo.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sim.core.request import Request
from sim.policy.route._index import Sent
from sim.policy.route.base import WideView

Weight = Annotated[float, Field(ge=0, le=1e6)]


@dataclasses.dataclass
class Prefixes:
    """`index` says how prompts are known. `capacity`: tokens kept per replica in the router's own record; default: what its cache holds."""

    index: Literal["approximate", "events"] = "approximate"
    capacity: Annotated[int, Field(ge=1)] | None = None
    _sent: Sent = dataclasses.field(default_factory=Sent, init=False)

    @property
    def sees(self) -> str:
        return "state" if self.index == "approximate" else "blocks"

    def cached(self, request: Request, views: Sequence[WideView]) -> list[int]:
        """Prompt tokens that each replica is believed to hold; at least one token is always left to compute."""
        most = request.prompt - 1
        if self.index == "events":
            return [min(view.cached(request), most) for view in views]
        hits = self._sent.hits(request)
        # Only whole blocks are ever found.
        return [min(hits.get(view.index, 0), most) // view.block_size * view.block_size for view in views]

    def to(self, request: Request, view: WideView) -> int:
        """Note that a request goes to a replica; returns its index."""
        if self.index == "approximate":
            self._sent.put(request, view.index, self.capacity or view.room)
        return view.index


def refused(values: dict[str, object]) -> list[tuple[str, str]]:
    """What is wrong with the options of such a router."""
    if values["index"] == "events" and values["capacity"] is not None:
        return [("capacity", "the router keeps no record of its own with index: events; leave it out")]
    return []
