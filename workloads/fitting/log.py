"""A user's log as a fit needs it: times from 0 on, lengths, the coarseness of its clock, and no holes that nobody has explained.

A hole is told from the long pauses of bursty traffic by its size among the pauses: those of traffic shrink gradually from the longest
down, an outage or missing data leaves one, or a few, that are several times as long as the next.
"""
from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sim.core.errors import BadInput, Problem
from workloads._identity import Blocks
from workloads.formats.base import Rows, ZeroTokens, load
from workloads.trace import spread_ticks

LEAST = 200
# A hole lasts at least so long, so many times the mean gap around it, and so many times the next shorter pause.
HOLE, HOLE_GAPS, HOLE_NEXT = 60.0, 20.0, 4.0
MOST_HOLES = 10
AROUND = 3600.0
TIES, TICK = 0.2, 1e-3


class Log(NamedTuple):
    """`times`: seconds from 0, ascending, over `span`; `prompt` and `output`: tokens (int64). `tick`: seconds of a coarse clock, else 0.

    `shared`: the part of all prompt tokens that stood at the front of an earlier prompt, where the log tells; else None.
    """

    name: str
    times: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    span: float
    tick: float
    shared: float | None
    remarks: list[str]

    def part(self, begin: float, end: float) -> Log:
        """What arrives in [begin, end), its times counted from `begin`."""
        here = slice(*np.searchsorted(self.times, (begin, end)).tolist())
        return self._replace(times=self.times[here] - begin, prompt=self.prompt[here], output=self.output[here], span=end - begin)


class Hole(NamedTuple):
    """A pause from one request to the next, and how many times the mean gap of the hour around it that is."""

    begin: float
    end: float
    times: float


def read(
    path: str, format: str = "auto", zero_tokens: ZeroTokens = "error", order: Literal["check", "sort"] = "check",
    window: tuple[float, float] = (0.0, np.inf), keep_gaps: bool = False,
) -> Log:  # fmt: skip
    """The log in a file of any format that has times, `window` seconds of it. Raises BadInput."""
    try:
        rows = load(path, format, zero_tokens, order, identity=True)
    except BadInput as error:
        raise BadInput([problem._replace(message=_as_options(problem.message)) for problem in error.problems]) from None
    if rows.arrival is None:
        raise BadInput([Problem("this format has no times, so there are no arrivals to look at", file=path)])
    here = slice(*np.searchsorted(rows.arrival, window).tolist())
    number, whole = here.stop - here.start, len(rows.arrival)
    if number < LEAST:
        runs = f" in the stretch asked for; the log runs from {clock(rows.arrival[0])} to {clock(rows.arrival[-1])}"
        raise BadInput([Problem(f"found {number:,} requests{runs if number < whole else ''}; at least {LEAST} are wanted", file=path)])
    rows = rows.pick(here)
    assert rows.arrival is not None
    # A stretch asked for begins where it was asked to, else with its first request.
    begin = window[0] or rows.arrival[0]
    times = rows.arrival - begin
    if times[-1] <= times[0]:
        raise BadInput([Problem(f"all {len(times):,} requests have the same time; a log with times is wanted", file=path)])
    found_holes = holes(times)
    if found_holes and not keep_gaps:
        raise BadInput([Problem(_hole(hole, begin), file=path) for hole in found_holes])
    remarks = [*rows.remarks, *(f"kept: {_hole(hole, begin).split(';')[0]}" for hole in found_holes)]
    tick = ticks(times)
    if tick:
        remarks.append(f"its time stamps are ticks of {tick:g} s: requests of one tick are spread evenly over it, in what is generated "
                       "too, and nothing is said of gaps and of windows shorter than two ticks")  # fmt: skip
    end = float(times[-1]) + (tick or float(np.diff(times).mean()))
    name = path.rpartition("/")[2]
    if tick:
        # Stamps may lie beside their tick by rounding.
        times = spread_ticks(np.rint(times / tick) * tick, tick)
    return Log(name, times, rows.prompt, rows.output, float(min(end, window[1] - begin)), tick, _shared(rows), remarks)


def ticks(times: np.ndarray) -> float:
    """The tick of a coarse clock, in seconds; 0 where its time stamps are fine.

    >>> ticks(np.array([0.0, 0.0, 3.0, 3.0, 3.0, 9.0, 12.0, 12.0]))
    3.0
    """
    stamps = np.unique(times)
    if len(stamps) < 3 or 1 - len(stamps) / len(times) < TIES:
        return 0.0
    steps = np.diff(stamps)
    tick = float(np.median(steps[steps < 1.5 * np.quantile(steps, 0.05)]))
    odd = np.abs(steps / tick - np.rint(steps / tick)) > 0.02
    return float(f"{tick:.3g}") if tick >= TICK and odd.mean() < 0.05 else 0.0


def clocked(times: np.ndarray, tick: float) -> np.ndarray:
    """The times as a clock of so coarse a tick tells them, those of one tick spread evenly over it."""
    return spread_ticks(np.floor(times / tick) * tick, tick) if tick else times


def holes(times: np.ndarray) -> list[Hole]:
    """Pauses that look like an outage or missing data, in order of time."""
    gaps = np.diff(times)
    longest = np.argsort(-gaps, kind="stable")[: MOST_HOLES + 1]
    if len(longest) < 2:
        return []
    lengths = gaps[longest]
    sudden = np.flatnonzero((lengths[:-1] >= HOLE) & (lengths[:-1] >= HOLE_NEXT * lengths[1:]))
    if not len(sudden):
        return []
    found = []
    for place in np.sort(longest[: sudden[-1] + 1]).tolist():
        begin, end = float(times[place]), float(times[place + 1])
        before, after = np.searchsorted(times, begin - AROUND / 2), np.searchsorted(times, end + AROUND / 2)
        near = (begin - max(begin - AROUND / 2, times[0]) + min(end + AROUND / 2, times[-1]) - end) / max(after - before - 1, 1)
        if end - begin >= HOLE_GAPS * near:
            found.append(Hole(begin, end, (end - begin) / near if near else np.inf))
    return found


def clock(at: float) -> str:
    """Seconds as h:mm:ss.

    >>> clock(4205), clock(90061)
    ('1:10:05', '25:01:01')
    """
    whole = round(at)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def _hole(hole: Hole, begin: float) -> str:
    lasts = hole.end - hole.begin
    said = f"{lasts / 3600:.1f} h" if lasts >= 7200 else f"{lasts / 60:.0f} min" if lasts >= 300 else f"{lasts:.0f} s"
    return (
        f"no request from {clock(begin + hole.begin)} to {clock(begin + hole.end)} of the log: {said}, {hole.times:,.0f} times the mean "
        "gap of the hour around it; an outage or missing data? take a stretch without it by --from and --to, or say --keep-gaps"
    )


def _as_options(message: str) -> str:
    return message.replace("`sort: true`", "--sort").replace("`zero_tokens: skip`", "--skip-zero")


def _shared(rows: Rows) -> float | None:
    total = float(rows.prompt.sum())
    if rows.content is None:
        return None
    if isinstance(rows.content, Blocks):
        first, counts = rows.content.first, rows.content.counts
        if not counts.sum():
            return None
        place = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        seen = rows.content.keys[place]
        return min(1.0, (len(seen) - len(np.unique(seen))) * rows.content.size / total)
    return float(rows.content.shared[rows.content.row].sum()) / total

