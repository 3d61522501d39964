"""Who holds which beginnings of prompts: a tree of the pieces that prompts consist of, with the replicas that have each.

A piece is named by a key and ends before some token or block, counted from the front of the prompt; a key means the same only behind the
same pieces (`core/content.py`). One walk down the tree tells what every replica has of a prompt, however many there are, as the trees of
SGLang's cache-aware router and of Dynamo's KV indexer do.
"""
from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from sim.core.request import Request

Piece = tuple[Any, int]


class Branch:
    """A piece: how far into it each replica goes, by replica, and what follows, by (end of this piece, key)."""

    __slots__ = ("children", "key", "parent", "reach", "start")

    def __init__(self, parent: Branch | None, start: int, key: Any):
        self.parent, self.start, self.key = parent, start, key
        self.reach: dict[int, int] = {}
        self.children: dict[tuple[int, Any], Branch] = {}


class Index:
    """The beginnings that replicas hold, each replica all of a prompt up to some point."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = Branch(None, 0, None)

    def hits(self, pieces: Iterable[Piece]) -> dict[int, int]:
        """How far each replica has a prompt of these pieces; those that have nothing of it are left out."""
        found: dict[int, int] = {}
        branch, start = self._root, 0
        for key, end in pieces:
            child = branch.children.get((start, key))
            if child is None:
                break
            whole = False
            for replica, reach in child.reach.items():
                # Only who has all before it: others have a longer piece of this key, or ended sooner.
                if start == 0 or found.get(replica) == start:
                    whole = whole or reach >= end
                    found[replica] = reach if reach < end else end
            if not whole:
                break
            branch, start = child, end
        return found

    def put(self, pieces: Iterable[Piece], replica: int) -> list[Branch]:
        """A replica has all of these pieces; returns their branches, front first."""
        branch, start = self._root, 0
        way = []
        for key, end in pieces:
            child = branch.children.get((start, key))
            if child is None:
                child = branch.children[start, key] = Branch(branch, start, key)
            if child.reach.get(replica, 0) < end:
                child.reach[replica] = end
            way.append(child)
            branch, start = child, end
        return way

    def way(self, pieces: Iterable[Piece]) -> list[tuple[Branch, int]]:
        """The branches of pieces, as far as there are any, front first, and where each piece ends."""
        branch, start = self._root, 0
        way = []
        for key, end in pieces:
            child = branch.children.get((start, key))
            if child is None:
                break
            way.append((child, end))
            branch, start = child, end
        return way

    def cut(self, way: list[tuple[Branch, int]], replica: int, to: int) -> None:
        """A replica has no more than the first `to` of a prompt on this way; what it lost is taken off, and the way can be cut again."""
        while way and way[-1][0].start >= to:
            self.drop(way.pop()[0], replica)
        if way:
            branch, end = way[-1]
            if end > to and branch.reach.get(replica, 0) > to:
                branch.reach[replica] = to

    def drop(self, branch: Branch, replica: int) -> None:
        """A replica has nothing of a piece any more."""
        branch.reach.pop(replica, None)
        while not branch.reach and not branch.children and branch.parent is not None:
            branch.parent.children.pop((branch.start, branch.key), None)
            branch = branch.parent

    def forget(self, replica: int) -> None:
        """A replica is gone, and all that it had."""
        stack = [self._root]
        bare = []
        while stack:
            branch = stack.pop()
            branch.reach.pop(replica, None)
            stack += branch.children.values()
            if not branch.children and not branch.reach:
                bare.append(branch)
        for branch in bare:
            self.drop(branch, replica)


def pieces(request: Request) -> list[Piece]:
    """What a request's prompt consists of as far as anything else may share it: (key, token before which it ends)."""
    content, prompt = request.content, request.prompt
    found: list[Piece] = []
    if content is not None:
        ends = content.ends
        count = bisect_left(ends, prompt)
        found = list(zip(content.keys[:count], ends[:count], strict=True))
        if count < len(ends):
            found.append((content.keys[count], prompt))
            return found
    if request.reply:
        found.append((request.reply, prompt))
    return found


class Sent:
    """A router's own record of what it sent where, the least recently used forgotten first: what a replica holds by its count.

    It hears of no eviction and no answer: a replica may have lost what stands here, and holds answers that do not. `capacity` tokens are
    kept for each replica.
    """

    __slots__ = ("_asked", "_index", "_kept", "_sizes")

    def __init__(self) -> None:
        self._index = Index()
        self._kept: dict[int, OrderedDict[Branch, int]] = {}
        self._sizes: dict[int, int] = {}
        self._asked: tuple[Request | None, list[Piece]] = None, []

    def hits(self, request: Request) -> Mapping[int, int]:
        """Prompt tokens of a request that each replica should hold, by its index; replicas without any are left out."""
        self._asked = request, pieces(request)
        return self._index.hits(self._asked[1])

    def put(self, request: Request, replica: int, capacity: int) -> None:
        """A request was sent to a replica."""
        # As a rule it was asked about just before.
        asked, said = self._asked
        if asked is not request:
            said = pieces(request)
        self._asked = None, []
        if not said:
            return
        kept = self._kept.setdefault(replica, OrderedDict())
        size = self._sizes.get(replica, 0)
        way = self._index.put(said, replica)
        # The end of a prompt first, so that it is forgotten before its beginning.
        for branch in reversed(way):
            tokens = branch.reach[replica] - branch.start
            size += tokens - kept.pop(branch, 0)
            kept[branch] = tokens
        while size > capacity:
            branch, tokens = kept.popitem(last=False)
            size -= tokens
            self._index.drop(branch, replica)
        self._sizes[replica] = size
