"""A lower tier of the KV cache (the host's memory, a disk, a remote store): which blocks it holds, and which go first.

Blocks have the names they have in the prefix cache (`radix.py`), so a block can be here without those before it, which may be in the GPU.
Those that a tier got or used last go last; of those it got together the last block of the prompt goes first, as in the GPU. A tier does
what one queue of blocks would do, but it keeps runs of blocks: its cost is that of runs touched, not of blocks.
"""
from __future__ import annotations

from collections import OrderedDict

from sim.policy.kv.node import Label


class Piece:
    """The name of the blocks from `start` on that begin with `label` behind those of `parent`, as far as nothing new begins.

    `runs` are what each tier holds of them. `live`: it can be reached from the first piece, which has no parent.
    """

    __slots__ = ("children", "label", "live", "parent", "runs", "start")

    def __init__(self, parent: Piece | None, start: int, label: Label, tiers: int):
        self.parent, self.start, self.label = parent, start, label
        self.children: dict[tuple[int, Label], Piece] = {}
        self.runs: list[list[Run]] = [[] for _ in range(tiers)]
        self.live = True

    def child(self, start: int, label: Label) -> Piece:
        """The piece that follows where block `start` begins with `label`, made when there is none."""
        piece = self.children.get((start, label))
        if piece is None:
            piece = self.children[start, label] = Piece(self, start, label, len(self.runs))
        return piece

    def revived(self) -> Piece:
        """This piece, or the one that has taken its place since it was forgotten."""
        dead: list[Piece] = []
        piece = self
        while not piece.live:
            dead.append(piece)
            assert piece.parent is not None, "the first piece is never forgotten"
            piece = piece.parent
        for old in reversed(dead):
            piece = piece.child(old.start, old.label)
        return piece

    def forget(self) -> None:
        """Give up this name and those it follows, as far as no tier holds anything under them."""
        piece = self
        while piece.live and piece.parent is not None and not piece.children and not any(piece.runs):
            piece.live = False
            del piece.parent.children[piece.start, piece.label]
            piece = piece.parent

    def holder(self, at: int) -> tuple[int, int]:
        """The first tier that holds block `at`, and the block before which it stops being the one; (-1, at): none holds it."""
        stop = -1
        for level, runs in enumerate(self.runs):
            for run in runs:
                for begin, end in run.spans:
                    if begin <= at < end:
                        return level, end if stop < 0 else min(stop, end)
                    if begin > at and (stop < 0 or begin < stop):
                        stop = begin
        return -1, at


class Run:
    """Blocks of one piece that a tier got or used one after the other: `spans` of (begin, end), in order. The last block goes first."""

    __slots__ = ("piece", "spans")

    def __init__(self, piece: Piece, begin: int, end: int):
        self.piece, self.spans = piece, [(begin, end)]


class Tier:
    """Room for `blocks` blocks; what has no room goes to the tier `below`, if there is one. `written` counts the blocks it got so far."""

    __slots__ = ("_below", "_empty", "_level", "_newest", "_queue", "blocks", "held", "written")

    def __init__(self, level: int, blocks: int, below: Tier | None, empty: list[Piece]):
        self.blocks, self.held, self.written = blocks, 0, 0
        self._level, self._below = level, below
        self._queue: OrderedDict[Run, None] = OrderedDict()
        self._newest: Run | None = None
        # Pieces that lost their last run here; who calls `put` forgets them afterwards.
        self._empty = empty

    def put(self, piece: Piece, begin: int, end: int) -> None:
        """Blocks `begin` to `end` are used or written, one at a time, the last first; what is there already is not written again."""
        while end > begin:
            run, place, low = self._find(piece, end - 1, begin)
            if run is not None:
                first, last = run.spans[place]
                low = max(first, begin)
                run.spans[place : place + 1] = [span for span in ((first, low), (end, last)) if span[0] < span[1]]
                if not run.spans:
                    self._discard(run)
                self._append(piece, low, end)
            else:
                self._append(piece, low, end)
                self.held += end - low
                self.written += end - low
                if self.held > self.blocks:
                    self._shrink()
            end = low

    def clear(self) -> None:
        """Hold nothing any more."""
        for run in list(self._queue):
            self._discard(run)
        self.held = 0

    def _find(self, piece: Piece, at: int, low: int) -> tuple[Run | None, int, int]:
        """The run that holds a block and which of its spans; or None and the end of the nearest span before it, at least `low`."""
        for run in piece.runs[self._level]:
            for place, (begin, end) in enumerate(run.spans):
                if begin <= at < end:
                    return run, place, begin
                if low < end <= at:
                    low = end
        return None, 0, low

    def _append(self, piece: Piece, begin: int, end: int) -> None:
        newest = self._newest
        if newest is None or newest.piece is not piece or newest.spans[0][0] < end:
            self._newest = run = Run(piece, begin, end)
            piece.runs[self._level].append(run)
            self._queue[run] = None
        elif newest.spans[0][0] == end:
            newest.spans[0] = begin, newest.spans[0][1]
        else:
            newest.spans.insert(0, (begin, end))

    def _shrink(self) -> None:
        while self.held > self.blocks:
            run = next(iter(self._queue))
            begin, end = run.spans[-1]
            first = max(begin, end - (self.held - self.blocks))
            self.held -= end - first
            if first > begin:
                run.spans[-1] = begin, first
            else:
                run.spans.pop()
                if not run.spans:
                    self._discard(run)
            if self._below is not None:
                self._below.put(run.piece, first, end)

    def _discard(self, run: Run) -> None:
        del self._queue[run]
        run.piece.runs[self._level].remove(run)
        self._empty.append(run.piece)
        if run is self._newest:
            self._newest = None
