"""A recorded trace replayed: each row of a file is one request at its own time.

In this order: rows are read and checked, sorted if asked, equal time stamps spread, the window cut out and moved to 0, the number limited,
times scaled, and `start` added. Formats are in workloads/formats.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from sim.core.errors import BadInput, Problem
from sim.core.registry import FILE
from sim.core.units import CENTURY
from workloads.base import BLOCK, Cached, Client, Count, NonNegativeSeconds, PositiveSeconds, Rate, send
from workloads.formats.base import Rows, ZeroTokens, load, unknown_format

Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
ONLY_WITH_TIMES = ("sort", "spread", "window", "rate_scale", "time_scale")


@dataclass(kw_only=True)
class Trace:
    """`path` and `format` (`auto` or a name) say what to replay.

    `window: [from, to]`: only rows of that stretch of trace time (from included, to not), which then begins at 0. `limit`: at most so
    many requests. `rate_scale: 2` sends twice as many per second, `time_scale: 2` takes twice as long; one of the two. `sort`: put rows
    in order of time. `spread`: rows of one time stamp are spread evenly over so long, or until the next time stamp. `zero_tokens: skip`
    leaves out rows without input or output. `rate`: Poisson arrivals for a format without times, and only for those.
    """

    closed_loop: ClassVar[bool] = False
    name: str = ""
    cached_prefix: Cached = 0
    path: Annotated[str, FILE]
    format: str = "auto"
    start: NonNegativeSeconds = 0.0
    window: tuple[NonNegativeSeconds, PositiveSeconds] | None = None
    limit: Count | None = None
    rate_scale: Scale = 1.0
    time_scale: Scale = 1.0
    sort: bool = False
    spread: PositiveSeconds | None = None
    zero_tokens: ZeroTokens = "error"
    rate: Rate | None = None
    _rows: Rows | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from unknown_format(values["format"])
        if values["rate_scale"] != 1 and values["time_scale"] != 1:
            yield "time_scale", "rate_scale is given too; one of them is enough, since time_scale is 1 / rate_scale"
        window = values["window"]
        if window is not None and window[0] >= window[1]:
            yield "window", f"found [{window[0]:g}, {window[1]:g}] s; it must end after it begins"

    def prepare(self) -> list[str]:
        rows = load(self.path, self.format, self.zero_tokens, "sort" if self.sort else "check")
        if rows.arrival is None:
            self._without_times()
            self._rows = rows.pick(slice(self.limit))
        else:
            self._rows = self._timed(rows, rows.arrival)
        return rows.remarks

    def expected(self) -> int | None:
        return len(self._ready().prompt)

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        rows = self._ready()
        times = self._poisson(world, len(rows.prompt)) if rows.arrival is None else rows.arrival
        sessions = rows.session if (rows.session >= 0).any() else None
        for first in range(0, len(times), BLOCK):
            part = slice(first, first + BLOCK)
            yield from send(world, times[part], rows.prompt[part], rows.output[part], None if sessions is None else sessions[part])

    def _ready(self) -> Rows:
        if self._rows is None:
            raise RuntimeError("prepare() has not been called")
        return self._rows

    def _without_times(self) -> None:
        wrong = [Problem("this format has no times, so this option has no effect", key, self.path) for key in self._set(ONLY_WITH_TIMES)]
        if self.rate is None:
            wrong.append(Problem("this format has no times; give `rate` (requests per second) for Poisson arrivals", "rate", self.path))
        if wrong:
            raise BadInput(wrong)

    def _timed(self, rows: Rows, arrival: np.ndarray) -> Rows:
        if self.rate is not None:
            raise BadInput([Problem("the trace has times of its own; `rate_scale` changes their rate", "rate", self.path)])
        if self.spread is not None:
            arrival = spread_ticks(arrival, self.spread)
        chosen = slice(None)
        if self.window is not None:
            chosen = slice(*np.searchsorted(arrival, self.window).tolist())
            if chosen.start == chosen.stop:
                span = f"{arrival[0]:.6g} to {arrival[-1]:.6g} s"
                raise BadInput([Problem(f"no row of the trace falls in it; the trace runs from {span}", "window", self.path)])
            arrival = arrival - self.window[0]
        arrival = self.start + arrival * self.time_scale / self.rate_scale
        if arrival.max() > CENTURY:
            raise BadInput([Problem("stretched so, the trace takes more than 100 years", "time_scale", self.path)])
        rows = rows._replace(arrival=arrival).pick(chosen)
        return rows.pick(slice(self.limit))

    def _set(self, keys: Iterable[str]) -> list[str]:
        defaults = type(self).__dataclass_fields__
        return [key for key in keys if vars(self)[key] != defaults[key].default]

    def _poisson(self, world: Client, count: int) -> np.ndarray:
        assert self.rate is not None
        gaps: np.ndarray = world.rng("arrivals").standard_exponential(count) / self.rate
        return np.asarray(self.start + np.cumsum(gaps))


def spread_ticks(times: np.ndarray, tick: float) -> np.ndarray:
    """Ascending times, those of one stamp spread evenly over `tick` seconds from it, or until the next stamp where that comes sooner.

    >>> spread_ticks(np.array([0.0, 0.0, 0.0, 3.0, 3.0, 4.0]), 3.0).tolist()
    [0.0, 1.0, 2.0, 3.0, 3.5, 4.0]
    """
    stamps, first, counts = np.unique(times, return_index=True, return_counts=True)
    lengths = np.minimum(np.append(np.diff(stamps), np.inf), tick)
    place = np.arange(len(times)) - np.repeat(first, counts)
    return np.asarray(times + place * np.repeat(lengths / counts, counts))
