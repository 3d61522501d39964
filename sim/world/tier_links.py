"""The ways between a replica's GPUs and the lower tiers of its KV cache: one link per tier, shared by what goes down and what comes up, or
the links of the network.

A request's parts come from all tiers at once, each over its own link, and it can run when the last is in. What goes down is gathered until
the batch changes (a request is admitted or leaves), then sent as one transfer per tier; nobody waits for it, but what comes up at the same
time gets only its share of the link. What a tier hands to the one below it counts on the link of the lower one.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from simpy import Environment

from sim.core.record import Table
from sim.core.request import Request
from sim.policy.kv.tiers import Tiered
from sim.world.link import Link
from sim.world.roads import Road

RELOAD, OFFLOAD = 2, 3
Lane = Link | Callable[[Request, bool], Road]


class TierLinks:
    """`ways` are (kind of tier, link), the nearest first; `per_block` bytes are moved for a block, by all GPUs of the replica together.

    Over a network with shared links there is in place of a link a function of a request and of whether its blocks go down: their way.
    """

    def __init__(self, env: Environment, kv: Tiered, ways: Sequence[tuple[str, Link]], per_block: float, record: Table):
        self._env, self._kv, self._per_block, self._record = env, kv, per_block, record
        self._links: list[Lane] = [link for _, link in ways]
        self._labels = [record.label("tier", kind) for kind, _ in ways]
        self._sent = [0] * len(ways)

    def reroute(self, tier: int, lane: Lane) -> None:
        """What a tier gives and takes goes another way."""
        self._links[tier] = lane

    def has(self, request: Request) -> bool:
        """Whether the request took blocks for what is in lower tiers."""
        return request.id in self._kv.brought

    def reload(self, request: Request, done: Callable[[], None]) -> None:
        """Bring what the request has in lower tiers to its replica, then call `done`."""
        parts = self._kv.brought.pop(request.id)
        missing = len(parts)

        def arrived() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                done()

        for tier, blocks in parts:
            self._send(RELOAD, (tier, blocks), request, arrived)

    def flush(self, request: Request) -> None:
        """Send down what lower tiers were given since the last time, in the name of the request whose coming or going is the occasion."""
        for tier, holder in enumerate(self._kv.tiers):
            blocks = holder.written - self._sent[tier]
            if blocks:
                self._sent[tier] = holder.written
                self._send(OFFLOAD, (tier, blocks), request, lambda: None)

    def _send(self, kind: int, part: tuple[int, int], request: Request, done: Callable[[], None]) -> None:
        (tier, blocks), began = part, self._env.now
        size, at = blocks * self._per_block, request.replica

        def arrived() -> None:
            row = kind, request.id, at, at, began, self._env.now, size, blocks * self._kv.block_size, self._labels[tier]
            self._record.append(row)
            done()

        lane = self._links[tier]
        (lane if isinstance(lane, Link) else lane(request, kind == OFFLOAD)).send(size, arrived)
