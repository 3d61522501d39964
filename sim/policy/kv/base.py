"""What holds keys and values: blocks of `block_size` tokens, taken by requests and by the decode group as a whole.

An operation does all of it or nothing. A request with c computed tokens holds ceil(c / block_size) blocks, some of which it may share with
others; for the members of the decode group the engine counts boundary crossings and takes their blocks together, so growth costs O(1)
however many decode. `free` counts what can be taken: blocks that hold nothing, and blocks whose contents are kept but that nobody holds.
"""
from __future__ import annotations

from typing import Protocol

from sim.core.request import Request


class KvCache(Protocol):
    """`taken` and `returned` count blocks that left and entered `free`. `grows`: decoders take blocks as their contexts grow."""

    grows: bool
    blocks: int
    block_size: int
    free: int
    taken: int
    returned: int

    @property
    def peak(self) -> int:
        """Most blocks in use at once so far."""

    def find(self, request: Request) -> int:
        """Tokens at the front of a request that holds nothing whose keys and values need no computing: it brings them, or they are cached.

        At least one known token is left to compute. Nothing changes but `request.fetch`: how many
        of them are not in this cache yet.
        """

    def need(self, request: Request, tokens: int) -> int:
        """The most blocks that leave `free` when `grow` is called. For a request that holds nothing, `computed` tokens have been found."""

    def grow(self, request: Request, tokens: int) -> bool:
        """Take the blocks for computing `tokens` more, and for what was found; False, and nothing changed, when they are not free."""

    def take(self, blocks: int) -> bool:
        """Take blocks for the decode group; False, and nothing changed, when they are not free."""

    def give(self, blocks: int) -> None:
        """Take back blocks of the decode group that hold nothing."""

    def drop(self, request: Request, keep: bool = True) -> None:
        """Give back what a request holds for its computed tokens. What can be asked for again stays findable until it is evicted; unless
        it is to be kept, only as far as it was so before.
        """

    def forget(self) -> None:
        """What nobody holds is found no more, here and below."""
