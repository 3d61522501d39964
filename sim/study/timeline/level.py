"""How many of something there are, as counters: of few intervals every change, of many the mean in bins of the run, in little memory."""
from __future__ import annotations

import numpy as np

from sim.study.facts import Bins
from sim.study.timeline.stream import Trace, quoted

BINS = 1000


class Level:
    """The sum of weights of intervals over time, of at most `rows` intervals, in at most `most` events."""

    def __init__(self, end: float, rows: int, most: int):
        self._end = end
        self.exact = 2 * rows <= most
        self._times: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._bins = Bins(np.linspace(0.0, max(end, 1e-9), max(min(BINS, most - 1), 1) + 1))

    def add(self, start: np.ndarray, end: np.ndarray, weight: float | np.ndarray = 1.0) -> None:
        """Intervals, seconds; those with a NaN begin are left out, those with a NaN end last to the end of the run."""
        known = ~np.isnan(start)
        begin, weights = start[known], np.broadcast_to(weight, start.shape)[known]
        until = np.maximum(np.where(np.isnan(end[known]), self._end, end[known]), begin)
        if not self.exact:
            self._bins.add(begin, until, weights)
            return
        self._times += [begin, until]
        self._weights += [weights, -weights]

    def series(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, seconds, and the values from each on."""
        if not self.exact:
            return np.append(self._bins.edges[:-1], self._end), np.append(self._bins.means(), 0.0)
        if not self._times:
            return np.zeros(0), np.zeros(0)
        times, weights = np.concatenate(self._times), np.concatenate(self._weights)
        order = np.argsort(times, kind="stable")
        at, values = times[order], np.cumsum(weights[order])
        last = np.append(at[1:] != at[:-1], True)
        return at[last], values[last]

    def draw(self, trace: Trace, process: int, name: str) -> None:
        """The counter, told at its changes."""
        at, values = self.series()
        shown = np.round(values, 3) + 0.0
        moved = np.append(True, shown[1:] != shown[:-1])[: len(shown)]
        for time, value in zip(trace.times(at[moved]), shown[moved].tolist(), strict=True):
            trace.counter(process, quoted(name), time, f'{{"value":{value:.12g}}}')


class Lanes:
    """Intervals that may overlap put on threads so that those of one thread do not; they are given in order of their begins."""

    def __init__(self, trace: Trace, process: int, name: str):
        self._trace, self._process, self._name = trace, process, name
        self._threads: list[int] = []
        self._free: list[int] = []

    def place(self, begin: int, until: int) -> tuple[int, int]:
        """(process, thread) for an interval, the first thread that is free."""
        for lane, free in enumerate(self._free):
            if free <= begin:
                self._free[lane] = until
                return self._process, self._threads[lane]
        number = len(self._free) + 1
        self._free.append(until)
        self._threads.append(self._trace.thread(self._process, self._name if number == 1 else f"{self._name} {number}"))
        return self._process, self._threads[-1]
