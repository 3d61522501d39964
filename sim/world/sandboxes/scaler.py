"""The autoscaler of one pool's nodes: the policies that scale replicas (`policy/scale`), told of sandboxes where those see requests."""
from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

from sim.core.registry import AUTOSCALERS
from sim.policy.scale.base import Autoscaler, Seen
from sim.spec.sandboxes import NodeScale
from sim.world.sandboxes.pool import Pool

# Without a node, and with somebody waiting, a policy may still wait for its time of the week; beyond that it never comes.
PATIENCE = 8 * 86400.0


class NodeScaler:
    """Looks at a pool every so often until `over`."""

    def __init__(self, pool: Pool, options: NodeScale, over: Callable[[], bool]):
        self._pool, self._options, self._over = pool, options, over
        self._policy: Autoscaler = AUTOSCALERS.make(options.policy)
        self._before = self._stuck = self._waits = 0.0
        self._asked = self._ended = self._granted = 0

    def live(self) -> Generator[Any, Any, None]:
        """The process: it ends when nothing more will be asked for, or nothing has been done for days about those who wait."""
        options, pool = self._options, self._pool
        while True:
            yield pool.env.timeout(options.every)
            if pool.nodes.ready or pool.nodes.starting or not pool.waiting:
                self._stuck = pool.env.now
            if self._over() or pool.env.now - self._stuck > PATIENCE:
                return
            seen = self.look()
            if options.lag:
                later: Any = pool.env.timeout(options.lag, seen)
                later.callbacks.append(lambda event: self._act(event.value))
            else:
                self._act(seen)

    def look(self) -> Seen:
        """The pool as it is now."""
        pool, nodes = self._pool, list(self._pool.nodes.ready.values())
        now, window = pool.env.now, pool.env.now - self._before
        worked = 0.0
        for node in nodes:
            spent = node.cpu.spent
            worked += spent - node.seen
            node.seen = spent
        shares = tuple(node.active / node.most for node in nodes)
        granted = pool.granted - self._granted
        seen = Seen(
            now, len(nodes), len(pool.nodes.starting), sum(node.active for node in nodes), 0, pool.waiting,
            sum(shares) / len(shares) if shares else 0.0, min(worked / (window * len(nodes) * pool.spec.node.cores), 1.0) if nodes else 0.0,
            pool.asked - self._asked, pool.ended - self._ended, 0, (pool.waits - self._waits) / granted if granted else math.nan, math.nan,
            shares, (0,) * len(nodes),
        )  # fmt: skip
        self._before, self._asked, self._ended, self._granted, self._waits = now, pool.asked, pool.ended, pool.granted, pool.waits
        return seen

    def _act(self, seen: Seen) -> None:
        self._pool.nodes.scale(min(max(self._policy.want(seen), self._options.min), self._options.max))
