"""Ways between regions: the quickest chain of wans, for requests over any, for bytes over those with a bandwidth.

Regions are few, so all pairs are worked out at once (Floyd and Warshall); of two chains alike the one written first is taken.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from sim.core.errors import BadInput
from sim.spec.network import Network

Ways = dict[tuple[str, str], tuple[float, tuple[int, ...]]]  # by the regions at the ends: seconds, links


class Wans:
    """`links`: the number of the first link of each wan (there; back is the next), -1 of those without a bandwidth."""

    def __init__(self, network: Network, links: Sequence[int]):
        self.regions = network.regions
        wans = list(zip(network.wan, links, strict=True))
        self._requests: Ways = self._quickest([(wan.between, wan.latency, -1) for wan, _ in wans])
        self._bytes: Ways = self._quickest([(wan.between, wan.latency, link) for wan, link in wans if link >= 0])

    def latency(self, a: str, b: str) -> float:
        """Seconds one way; raises BadInput when nothing connects the regions."""
        return self._found(self._requests, a, b, "")[0]

    def route(self, a: str, b: str) -> list[int]:
        """The links on the way; raises BadInput when no wans with a bandwidth connect the regions."""
        return list(self._found(self._bytes, a, b, " that has a bandwidth")[1])

    def _found(self, ways: Ways, a: str, b: str, what: str) -> tuple[float, tuple[int, ...]]:
        if a == b:
            return 0.0, ()
        if (a, b) not in ways:
            raise BadInput(f"no route between region '{a}' and region '{b}': no chain of wans{what} connects them")
        return ways[a, b]

    def _quickest(self, wans: Sequence[tuple[tuple[str, ...], float, int]]) -> Ways:
        ways: Ways = {}
        for (a, b), latency, link in wans:
            for way, step in (((a, b), 0), ((b, a), 1)):
                if latency < ways.get(way, (math.inf,))[0]:
                    ways[way] = latency, (link + step,) if link >= 0 else ()
        for via in self.regions:
            for a in self.regions:
                for b in self.regions:
                    if a != b and (a, via) in ways and (via, b) in ways:
                        latency = ways[a, via][0] + ways[via, b][0]
                        if latency < ways.get((a, b), (math.inf,))[0]:
                            ways[a, b] = latency, ways[a, via][1] + ways[via, b][1]
        return ways
