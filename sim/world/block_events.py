"""What replicas report of the blocks in their prefix caches, and the front door's index of it.

Engines send an event when blocks get a name and when blocks are evicted (vLLM's and SGLang's KV events, which llm-d and Dynamo index); the
blocks of lower tiers are not reported. The index is one tree for all replicas (`policy/route/_index.py`), which learns of events as late as
views are old.

A fast engine takes the blocks of a stretch's decoders at its end. Where those would evict something, it has to be caught up with first, or
it would be found later than with one event per step; that is asked only of replicas that have anything of the prompt looked for.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from simpy import Environment

from sim.core.request import Request
from sim.policy.kv.node import Node
from sim.policy.kv.radix import Radix
from sim.policy.route._index import Branch, Index, Piece
from sim.world.reports import Reports, Rhythm

if TYPE_CHECKING:
    from sim.world.seen import Seen, SeenExact



class Evicting:
    """Blocks that are evicted of a replica one after the other: names up to there, and their way in the index once looked up."""

    __slots__ = ("names", "node", "to", "way")

    def __init__(self, node: Node, names: list[Piece]):
        self.node, self.names, self.to = node, names, -1
        self.way: list[tuple[Branch, int]] | None = None


# Where, whose, and either names that a replica has now, or what is evicted of it and up to where.
Change = tuple[Index, int, list[Piece] | Evicting, int]


class BlockEvents:
    """`rhythm` None: events are known as they happen."""

    def __init__(self, env: Environment, rhythm: Rhythm | None):
        self._env, self._rhythm = env, rhythm
        self._indices: dict[int, tuple[Index, Radix]] = {}
        self._engines: dict[int, Seen | SeenExact] = {}
        self._due: defaultdict[int, list[Change]] = defaultdict(list)
        self._stamp: int | None = None
        self._changed = False
        self._found: tuple[int, float, dict[int, int]] = -1, -1.0, {}

    def follow(self, engine: Seen | SeenExact, reports: Reports | None) -> None:
        """Listen to a replica from now on; one without a prefix cache has nothing to say."""
        kv, replica = engine.kv, engine.index
        if not isinstance(kv, Radix):
            return
        index, _ = self._indices.setdefault(kv.block_size, (Index(), kv))
        self._engines[replica] = engine
        below, last = kv.evicted, Evicting(Node(None, 0, [], [0]), [])

        def extended(node: Node) -> None:
            self._log((index, replica, kv.path(node), 0))

        def evicted(node: Node, blocks: int) -> None:
            nonlocal last
            end = node.ends[-1]
            if node is not last.node or end != last.to:
                last = Evicting(node, kv.path(node))
            last.to = end - blocks
            self._log((index, replica, last, last.to))
            if below is not None:
                below(node, blocks)

        kv.extended, kv.evicted = extended, evicted
        if reports is not None:
            reports.caught_up = self._until(engine)

    def hits(self, request: Request) -> dict[int, int]:
        """Prompt tokens of a request that each replica is known to have, by index; replicas without any are left out."""
        number, at, found = self._found
        if number == request.id and at == self._env.now:
            return found
        self._hear()
        found = {}
        for size, (index, kv) in self._indices.items():
            names = kv.names(request)
            blocks = index.hits(names)
            # Being caught up with only takes away, so that once is enough.
            if blocks and self._overdue(blocks):
                blocks = index.hits(names)
            for replica, count in blocks.items():
                found[replica] = count * size
        self._found = request.id, self._env.now, found
        return found

    def _log(self, change: Change) -> None:
        rhythm = self._rhythm
        if rhythm is None:
            self._learn(change)
            return
        # Known to the next report, but for those of steps made before a report that is looked at only now.
        self._due[rhythm.made() + 1 if self._stamp is None else self._stamp].append(change)

    def _learn(self, change: Change) -> None:
        index, replica, what, to = change
        self._changed = True
        if not isinstance(what, Evicting):
            index.put(what, replica)
            return
        if what.way is None:
            what.way = index.way(what.names)
        index.cut(what.way, replica, to)

    def _hear(self) -> None:
        """Learn of the events that have reached the front door."""
        if self._rhythm is not None and self._due:
            seen = self._rhythm.seen()
            for stamp in sorted(stamp for stamp in self._due if stamp <= seen):
                for change in self._due.pop(stamp):
                    self._learn(change)

    def _overdue(self, replicas: dict[int, int]) -> bool:
        """Catch up with these replicas as far as their reports have come; returns whether that changed the index."""
        self._changed = False
        rhythm = self._rhythm
        seen = 0 if rhythm is None else rhythm.seen()
        for replica in replicas:
            self._catch_up(self._engines[replica], self._env.now if rhythm is None else rhythm.at(seen), seen)
        self._hear()
        return self._changed

    def _until(self, engine: Seen | SeenExact) -> Callable[[int], None]:
        rhythm = self._rhythm
        assert rhythm is not None
        return lambda number: self._catch_up(engine, rhythm.at(number), number)

    def _catch_up(self, engine: Seen | SeenExact, at: float, stamp: int) -> None:
        self._stamp = stamp
        engine.catch_up(at)
        self._stamp = None
