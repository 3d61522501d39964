"""Which of several changes made the difference: they are switched one at a time, and the rest follows.

In a given order each change is credited with what it adds to those before it. With few changes every combination is run, and each change
gets the average of what it adds over all orders (Shapley, A value for n-person games, 1953), which depends on no order. Both sum to the
whole difference. Replications are paired, so that each part has an interval of its own.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sim.core.errors import BadInput
from sim.spec.scenario import Scenario
from sim.study.compare.change import Change, switched
from sim.study.replicate.interval import Interval, apart, p_value, student

MOST = 4  # changes of which every combination is run

Values = Callable[[Scenario], np.ndarray]  # the figure of each replication of a scenario


class Part(NamedTuple):
    """What one change, or some that only go together, add to the figure: in the order given, and on average over orders (None: not known).

    `p`: how likely so much is by chance, in the order given.
    """

    changes: tuple[Change, ...]
    added: Interval
    p: float
    average: Interval | None


class Waterfall(NamedTuple):
    """From `before` to `after`, the mean of a figure; `remark` says what could not be done."""

    figure: str
    before: float
    after: float
    parts: list[Part]
    remark: str


def waterfall(base: Scenario, some: Sequence[Change], figure: str, ends: tuple[np.ndarray, np.ndarray], values: Values) -> Waterfall:
    """Switch `some` one by one from `base` on; `ends` are the figure's values of `base` and with all of them. Raises BadInput where the
    figure is undefined on the way.
    """
    found: dict[frozenset[int], np.ndarray] = {frozenset(): ends[0], frozenset(range(len(some))): ends[1]}

    def at(which: frozenset[int]) -> np.ndarray:
        if which not in found:
            found[which] = values(switched(base, [change for place, change in enumerate(some) if place in which]))
        return found[which]

    groups = _together(len(some), at)
    averages, remark = _averages(groups, at)
    parts, done = [], frozenset[int]()
    for number, group in enumerate(groups):
        added = apart(at(done), at(done | group))
        mine = tuple(some[place] for place in sorted(group))
        parts.append(Part(mine, student(added), p_value(added), student(averages[number]) if averages else None))
        done |= group
    return Waterfall(figure, float(ends[0].mean()), float(ends[1].mean()), parts, remark)


def _together(count: int, at: Callable[[frozenset[int]], np.ndarray]) -> list[frozenset[int]]:
    """The changes one by one; those that cannot be made without the next are made with it."""
    groups, done, open_ = [], frozenset[int](), frozenset[int]()
    for place in range(count):
        open_ |= {place}
        try:
            at(done | open_)
        except BadInput:
            if place == count - 1:
                raise
            continue
        groups.append(open_)
        done, open_ = done | open_, frozenset[int]()
    return groups


def _averages(groups: Sequence[frozenset[int]], at: Callable[[frozenset[int]], np.ndarray]) -> tuple[list[np.ndarray], str]:
    """Of each group, what it adds on average over all orders; none, and why, where not every combination can be run."""
    n = len(groups)
    if n > MOST:
        return [], f"There are {n} changes, and combinations are run of {MOST} at most: the parts depend on the order."
    try:
        values = {some: at(frozenset().union(*(groups[place] for place in some)))
                  for size in range(n + 1) for some in itertools.combinations(range(n), size)}  # fmt: skip
    except BadInput as error:
        said = error.problems[0].message
        return [], f"Not every combination of the changes can be run ({said}): the parts depend on the order."
    return [_average(place, n, values) for place in range(n)], ""


def _average(place: int, n: int, values: Mapping[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """Shapley's value of one player, of each replication."""
    total = np.zeros_like(values[()])
    for some, without in values.items():
        if place not in some:
            weight = math.factorial(len(some)) * math.factorial(n - len(some) - 1) / math.factorial(n)
            total += weight * apart(without, values[tuple(sorted((*some, place)))])
    return total
