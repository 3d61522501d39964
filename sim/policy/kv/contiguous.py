"""Contiguous KV cache: every request reserves one unbroken range of blocks on admission, and keeps it to its end.

What engines did before PagedAttention, and the baselines of its paper (Kwon et al., SOSP 2023, section 6.1): `max` reserves the longest
request the engine takes, `pow2` rounds the output up to a power of two (at most twice what is needed), `oracle` knows the output. Ranges
are found first-fit; what lies free between them may be too little for the next. Nothing grows, so nothing is ever preempted.

Ranges are whole blocks, at most block_size - 1 tokens more than a range of tokens. The last token's keys and values are never computed, so
a request of n tokens needs room for n - 1.
"""
from __future__ import annotations

from bisect import bisect

from sim.core.request import Request


class Contiguous:
    """`blocks` blocks of `block_size` tokens in a row; `longest` is the most tokens of a request, `reservation` max, pow2 or oracle."""

    __slots__ = (
        "_holes", "_least", "_longest", "_ranges", "_reservation", "block_size", "blocks", "free", "grows", "returned", "taken",
    )  # fmt: skip

    def __init__(self, blocks: int, block_size: int, longest: int, reservation: str = "max"):
        self.blocks = self.free = self._least = blocks
        self.block_size = block_size
        self.taken = self.returned = 0
        self.grows = False
        self._longest, self._reservation = longest, reservation
        # Free ranges as (begin, blocks), in order, no two touching; ranges held, by request.
        self._holes = [(0, blocks)] if blocks else []
        self._ranges: dict[int, tuple[int, int]] = {}

    @property
    def peak(self) -> int:
        return self.blocks - self._least

    @property
    def largest_hole(self) -> int:
        """Blocks of the largest free range: what is free beyond it no request can have in one piece."""
        return max((size for _, size in self._holes), default=0)

    def reserves(self, request: Request) -> int:
        """Blocks it gets on admission, at most all there are."""
        if self._reservation == "max":
            tokens = self._longest
        elif self._reservation == "pow2":
            tokens = min(request.prompt + (1 << (request.output - 1).bit_length()), max(self._longest, request.prompt + request.output))
        else:
            tokens = request.prompt + request.output
        return min((max(tokens - 1, 1) + self.block_size - 1) // self.block_size, self.blocks)

    def find(self, request: Request) -> int:
        request.fetch = request.brought
        return request.brought

    def need(self, request: Request, tokens: int) -> int:
        """0 for one that holds its range; more than there are when no hole is large enough."""
        if request.id in self._ranges:
            return 0
        size = self.reserves(request)
        return size if any(hole >= size for _, hole in self._holes) else self.blocks + 1

    def grow(self, request: Request, tokens: int) -> bool:
        if request.id in self._ranges:
            return True
        size = self.reserves(request)
        for place, (begin, hole) in enumerate(self._holes):
            if hole >= size:
                self._holes[place : place + 1] = [(begin + size, hole - size)] if hole > size else []
                self._ranges[request.id] = begin, size
                self.free -= size
                self.taken += size
                self._least = min(self._least, self.free)
                return True
        return False

    def take(self, blocks: int) -> bool:
        return not blocks

    def give(self, blocks: int) -> None:
        assert not blocks, "the decode group holds no blocks of its own"

    def drop(self, request: Request, keep: bool = True) -> None:
        begin, size = self._ranges.pop(request.id)
        self.free += size
        self.returned += size
        holes = self._holes
        at = bisect(holes, (begin, 0))
        end = begin + size
        first = last = at
        if at and sum(holes[at - 1]) == begin:
            first, begin = at - 1, holes[at - 1][0]
        if at < len(holes) and holes[at][0] == end:
            last, end = at + 1, end + holes[at][1]
        holes[first:last] = [(begin, end - begin)]

    def forget(self) -> None:
        pass
