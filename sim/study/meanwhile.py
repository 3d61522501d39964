"""What GPUs did while something else went on, such as tools on CPUs: how much of their idle time falls into it.

Of a set of intervals only the union counts. F(t) is the seconds of it up to t, piecewise linear, so that the part of any other interval
that lies in the union is a difference of two values of F: exact, and one interpolation for all steps of a run.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sim.study.metrics import Facts


class Union:
    """The union of intervals, seconds, as begins and ends (`spans`) that neither overlap nor touch; what has no end is left out.

    >>> [part.tolist() for part in Union(np.array([0.0, 5.0, 1.0, 3.0]), np.array([2.0, 6.0, 3.0, 4.0])).spans]
    [[0.0, 5.0], [4.0, 6.0]]
    """

    def __init__(self, start: np.ndarray, end: np.ndarray):
        known = end >= start
        order = np.argsort(start[known], kind="stable")
        start, end = start[known][order], np.maximum.accumulate(end[known][order]) if known.any() else end[known]
        heads = np.append(True, start[1:] > end[:-1])[: len(start)]
        self.spans = start[heads], end[np.append(heads[1:], True)[: len(start)]]

    def within(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Seconds of each interval [start, end] that lie in the union."""
        if not len(self.spans[0]):
            return np.zeros(len(start))
        times = np.stack(self.spans, axis=1).ravel()
        passed = np.append(0.0, np.cumsum(np.diff(times) * (np.arange(len(times) - 1) % 2 == 0)))
        found: np.ndarray = np.interp(end, times, passed) - np.interp(start, times, passed)
        return found


def idle_gpus(facts: Facts, during: Union) -> tuple[float, float]:
    """GPU-seconds without a step: those that fall into the union, and all."""
    lives = facts.replicas["start"], np.where(np.isnan(facts.replicas["end"]), facts.end, facts.replicas["end"])
    start, end = np.maximum(lives[0], facts.begin), np.minimum(lives[1], facts.end)
    end = np.maximum(start, end)
    meanwhile, every = float((during.within(start, end) * facts.gpus).sum()), float(((end - start) * facts.gpus).sum())
    for page in facts.stretches():
        meanwhile -= float((during.within(page["start"], page.end) * page.gpus).sum())
        every -= float((page["seconds"] * page.gpus).sum())
    return max(meanwhile, 0.0), max(every, 0.0)
