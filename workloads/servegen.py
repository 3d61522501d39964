"""A service replayed from a table of its clients, as ServeGen publishes them (arXiv:2505.09999): who sent how much, and how bunched.

In each window a client sends a Poisson number of requests whose mean is its rate times the window; their gaps follow the row's law, scaled
to fill the window. So the swings of rates over windows are those of the table, and the law adds what happens within one. (Gaps drawn
without end would count the slow part twice: a window's cv is large where the client came and went during it.)
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sim.core.errors import BadInput, Problem
from sim.core.registry import FILE, LENGTHS
from workloads._clients import Sizes, of_clients
from workloads._rate import in_blocks
from workloads.base import NonNegativeSeconds, OpenLoop, PositiveSeconds, Rate, prepared
from workloads.formats._clients import ClientRates, read_lengths, read_rates
from workloads.weibull import SHAPES

Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
ALONE = 3600.0


@dataclass(kw_only=True)
class Servegen(OpenLoop):
    """`path`: a table with the columns client, t_s, rate, cv, pattern, shape, and model where there are several services.

    `service`: which of these. `client_lengths`: a table of the clients' lengths (client, field, support, mean, p1 ... p100), in place of
    `lengths`. `window: [from, to]`: only the rows of that stretch of the table's time, which
    then begins at 0. `rate_scale: 0.01` sends a hundredth;
    `rate` so many per second on average over the stretch. The traffic ends with the table, if nothing ends it before.
    """

    lengths: Annotated[Any, LENGTHS] = None
    path: Annotated[str, FILE]
    service: str = ""
    client_lengths: Annotated[str | None, FILE] = None
    window: tuple[NonNegativeSeconds, PositiveSeconds] | None = None
    rate_scale: Scale = 1.0
    rate: Rate | None = None
    _rows: ClientRates | None = field(default=None, init=False, repr=False, compare=False)
    _span: float = field(default=0.0, init=False, repr=False, compare=False)
    _sizes: Sizes | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if (values["lengths"] is None) == (values["client_lengths"] is None):
            found = "neither" if values["lengths"] is None else "both"
            yield "", f"found {found} of lengths and client_lengths; exactly one of them is wanted"
        if values["rate"] is not None and values["rate_scale"] != 1:
            yield "rate_scale", "rate is given too; one of them is enough"
        window = values["window"]
        if window is not None and window[0] >= window[1]:
            yield "window", f"found [{window[0]:g}, {window[1]:g}] s; it must end after it begins"

    def prepare(self) -> list[str]:
        remarks = [] if self.lengths is None else prepared(self.lengths)
        rows = read_rates(self.path, self.service)
        starts = np.unique(rows.time)
        self._span = float(np.diff(starts).min()) if len(starts) > 1 else ALONE
        begin, end = self.window or (float(starts[0]), float(starts[-1]) + self._span)
        rows = ClientRates(*(column[(rows.time >= begin) & (rows.time < end) & (rows.rate > 0)] for column in rows))
        if not len(rows.time):
            span = f"{starts[0]:.6g} to {starts[-1] + self._span:.6g} s"
            raise BadInput([Problem(f"nothing is sent in it; the table runs from {span}", "window", self.path)])
        scale = self.rate_scale
        if self.rate is not None:
            scale = self.rate * (end - begin) / (float(rows.rate.sum()) * self._span)
        clients, numbers = np.unique(rows.client, return_inverse=True)
        self._rows = rows._replace(client=numbers, time=rows.time - begin, rate=rows.rate * scale)
        if self.client_lengths is not None:
            self._sizes = of_clients(read_lengths(self.client_lengths, self.service), clients.tolist())
        return remarks

    def expected(self) -> int | None:
        return None

    def arrivals(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return (times for times, _ in self.sent(rng))

    def sent(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for times, who in in_blocks(self._windows(rng)):
            yield times, who.astype(np.int64)

    def sizes(self, rng: np.random.Generator, senders: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._sizes is None:
            return super().sizes(rng, senders)
        assert senders is not None
        return self._sizes.draw(rng, senders)

    def _windows(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Rows of (time, client), one window after the other."""
        rows = self._rows
        if rows is None:
            raise RuntimeError("prepare() has not been called")
        starts, first = np.unique(rows.time, return_index=True)
        for start, part in zip(starts.tolist(), np.split(np.arange(len(rows.time)), first[1:]), strict=True):
            counts = rng.poisson(rows.rate[part] * self._span)
            busy = part[counts > 0]
            counts = counts[counts > 0]
            if not len(busy):
                continue
            times = start + self._span * _filled(rng, counts, rows.weibull[busy], rows.shape[busy])
            order = np.argsort(times, kind="stable")
            yield np.stack([times, np.repeat(rows.client[busy], counts)])[:, order]


def _filled(rng: np.random.Generator, counts: np.ndarray, weibull: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Times in (0, 1) of so many arrivals of each client, one client after the other: the gaps between, before and after fill it."""
    gaps = np.empty(int((counts + 1).sum()))
    first = np.cumsum(counts + 1) - (counts + 1)
    laws = np.repeat(weibull, counts + 1)
    # Below the least shape offered elsewhere one gap is all there is, and numbers overflow.
    shapes = np.repeat(np.clip(shape, *SHAPES), counts + 1)
    gaps[laws], gaps[~laws] = rng.weibull(shapes[laws]), rng.standard_gamma(shapes[~laws])
    totals = np.add.reduceat(gaps, first)
    gaps /= np.repeat(np.where(totals > 0, totals, 1.0), counts + 1)
    ends = np.cumsum(gaps)
    inside = ends - np.repeat(ends[first] - gaps[first], counts + 1)
    return np.asarray(np.clip(np.delete(inside, first + counts), 0.0, np.nextafter(1.0, 0.0)))
