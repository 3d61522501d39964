"""What the prompts of a recorded trace share, in arrays, and as the contents of its requests.

Traces say it in two ways. `Blocks`: each prompt is a list of blocks, whose ids tell which prompts have the same tokens up to there
(Mooncake, Weka, Qwen-Bailian, token ids). `Chain`: each row begins with so many tokens of an earlier row (sessions; tables with a reference
to the row before). Contents are made when a request is sent, so a trace of millions of blocks is never turned into objects at once.
"""
from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from sim.core.content import Content
from workloads._prefixes import cut, longer

if TYPE_CHECKING:
    from workloads.base import Client


class Blocks(NamedTuple):
    """Row i holds the blocks keys[first[i] : first[i] + counts[i]], each of `size` tokens; the last one ends with the prompt at the latest.

    A key (from 0) names a block and all before it. The first `common[i]` tokens are in at least half of the trace's prompts, so they are
    taken for a system prompt. Arrays are int64, `first`, `counts`, `common` and `prompt` (tokens) one number per row.
    """

    keys: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    common: np.ndarray
    prompt: np.ndarray
    size: int

    def pick(self, which: Any) -> Blocks:
        """The rows of a mask, of indices or of a slice."""
        return Blocks(self.keys, self.first[which], self.counts[which], self.common[which], self.prompt[which], self.size)

    def contents(self, world: Client) -> Iterator[tuple[Content | None, int]]:
        """(content, reply) of each row, None for a prompt without a block; answers have no ids in such a trace, so `reply` is 0."""
        size = self.size
        base = world.keys(int(self.keys.max(initial=-1)) + 1)
        # An array of machine integers: a slice of it is one copy of bytes, where a list would hold an object for each id.
        keys = array("q", (self.keys + base).tobytes())
        columns = (column.tolist() for column in (self.first, self.counts, self.common, self.prompt))
        for first, count, common, prompt in zip(*columns, strict=True):
            if not count:
                yield None, 0
                continue
            whole = range(size, count * size + 1, size)
            yield Content(keys[first : first + count], whole if count * size <= prompt else Ends(whole[:-1], prompt), common), 0


class Ends(Sequence[int]):
    """Ends of blocks of one size, the last of them only partly filled."""

    __slots__ = ("_last", "_whole")

    def __init__(self, whole: range, last: int):
        self._whole, self._last = whole, last

    def __len__(self) -> int:
        return len(self._whole) + 1

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            return self._whole[first:last:step] if last <= len(self._whole) and step > 0 else (*self._whole, self._last)[index]
        whole = len(self._whole)
        return self._last if index in (whole, -1) else self._whole[index if index >= 0 else index + 1]

    def __iter__(self) -> Iterator[int]:
        yield from self._whole
        yield self._last


class Chain(NamedTuple):
    """Row `row[i]` of the table begins with the first `shared` tokens of row `ref` and of its answer; ref -1: with nothing of another.

    `ref`, `shared` and `prompt` (tokens; int64) speak of the whole table, so that rows that are left out still link those that are not.
    """

    ref: np.ndarray
    shared: np.ndarray
    prompt: np.ndarray
    row: np.ndarray

    def pick(self, which: Any) -> Chain:
        """The rows of a mask, of indices or of a slice."""
        return self._replace(row=self.row[which])

    def contents(self, world: Client, starts: Iterator[Content]) -> Iterator[tuple[Content, int]]:
        """(content, reply) of each row. What is new in a row has two keys, one for the end of its prompt and one for the answer.

        A row that goes on from no other begins as the next of `starts` does.
        """
        base = world.keys(2 * len(self.ref))
        ref, shared, prompt = self.ref.tolist(), self.shared.tolist(), self.prompt.tolist()
        # A content is kept until it was sent and every row that begins with it has been made.
        readers = np.bincount(self.ref[self.ref >= 0], minlength=len(ref)) + np.bincount(self.row, minlength=len(ref))
        left = readers.tolist()
        made: dict[int, Content] = {}
        for row in self.row.tolist():
            missing = [row] if row not in made else []
            while missing and ref[missing[-1]] >= 0 and ref[missing[-1]] not in made:
                missing.append(ref[missing[-1]])
            for one in reversed(missing):
                before = ref[one]
                if before < 0:
                    made[one] = longer(cut(next(starts), prompt[one]), base + 2 * one, prompt[one])
                    continue
                past = cut(longer(made[before], base + 2 * before + 1, shared[one]), shared[one])
                made[one] = longer(past, base + 2 * one, prompt[one])
                left[before] -= 1
                if not left[before]:
                    del made[before]
            content = made[row]
            left[row] -= 1
            if not left[row]:
                del made[row]
            yield content, base + 2 * row + 1


