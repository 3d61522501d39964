"""Max-min fair rates with strict priorities: the flows of the highest share the links as if alone, those of the next get what is left.

One `FairShares` for each priority. A link with flows of several is pinned in all but the lowest of them, so that its load there is known
whenever it changes. Bytes/s.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from sim.physics.max_min import SAME, FairShares, Flow


class PriorityShares:
    """`ranks`: (priority, its flows), the highest first."""

    def __init__(self, capacities: Sequence[float]):
        self.capacities = tuple(capacities)
        self.ranks: list[tuple[int, FairShares]] = []
        self._watched: dict[int, None] = {}

    def rank(self, priority: int) -> FairShares:
        """The flows of one priority."""
        for known, shares in self.ranks:
            if known == priority:
                return shares
        shares = FairShares(self.capacities)
        for link in self._watched:
            shares.pin(link)
        self.ranks.append((priority, shares))
        self.ranks.sort(key=lambda rank: -rank[0])
        return shares

    def add(self, flow: Flow, shares: FairShares) -> None:
        """A flow comes to a rank."""
        if len(self.ranks) == 1:
            shares.add(flow)
            return
        links = [link for link in flow.links if link < shares.nowhere]
        for link in links:
            # What a rank may use of a link was not kept while it had no flows there.
            if not shares.flows[link]:
                shares.offer(link, self.capacities[link])
        shares.add(flow)
        for link in links:
            self._pin(link)

    def _pin(self, link: int) -> None:
        """Keep track of a link in all ranks but the lowest that has flows on it."""
        below = False
        for _, shares in reversed(self.ranks):
            if below and shares.flows[link]:
                shares.pin(link)
            below = below or bool(shares.flows[link])

    def watch(self, links: Sequence[int]) -> None:
        """Make `load` of some links known from now on."""
        self._watched.update(dict.fromkeys(links))
        for _, shares in self.ranks:
            for link in links:
                shares.pin(link)

    def unwatch(self, links: Sequence[int]) -> None:
        """It need not be known any more: `settle` lets go of what it comes by."""
        for link in links:
            del self._watched[link]

    def load(self, link: int) -> float:
        """Bytes/s of all flows over a watched link."""
        return sum(shares.load(link) for _, shares in self.ranks)

    def full(self, link: int) -> bool:
        """Whether a link carries all it can."""
        return any(shares.full(link) for _, shares in self.ranks)

    def settle(self) -> None:
        """Find the levels of all ranks; what changed is noted in each of them."""
        known: dict[int, None] = {}
        for number, (_, shares) in enumerate(self.ranks):
            for link in known:
                if shares.flows[link]:
                    shares.offer(link, self._left(link, number))
            shares.settle()
            known.update((link, None) for link in shares.seen if link in shares.pinned)
        below: dict[int, None] = {}
        for _, shares in reversed(self.ranks):
            for link in known:
                if link in shares.pinned and link not in self._watched and not (link in below and shares.flows[link]):
                    shares.unpin(link)
                if shares.flows[link]:
                    below[link] = None

    def _left(self, link: int, number: int) -> float:
        capacity = self.capacities[link]
        left = capacity - math.fsum(shares.load(link) for _, shares in self.ranks[:number] if shares.flows[link])
        return left if left > SAME * capacity else 0.0
