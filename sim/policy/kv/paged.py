"""Paged KV cache: any free block serves any request (PagedAttention, Kwon et al., SOSP 2023). Counting is all it takes: no block has a
name, as nothing is shared (`radix.py` shares).
"""
from __future__ import annotations

from sim.core.request import Request


class Paged:
    """`blocks` blocks of `block_size` tokens. `taken`, `returned` and `free` are counted apart, so the audit can hold them together."""

    __slots__ = ("_least", "block_size", "blocks", "free", "grows", "returned", "taken")

    def __init__(self, blocks: int, block_size: int):
        self.grows = True
        self.blocks = self.free = self._least = blocks
        self.block_size = block_size
        self.taken = self.returned = 0

    @property
    def peak(self) -> int:
        return self.blocks - self._least

    def find(self, request: Request) -> int:
        request.fetch = request.brought
        return request.brought

    def need(self, request: Request, tokens: int) -> int:
        size, computed = self.block_size, request.computed
        held = (computed + size - 1) // size if request.order >= 0 else 0
        return (computed + tokens + size - 1) // size - held

    def grow(self, request: Request, tokens: int) -> bool:
        return self.take(self.need(request, tokens))

    def take(self, blocks: int) -> bool:
        left = self.free - blocks
        if left < 0:
            return False
        self.free = left
        self.taken += blocks
        if left < self._least:
            self._least = left
        return True

    def give(self, blocks: int) -> None:
        self.free += blocks
        self.returned += blocks

    def drop(self, request: Request, keep: bool = True) -> None:
        self.give((request.computed + self.block_size - 1) // self.block_size)

    def forget(self) -> None:
        pass
