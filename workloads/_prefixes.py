"""Beginnings that prompts share, drawn in one place for every kind of traffic: a system prompt for all, and after it one of several others.

The several are what vLLM's benchmark calls `prefix_repetition`: documents, tool sets or customers, each with a prompt of its own. Which of
them a request or a session begins with follows Zipf's law: number k is drawn in proportion to k ** -zipf.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from sim.core.content import Content

if TYPE_CHECKING:
    from workloads.base import Client

NOTHING = Content((), ())
DRAWN = 4096


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """`count` different beginnings of `tokens` tokens each. `zipf`: how unequal their popularity is, 0 for all alike."""

    tokens: Annotated[int, Field(ge=1, le=10**7)]
    count: Annotated[int, Field(ge=1, le=10**6)] = 1
    zipf: Annotated[float, Field(ge=0, le=10)] = 0.0


def beginnings(world: Client, shared_prefix: int, prefixes: Prefixes | None) -> Iterator[Content]:
    """What one prompt or session after the other begins with, without end: `shared_prefix` tokens of all, then one of `prefixes`."""
    first = world.keys(1)
    every = Content((first,), (shared_prefix,), shared_prefix) if shared_prefix else NOTHING
    if prefixes is None:
        yield from repeat(every)
        return
    first, end = world.keys(prefixes.count), shared_prefix + prefixes.tokens
    several = [Content((*every.keys, first + k), (*every.ends, end), end) for k in range(prefixes.count)]
    weights = np.arange(1, prefixes.count + 1, dtype=float) ** -prefixes.zipf
    shares = np.cumsum(weights) / weights.sum()
    # Rounding must not leave a draw without a beginning.
    shares[-1] = 1.0
    rng = world.rng("prefixes")
    while True:
        for k in np.searchsorted(shares, rng.random(DRAWN), side="right").tolist():
            yield several[k]


def openings(world: Client, starts: Iterator[Content], prompts: Iterable[int], samples: int = 1) -> Iterator[tuple[Content, int]]:
    """(content, reply) of requests that share a beginning and nothing else; each prompt, of so many tokens, is asked for `samples` times.

    Requests with one prompt share all of it. Their answers are nobody's past: `reply` is 0.
    """
    for prompt in prompts:
        content = cut(next(starts), prompt)
        if samples > 1:
            content = longer(content, world.keys(1), prompt)
        for _ in range(samples):
            yield content, 0


def cut(content: Content, tokens: int) -> Content:
    """The part of a content within the first `tokens` tokens.

    >>> cut(Content((7, 8), (100, 300), 300), 250)
    Content(keys=(7, 8), ends=(100, 250), common=250)
    >>> cut(Content((7, 8), (100, 300), 300), 100)
    Content(keys=(7,), ends=(100,), common=100)
    """
    ends = content.ends
    if not ends or ends[-1] <= tokens:
        return content
    last = bisect_left(ends, tokens)
    return Content(content.keys[: last + 1], (*ends[:last], tokens), min(content.common, tokens))


def longer(content: Content, key: int, end: int) -> Content:
    """A content and what follows it up to token `end`, named by `key`; the content itself where it is as long already.

    >>> longer(Content((7,), (100,), 100), 9, 250)
    Content(keys=(7, 9), ends=(100, 250), common=100)
    """
    if content.ends and content.ends[-1] >= end:
        return content
    return Content((*content.keys, key), (*content.ends, end), content.common)