def blocks(ids: np.ndarray, counts: np.ndarray, prompts: np.ndarray, size: int, scope: np.ndarray | None = None) -> Blocks:
    """Blocks of the ids of all rows one after the other (int64), `counts[i]` of them of row i.

    Ids of different `scope`s (from 0) name different blocks. An id may name a block with or without what is before it; a key always names
    both.
    """
    first = np.cumsum(counts) - counts
    parents = np.empty_like(ids)
    parents[1:] = ids[:-1]
    filled = counts > 0
    parents[first[filled]] = -1 if scope is None else -1 - scope[filled]
    _, found, keys = np.unique(ids, return_index=True, return_inverse=True)
    if not (parents == parents[found][keys]).all():
        keys = _chained(ids, first, counts, scope)
    holders = np.bincount(keys, minlength=1)
    many = np.concatenate([[0], np.cumsum((2 * holders >= len(counts))[keys] if len(counts) > 1 else np.zeros(len(keys)))])
    leading = (many[first + counts] - many[first]).astype(np.int64)
    return Blocks(keys.astype(np.int64), first, counts, np.minimum(leading * size, prompts), prompts, size)


def _chained(ids: np.ndarray, first: np.ndarray, counts: np.ndarray, scope: np.ndarray | None) -> np.ndarray:
    seen: dict[tuple[int, int], int] = {}
    keys = []
    flat, roots = ids.tolist(), [-1] * len(counts) if scope is None else (-1 - scope).tolist()
    for begin, number, parent in zip(first.tolist(), counts.tolist(), roots, strict=True):
        for one in flat[begin : begin + number]:
            parent = seen.setdefault((parent, one), len(seen))
            keys.append(parent)
    return np.array(keys, dtype=np.int64)


def of_tokens(lists: Sequence[Sequence[int]], prompts: np.ndarray, size: int) -> Blocks:
    """Blocks of prompts whose tokens are known, cut every `size` tokens.

    >>> found = of_tokens([[5, 6, 7], [5, 6, 8], [9, 6, 7]], np.array([3, 3, 3]), 2)
    >>> found.keys.tolist(), found.counts.tolist()
    ([0, 1, 0, 2, 3, 4], [2, 2, 2])
    """
    seen: dict[tuple[int, ...], int] = {}
    ids = [seen.setdefault(tuple(tokens[at : at + size]), len(seen)) for tokens in lists for at in range(0, len(tokens), size)]
    counts = np.array([-(-len(tokens) // size) for tokens in lists], dtype=np.int64)
    return blocks(np.array(ids, dtype=np.int64), counts, prompts, size)


def of_sessions(thread: np.ndarray, prompt: np.ndarray, output: np.ndarray) -> Chain:
    """Rows (in order of time) of one thread, a number >= 0, go on from each other; arrays of one length.

    A prompt at least as long as that of the turn before begins with it, and then with as much of its answer as there is room for. A shorter
    one begins afresh: in recorded coding sessions (the trace behind the preset cc_weka), 1 % of the turns are shorter than the one before
    and then share only the system prompt with it, as the context was compacted, and 99 % hold the whole prompt of the turn before.
    """
    ref, shared = np.full(len(thread), -1, dtype=np.int64), np.zeros(len(thread), dtype=np.int64)
    order = np.argsort(thread, kind="stable")
    before, after = order[:-1], order[1:]
    linked = (thread[before] == thread[after]) & (thread[after] >= 0) & (prompt[after] >= prompt[before])
    before, after = before[linked], after[linked]
    ref[after], shared[after] = before, np.minimum(prompt[after], prompt[before] + output[before])
    return Chain(ref, shared, prompt, np.arange(len(thread)))
