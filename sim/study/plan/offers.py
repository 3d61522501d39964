"""What is known of every layout of a plan under so much traffic: in how many replicas it is to be had, at what cost, and what is ruled out
before a run.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sim.core.errors import BadInput
from sim.study.plan import bounds
from sim.study.plan.bench import Bench
from sim.study.plan.cheapest import Offer
from sim.study.plan.layouts import Layout


class Offers(Sequence[Offer]):
    """The offers of all layouts, `made` when asked for; `notes`: why some hold in no number. What failed under less traffic (`before`)
    fails here too.
    """

    def __init__(self, bench: Bench, growth: float, before: Offers | None):
        self.made: dict[int, Offer] = {}
        self.notes: dict[int, str] = {} if before is None else dict(before.notes)
        self._bench, self._growth, self._before = bench, growth, before
        self._demand: dict[str, bounds.Demand | None] = {}

    def __len__(self) -> int:
        return len(self._bench.layouts)

    def __getitem__(self, place: Any) -> Offer:
        if place not in self.made:
            self.made[place] = self._make(place)
        return self.made[place]

    def _make(self, place: int) -> Offer:
        layout, counts = self._bench.layouts[place], self._bench.search.counts
        if layout.refused:
            return Offer(counts, lambda count: math.inf, len(counts))
        paid = None if layout.fixed else lambda count: self._bench.usd(place, count, self._growth)
        offer = Offer(counts, layout.hourly, paid=paid)
        offer.fails(layout.least - 1)
        if self._before is not None and place in self._before.made:
            offer.low = max(offer.low, self._before.made[place].low)
        asked = self._asked(place) if offer.low < len(counts) else None
        if offer.low < len(counts):
            why = self.notes.get(place) or bounds.impossible(layout, asked)
            if why:
                self.notes[place] = why
                offer.fails(counts[-1])
            elif asked is not None:
                offer.fails(bounds.fewest(layout, asked) - 1)
        return offer

    def over(self, place: int) -> float:
        """What a layout reaches at the best, over the limit that it is furthest from; 0 where nothing is known."""
        return max((floor.over for floor in bounds.floors(self._bench.layouts[place], self._asked(place))), default=0.0)

    def _asked(self, place: int) -> bounds.Demand | None:
        """What the traffic asks for, found by one run of a layout that can be run, and kept for those with the same traffic."""
        traffic = _traffic(self._bench.layouts[place])
        if traffic not in self._demand:
            try:
                self._demand[traffic] = self._bench.demand(place, self._growth, len(self._demand))
            except BadInput:
                return None
        return self._demand[traffic]


def _traffic(layout: Layout) -> str:
    """What decides what is asked of a layout: its workloads, their luck, and whether the cache may spare it some of them."""
    scenario = layout.whole
    return repr((scenario.seed, scenario.duration, scenario.workloads, layout.mine.engine.enable_prefix_caching))
