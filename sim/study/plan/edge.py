"""The edge of an answer: the run that decided it, with which its replicas hold and one fewer fails.

An answer may hang on any of its runs: that of the scenario's own seed, of another seed that confirmed it, or of the short traffic that the
search begins with. Asked with a seed that decided nothing, a question about the answer is answered for another one, which may be much
smaller. Nothing is run for it but, as far as that was not done, one fewer with the scenario's own seed.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.study.plan.bench import WHOLE, Bench, Draw
from sim.study.plan.trial import Trial


class Edge(NamedTuple):
    """`fewer`: the replicas next to the answer, None where there are no fewer. `draw`: of the runs that the answer holds the first with
    which `fewer` fail, `failed`; None where none is known, and `draw` is the first that holds. `first`: how the scenario's own goes there.
    """

    fewer: int | None
    draw: Draw
    failed: Trial | None
    first: Trial | None


def edge(bench: Bench, place: int, count: int, growth: float) -> Edge:
    """The edge of so many replicas of a layout, which hold under so much traffic. Runs of the whole traffic come before short ones."""
    fewer = max((one for one in bench.search.counts if bench.layouts[place].least <= one < count), default=None)
    first = None if fewer is None else bench.one(place, fewer, growth)
    less = {} if fewer is None else bench.known(place, fewer, growth)
    held = sorted((draw for draw, one in bench.known(place, count, growth).items() if one.met), key=lambda draw: (-draw.share, draw.number))
    for draw in held:
        if draw in less and not less[draw].met:
            return Edge(fewer, draw, less[draw], first)
    return Edge(fewer, next(iter(held), WHOLE), None, first)
