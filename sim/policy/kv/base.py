"""What holds keys and values: blocks of `block_size` tokens, taken by requests and by the decode group as a whole.

An operation does all of it or nothing. A request with c computed tokens holds ceil(c / block_size) blocks; for the members of the decode
group the engine counts boundary crossings and takes their blocks together, so growth costs O(1) however many decode.
"""
from __future__ import annotations

from typing import Protocol

from sim.core.request import Request


class KvCache(Protocol):
    blocks: int
    block_size: int
    free: int
    taken: int
    returned: int

    @property
    def peak(self) -> int:
        """Most blocks in use at once so far."""

    def need(self, request: Request, tokens: int) -> int:
        """Blocks a request lacks to compute `tokens` more."""

    def grow(self, request: Request, tokens: int) -> bool:
        """Take the blocks for computing `tokens` more; False, and nothing changed, when they are not free."""

    def take(self, blocks: int) -> bool:
        """Take blocks for the decode group; False, and nothing changed, when they are not free."""

    def drop(self, request: Request) -> None:
        """Give back what a request holds for its computed tokens."""
