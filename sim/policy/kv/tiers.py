"""A prefix cache with tiers below the GPU's memory, from which blocks are brought back instead of computed anew.

The first tier gets blocks when they leave the GPU (`on_evict`) or when a request that holds them ends or is preempted (`write_through`, as
vLLM's offloading connector and LMCache do); the next ones get what the tier above has no room for. What is brought back stays where it was.
So does what is written: the GPU's blocks are free at once, the copy takes its time on the way down (`world/tier_links.py`).

A prompt is looked up block by block: first in the GPU, and from the first block that is not there, each in the first tier that has it.
How much of that is worth bringing is decided by time: loading, all tiers at once, and then computing the rest of the prompt, each on an
idle replica. Of equal times the one with the most loaded is taken.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sim.core.request import Request
from sim.policy.kv.node import Label, Node
from sim.policy.kv.radix import Radix, tail_key
from sim.policy.kv.tier import Piece, Tier


class Costs(Protocol):
    """Seconds, on an idle replica: to bring blocks from a tier, and to compute tokens behind so many others (`physics/recovery.py`)."""

    def load(self, tier: int, blocks: int, /) -> float: ...

    def compute(self, before: int, tokens: int, /) -> float: ...


class Span(NamedTuple):
    """Blocks `begin` to `end` of a piece, to be had from a tier."""

    tier: int
    piece: Piece
    begin: int
    end: int


class Tiered(Radix):
    """`sizes` are the blocks of each tier, the nearest first. `costs` None: whatever is found below is brought back.

    `brought` has, for each request that took blocks for what it found below, how many blocks of which tier; who brings them takes it out.
    """

    __slots__ = ("_costs", "_empty", "_forgets", "_found", "_names_below", "_through", "brought", "tiers")

    def __init__(self, blocks: int, block_size: int, sizes: Sequence[int], write_through: bool = True, costs: Costs | None = None):
        super().__init__(blocks, block_size, None if write_through else self._store)
        self._through, self._costs, self._forgets = write_through, costs, False
        self._empty: list[Piece] = []
        self.tiers: list[Tier] = []
        for level in reversed(range(len(sizes))):
            self.tiers.insert(0, Tier(level, sizes[level], self.tiers[0] if self.tiers else None, self._empty))
        self._names_below = Piece(None, 0, None, len(sizes))
        self._found: tuple[int, list[Span]] = -1, []
        self.brought: dict[int, list[tuple[int, int]]] = {}

    # -- asking ------------------------------------------------------------
    def find(self, request: Request) -> int:
        found = super().find(request)
        if request.brought or not self._names_below.children:
            return found
        size = self.block_size
        last = (request.prompt + request.generated - 1) // size
        if found < last * size:
            spans = self._worth(request, found, self._below(request, found // size, last))
            if spans:
                self._found = request.id, spans
                request.fetch = spans[-1].end * size - found
        return found + request.fetch

    def _below(self, request: Request, at: int, last: int) -> list[Span]:
        """Where a request's blocks are from `at` on, up to the first that is nowhere."""
        spans: list[Span] = []
        piece, start = self._names_below, 0
        for label, end in zip(*self._names(request.content, tail_key(request), 0, last), strict=True):
            child = piece.children.get((start, label))
            if child is None:
                break
            piece, start = child, end
            while at < end:
                tier, stop = piece.holder(at)
                if tier < 0:
                    return spans
                spans.append(Span(tier, piece, at, min(stop, end)))
                at = spans[-1].end
        return spans

    def _worth(self, request: Request, found: int, spans: list[Span]) -> list[Span]:
        """As many of these, from the front on, as shorten the time to the request's first token the most."""
        if self._costs is None or not spans:
            return spans
        known = request.prompt + request.generated
        loads = [0] * len(self.tiers)
        best, count, loading = self._costs.compute(found, known - found), 0, 0.0
        for number, span in enumerate(spans, 1):
            loads[span.tier] += span.end - span.begin
            loading = max(loading, self._costs.load(span.tier, loads[span.tier]))
            if number < len(spans) and spans[number].tier == span.tier:
                continue
            there = span.end * self.block_size
            seconds = loading + self._costs.compute(there, known - there)
            if seconds <= best:
                best, count = seconds, number
        return spans[:count]

    # -- taking and giving back ------------------------------------------------------------
    def grow(self, request: Request, tokens: int) -> bool:
        if request.order >= 0 or not request.fetch or request.brought:
            return super().grow(request, tokens)
        self._refused = None
        if self.need(request, tokens) > self.free:
            return False
        asked, spans = self._found
        assert asked == request.id, "a request is looked up just before it takes its blocks"
        # Used now, before what has to leave the GPU comes down.
        for span in reversed(spans):
            self.tiers[span.tier].put(span.piece, span.begin, span.end)
        blocks = [sum(span.end - span.begin for span in spans if span.tier == tier) for tier in range(len(self.tiers))]
        self.brought[request.id] = [(tier, count) for tier, count in enumerate(blocks) if count]
        return super().grow(request, tokens)

    def offload(self, leaf: Node) -> None:
        """Move down at once what nobody else needs of a path that was let go; its blocks in the GPU hold nothing any more."""
        node = leaf
        while node.parent is not None and not node.refs and not node.pins:
            parent = node.parent
            if node in self._queue:
                if node.children:
                    break
                blocks = node.ends[-1] - node.start
                self._store(node, blocks)
                del self._queue[node], parent.children[node.labels[0]]
                self._head += blocks
            node = parent

    def forget(self) -> None:
        self._forgets = True
        super().forget()
        self._forgets, self._found = False, (-1, [])
        for tier in self.tiers:
            tier.clear()
        for piece in self._empty:
            piece.forget()
        self._empty.clear()

    def _finish(self, request: Request) -> Node | None:
        leaf = super()._finish(request)
        if self._through and leaf is not None:
            node = leaf
            while node.parent is not None:
                self._store(node, node.ends[-1] - node.start)
                node = node.parent
        return leaf

    def _store(self, node: Node, blocks: int) -> None:
        """Put the last blocks of a node into the first tier, the very last first."""
        if self._forgets:
            return
        least, first = node.ends[-1] - blocks, self.tiers[0]
        for piece, begin, end in reversed(self._pieces(node)):
            if end <= least:
                break
            first.put(piece, max(begin, least), end)
        for piece in self._empty:
            piece.forget()
        self._empty.clear()

    # -- names ------------------------------------------------------------
    def _pieces(self, node: Node) -> list[tuple[Piece, int, int]]:
        """The pieces that a node's blocks lie in: (piece, first block, block before which it ends)."""
        way = [node]
        while way[-1].piece is None and way[-1].start:
            parent = way[-1].parent
            assert parent is not None
            way.append(parent)
        if way[-1].piece is None:
            way[-1].piece = self._names_below
        pieces: list[tuple[Piece, int, int]] = []
        for step in reversed(way):
            if pieces:
                step.piece = pieces[-1][0]
            pieces = _through(step.piece.revived(), step.start, step.labels, step.ends)
        return pieces


def _through(piece: Piece, at: int, labels: list[Label], ends: list[int]) -> list[tuple[Piece, int, int]]:
    """The pieces of some blocks from `at` on, which come after one of `piece`."""
    pieces = []
    for label, end in zip(labels, ends, strict=True):
        if label is not None:
            piece = piece.child(at, label)
        pieces.append((piece, at, end))
        at = end
    return pieces
