"""The cheapest of many offers that holds, with few runs: branch and bound over offers, bisection within each.

An offer is something of which one can have 1, 2, 3 ... at a cost that rises, and which holds from some number on. That more of it never
hold less is taken for granted, as in `study/smallest.py`. Offers are looked at in the order of what they cost at the least. Once one is
known to hold, one run decides of a further offer whether it can be cheaper at all: with as many as are just cheaper. A lower bound that a
closed form gives (`study/plan/bounds.py`) saves even that one.

Not a clock, a run or a scenario is known here: `holds` may be anything, which is how it is tested against looking at everything.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass

Holds = Callable[[int, int], bool]
Order = Callable[[Sequence["Offer"], MutableMapping[int, float]], Iterable[int]]


@dataclass
class Offer:
    """`counts`: how many one can have, ascending. The first `low` of them are known not to hold, by runs or a bound; that in place `high`
    of them holds, None while none is known to. `cost` of a count, dollars per hour; with `paid` that is what it costs at the least, and
    `paid` is known only of what was found to hold.
    """

    counts: Sequence[int]
    cost: Callable[[int], float]
    low: int = 0
    high: int | None = None
    paid: Callable[[int], float] | None = None

    @property
    def least(self) -> float:
        """What it costs at the least, as far as is known."""
        return self.cost(self.counts[self.low]) if self.low < len(self.counts) else math.inf

    @property
    def found(self) -> float:
        """What the fewest cost that are known to hold."""
        return math.inf if self.high is None else (self.paid or self.cost)(self.counts[self.high])

    def fails(self, count: int) -> None:
        """So many do not hold, nor do fewer."""
        self.low = max(self.low, sum(1 for one in self.counts if one <= count))
        if self.high is not None and self.high < self.low:
            self.high = None

    def cheaper(self, cost: float) -> int:
        """Of the places not known to fail, how many cost less."""
        end = len(self.counts) if self.high is None else self.high
        return sum(1 for place in range(self.low, end) if self.cost(self.counts[place]) < cost)


def cheapest(
    offers: Sequence[Offer], holds: Holds, confirmed: Holds | None = None, order: Order | None = None
) -> tuple[int, int] | None:  # fmt: skip
    """The offer that costs least and how many of it, None when none holds. `offers` learn what was found out.

    `holds(offer, count)` is asked once for each pair. What is found is `confirmed`, which may be stricter and dearer; what is not is taken
    to fail, and the search goes on. `order` says which offers to look at, and is told what came of each: a cost it was found to have or
    exceeds.
    """
    known: dict[tuple[int, int], bool] = {}
    looked: dict[int, Offer] = {}

    def once(place: int, count: int) -> bool:
        if (place, count) not in known:
            known[place, count] = holds(place, count)
        return known[place, count]

    while True:
        best = _search(offers, looked, once, order or ascending)
        if best is None or confirmed is None or confirmed(*best):
            return best
        offers[best[0]].fails(best[1])


def ascending(offers: Sequence[Offer], told: MutableMapping[int, float]) -> Iterator[int]:
    """All of them, what costs least at the least first."""
    yield from sorted(range(len(offers)), key=lambda place: (offers[place].least, place))


def _search(offers: Sequence[Offer], looked: MutableMapping[int, Offer], holds: Holds, order: Order) -> tuple[int, int] | None:
    told: dict[int, float] = {}
    cost, best = min(((offer.found, place) for place, offer in looked.items()), default=(math.inf, -1))
    best = best if cost < math.inf else -1
    for place in order(offers, told):
        offer = looked[place] = offers[place]
        _look(offer, cost, lambda count, place=place: holds(place, count))  # type: ignore[misc]
        told[place] = min(offer.found, offer.least if offer.high is None else offer.found)
        if offer.found < cost:
            cost, best = offer.found, place
    if best < 0:
        return None
    high = offers[best].high
    assert high is not None
    return best, offers[best].counts[high]


def _look(offer: Offer, below: float, holds: Callable[[int], bool]) -> None:
    """Find the fewest of an offer that hold, if they cost less than `below`."""
    room = offer.cheaper(below)
    if not room:
        return
    first, last = offer.low, offer.low + room - 1
    if offer.high is None and (below < math.inf or not offer.low):
        # One run tells whether it can be cheaper at all; or, where no bound says where to begin, whether it can hold.
        if not holds(offer.counts[last]):
            offer.low = last + 1
            return
        offer.high = last
    elif offer.high is None:
        _gallop(offer, first, last, holds)
    while offer.high is not None and offer.high > offer.low:
        middle = (offer.low + offer.high) // 2
        if holds(offer.counts[middle]):
            offer.high = middle
        else:
            offer.low = middle + 1


def _gallop(offer: Offer, first: int, last: int, holds: Callable[[int], bool]) -> None:
    """From the lower bound up in growing steps, for the bound is often near."""
    place, step = first, 1
    while True:
        if holds(offer.counts[place]):
            offer.high = place
            return
        offer.low = place + 1
        if place == last:
            return
        place, step = min(place + step, last), step * 2
