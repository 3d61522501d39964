"""What a replayed engine works on. No torch here: the scheduler needs none."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Limits(NamedTuple):
    """Of the engine: running requests, tokens per iteration, and tokens one request may hold."""

    requests: int = 256
    tokens: int = 2048
    length: int = 8192


@dataclass
class Request:
    """A request under way: `computed` of its tokens are in the KV cache, in `pages`; `last` is the token it produced last."""

    index: int
    prompt: int
    output: int
    computed: int = 0
    produced: int = 0
    pages: tuple[int, ...] = ()
    last: int = 0


class Piece(NamedTuple):
    """`new` tokens of one request in one iteration."""

    request: Request
    new: int
