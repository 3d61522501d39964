"""One message to many places, handed on by those who have it: directly, down a tree, or along a chain, piece by piece.

A place sends a piece on when it has all of it (store and forward); over one edge pieces go one after another, and nobody waits for one
before he asks for the next: of an edge's latency, a later piece feels what is left since its sender got it. With n receivers, m pieces that
take t seconds each over an edge, all edges alike and without latency, and every place sending and receiving at full speed at once:

    direct     n m t              the source sends to all at a time, each gets an n-th of its link
    tree       (d + m - 1) k t    full k-ary tree of depth d: a place sends to its k children at a time
    binomial   d m t              d = ceil(log2(n + 1)): who has the message sends it to one more, over and over
    pipeline   (n + m - 1) t      a chain: with many pieces the number of receivers hardly matters

The last is the reason why weight syncs broadcast in a ring or chain of buckets (Patarasuk and Yuan 2009; van de Geijn and Watts 1997 for
the trees). What is shared, a spine or a card, slows this down by itself: every piece is a flow like any other.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sim.core.transfer import Transfer
from sim.physics.topology import Place, Topology, label
from sim.world.network import Cargo, Network

ALGORITHMS = ("direct", "tree", "binomial", "pipeline")


def parents(algorithm: str, receivers: int, fanout: int = 2) -> list[int]:
    """Who sends to each receiver 1, 2, ..: 0 is the source.

    >>> parents("tree", 6), parents("binomial", 7), parents("pipeline", 3)
    ([0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 1, 2, 3], [0, 1, 2])
    """
    numbers = range(1, receivers + 1)
    if algorithm == "direct":
        return [0 for _ in numbers]
    if algorithm == "pipeline":
        return [number - 1 for number in numbers]
    if algorithm == "tree":
        return [(number - 1) // fanout for number in numbers]
    # Round r doubles those who have it: number without its highest bit sends to number.
    return [number ^ (1 << (number.bit_length() - 1)) for number in numbers]


def pieces(size: float, chunk: float | None) -> list[float]:
    """Bytes of each piece: all of `chunk` but the last."""
    count = 1 if chunk is None else max(math.ceil(size / chunk), 1)
    return [size] if chunk is None or count == 1 else [chunk] * (count - 1) + [size - chunk * (count - 1)]


class Broadcast:
    """`order.size` bytes from the first of `places` to each of the others, in their order, as `order` says; then `done` is called."""

    def __init__(self, ways: tuple[Network, Topology], places: Sequence[Place], order: Transfer, done: Callable[[], None]):
        self._network, topology = ways
        self._done, receivers = done, max(len(places) - 1, 0)
        assert order.size is not None
        self._pieces = pieces(order.size, order.chunk if order.algorithm != "direct" else None)
        self._parents = [-1, *parents(order.algorithm, receivers, order.fanout)]
        self._children: list[list[int]] = [[] for _ in places]
        for child, parent in enumerate(self._parents[1:], 1):
            self._children[parent].append(child)
        self._in_turn = order.algorithm == "binomial"
        self._have = [len(self._pieces), *[0] * receivers]
        self._got: list[list[float]] = [[] for _ in places]
        self._sending = [False] * len(places)
        self._missing = receivers
        names = [label(place) for place in places]
        self._cargo = [Cargo(order.what, names[parent], name, 0.0, order.weight, order.priority, order.limit)
                       for name, parent in zip(names, self._parents, strict=True)]  # fmt: skip
        self._paths = [topology.path(places[parent], place) for parent, place in zip(self._parents, places, strict=True)]

    def start(self) -> None:
        """Begin to send, at this instant."""
        self._got[0] = [self._network.now] * len(self._pieces)
        if self._missing:
            self._pass_on(0)
        else:
            self._done()

    def _pass_on(self, sender: int) -> None:
        """Send what a place has to those who wait for it."""
        for child in self._children[sender]:
            self._offer(child)
            if self._in_turn and self._have[child] < len(self._pieces):
                return

    def _offer(self, child: int) -> None:
        if not self._sending[child] and self._have[child] < self._have[self._parents[child]]:
            self._send(child)

    def _send(self, child: int) -> None:
        self._sending[child] = True
        number, path = self._have[child], self._paths[child]
        if number and path.latency:
            left = self._got[self._parents[child]][number] + path.latency - self._network.now
            path = path._replace(latency=max(left, 0.0))
        self._network.send(self._cargo[child]._replace(size=self._pieces[number]), path, lambda: self._arrived(child))

    def _arrived(self, child: int) -> None:
        self._sending[child] = False
        self._have[child] += 1
        self._got[child].append(self._network.now)
        if self._have[child] == len(self._pieces):
            self._missing -= 1
        if self._in_turn:
            self._pass_on(self._parents[child])
        else:
            self._offer(child)
        self._pass_on(child)
        if not self._missing:
            self._done()
