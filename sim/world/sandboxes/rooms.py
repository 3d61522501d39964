"""Which node a sandbox is placed on, in logarithmic time: nodes in a heap by the room that they had when it last changed.

An entry that does not tell the truth any more is thrown away when it comes up. bin_pack takes the fullest node with room, so that others
stay empty and can go; spread the emptiest; image one that has the image, and where none has it the emptiest. Of equals the first.
"""
from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from sim.world.sandboxes.node import READY, Node


class Rooms:
    """Those of the nodes of a pool, told by `changed`. `place` as in `SandboxPool`. `passed`: at the last pick a node had room, but did not
    fit.
    """

    def __init__(self, place: str):
        self._sign = 1 if place == "bin_pack" else -1
        self._heap: list[tuple[int, int, Node]] = []
        self._all: dict[int, Node] = {}
        # By image the nodes that have it, and perhaps room.
        self._having: dict[int, dict[int, Node]] | None = {} if place == "image" else None
        self._closed: dict[int, Node] = {}
        self.passed = False

    def changed(self, node: Node) -> None:
        """A node came, or has another room than before."""
        room = node.room
        if node.state != READY or room < 1:
            return
        self._all[node.number] = node
        heappush(self._heap, (self._sign * room, node.number, node))
        if self._having is not None and self._closed.pop(node.number, None):
            for image in node.images.sizes:
                self._having.setdefault(image, {})[node.number] = node
        if len(self._heap) > 8 * len(self._all) + 64:
            self._heap = [(self._sign * node.room, number, node) for number, node in self._all.items() if node.state == READY and node.room]
            heapify(self._heap)

    def gone(self, node: Node) -> None:
        """A node is there no more."""
        self._all.pop(node.number, None)
        self._closed.pop(node.number, None)
        for image in node.images.sizes:
            self.lost(node, image)

    def got(self, node: Node, image: int) -> None:
        """A node has an image, or has it coming."""
        if self._having is not None:
            self._having.setdefault(image, {})[node.number] = node

    def lost(self, node: Node, image: int) -> None:
        """It has it no more."""
        if self._having is not None and image in self._having:
            self._having[image].pop(node.number, None)

    def pick(self, image: int, fits: Callable[[Node], bool]) -> Node | None:
        """A node with room for a sandbox of an image, or None. Nothing is taken yet."""
        node = self._with(image, fits)
        return node if node is not None else self._any(fits)

    def _with(self, image: int, fits: Callable[[Node], bool]) -> Node | None:
        having = self._having.get(image) if self._having is not None else None
        found = None
        full = []
        for node in having.values() if having else ():
            if node.state != READY or node.room < 1:
                full.append(node)
            elif fits(node):
                found = node
                break
        for node in full:
            del having[node.number]  # type: ignore[union-attr]
            self._closed[node.number] = node
        return found

    def _any(self, fits: Callable[[Node], bool]) -> Node | None:
        heap, passed, found = self._heap, [], None
        while heap:
            key, _, node = heap[0]
            if node.state != READY or node.room != self._sign * key:
                heappop(heap)
            elif fits(node):
                found = node
                break
            else:
                passed.append(heappop(heap))
                while heap and heap[0] == passed[-1]:
                    heappop(heap)
        self.passed = bool(passed)
        self.passed = bool(passed)
        for entry in passed:
            heappush(heap, entry)
        return found
