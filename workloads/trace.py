"""A recorded trace replayed: each row of a file is one request at its own time.

In this order: rows are read and checked, sorted if asked, equal time stamps spread, the window cut out and moved to 0, the number limited,
times scaled, and `start` added. Formats are in workloads/formats.
"""
from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from sim.core.content import Content
from sim.core.errors import BadInput, Problem
from sim.core.registry import FILE
from sim.core.units import CENTURY
from workloads._identity import Blocks, of_sessions
from workloads._prefixes import beginnings, openings
from workloads.base import BLOCK, Client, Count, NonNegativeSeconds, PositiveSeconds, Rate, Traffic, send
from workloads.formats.base import Rows, ZeroTokens, load, unknown_format

Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
ONLY_WITH_TIMES = ("sort", "spread", "window", "rate_scale", "time_scale", "pace")


class Turn(NamedTuple):
    """One row to be sent after the answer before it; `pause` in seconds, the others as `Client.request` takes them."""

    pause: float
    prompt: int
    output: int
    session: int
    content: Content | None
    reply: int


@dataclass(kw_only=True)
class Trace(Traffic):
    """`path` and `format` (`auto` or a name) say what to replay.

    `window: [from, to]`: only rows of that stretch of trace time (from included, to not), which then begins at 0. `limit`: at most so
    many requests. `rate_scale: 2` sends twice as many per second, `time_scale: 2` takes twice as long; one of the two. `sort`: put rows
    in order of time. `spread`: rows of one time stamp are spread evenly over so long, or until the next time stamp. `zero_tokens: skip`
    leaves out rows without input or output. `rate`: Poisson arrivals for a format without times, and only for those.

    `pace`: `clock` sends every row at its own time. `answers` does so with the first row of a context (a session, or an agent of one); each
    further one is sent when the one before was answered and the recorded pause is over, so the load bends to the cluster. A context ends
    early when a request is turned away. Only for files that tell the pauses.

    `prefix`: how prompts share their beginnings. `ids`: as the file says (hash_ids, tokens, references to earlier rows). `session`: the
    prompt of a turn begins with the turn before and its answer, as far as it is long enough; one shorter than the prompt before begins
    afresh. `none`: not at all. `auto`: ids where the file has them, else sessions where it has those, else none. `shared_prefix` and, after
    it, one of `prefixes` begin each prompt, in sessions each context; both are part of its length. Ids leave no room for them.
    """

    prefix: Literal["auto", "ids", "session", "none"] = "auto"
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
    pace: Literal["clock", "answers"] = "clock"
    _rows: Rows | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from unknown_format(values["format"])
        if values["rate_scale"] != 1 and values["time_scale"] != 1:
            yield "time_scale", "rate_scale is given too; one of them is enough, since time_scale is 1 / rate_scale"
        window = values["window"]
        if window is not None and window[0] >= window[1]:
            yield "window", f"found [{window[0]:g}, {window[1]:g}] s; it must end after it begins"

    @property
    def closed_loop(self) -> bool:
        return self.pace == "answers"

    def prepare(self) -> list[str]:
        rows = load(self.path, self.format, self.zero_tokens, "sort" if self.sort else "check", self.prefix in ("auto", "ids"))
        if rows.arrival is None:
            self._without_times()
            rows = rows.pick(slice(self.limit))
        else:
            rows = self._timed(rows, rows.arrival)
        self._rows = self._linked(rows)
        return self._rows.remarks

    def expected(self) -> int | None:
        return len(self._ready().prompt)

    def drive(self, world: Client) -> Generator[Any, Any, None]:
        rows = self._ready()
        times = self._poisson(world, len(rows.prompt)) if rows.arrival is None else rows.arrival
        sessions = rows.session if (rows.session >= 0).any() else None
        contents = self._contents(world, rows)
        if self.pace == "answers":
            yield from self._answered(world, rows, repeat((None, 0)) if contents is None else contents)
            return
        for first in range(0, len(times), BLOCK):
            part = slice(first, first + BLOCK)
            numbers = None if sessions is None else sessions[part]
            yield from send(world, times[part], rows.prompt[part], rows.output[part], numbers, contents)

    def _answered(self, world: Client, rows: Rows, contents: Iterator[tuple[Content | None, int]]) -> Generator[Any, Any, None]:
        """Begin each context at its first row's time; a row without a context is one of its own."""
        thread = rows.session if rows.thread is None else rows.thread
        assert rows.arrival is not None
        assert rows.pause is not None
        contexts: dict[int, list[Turn]] = {}
        begin: list[float] = []
        columns = (column.tolist() for column in (thread, rows.arrival, rows.pause, rows.prompt, rows.output, rows.session))
        for row, (number, at, pause, prompt, output, session) in enumerate(zip(*columns, strict=True)):
            turns = contexts.setdefault(number if number >= 0 else -1 - row, [])
            if not turns:
                begin.append(at)
            turns.append(Turn(pause, prompt, output, session, *next(contents)))
        running = []
        for at, turns in zip(begin, contexts.values(), strict=True):
            if at > world.env.now:
                yield world.env.timeout(at - world.env.now)
            running.append(world.env.process(_context(world, turns)))
        yield world.env.all_of(running)

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
        if self.pace == "answers" and rows.pause is None:
            wanted = "a column pause_s, seconds from the answer before to the request, is wanted"
            raise BadInput([Problem(f"the trace does not tell how long its users pause; {wanted}", "pace", self.path)])
        pause = None if rows.pause is None else rows.pause * self.time_scale / self.rate_scale
        rows = rows._replace(arrival=arrival, pause=pause).pick(chosen)
        return rows.pick(slice(self.limit))

    def _linked(self, rows: Rows) -> Rows:
        """The rows with what they share by `prefix`."""
        if rows.content is not None:
            given = self._set(("shared_prefix", "prefixes"))
            why = "the ids of this trace say already what its prompts share; `prefix: none` or `prefix: session` leaves them out"
            if given:
                raise BadInput([Problem(why, key, self.path) for key in given])
            return rows
        thread = rows.session if rows.thread is None else rows.thread
        told = bool((thread >= 0).any())
        wanted = {"ids": "ids of shared prompts (hash_ids, tokens, prefix_ref)", "session": "sessions"}
        if self.prefix == "ids" or (self.prefix == "session" and not told):
            other = "`prefix: session` goes by its sessions" if told else "`prefix: auto` takes what there is"
            raise BadInput([Problem(f"the trace has no {wanted[self.prefix]}; {other}", "prefix", self.path)])
        if self.prefix == "none" or not told:
            return rows
        said = "turns of a session are taken to begin with the turn before and its answer (`prefix: session`)"
        remarks = rows.remarks if self.prefix == "session" else [*rows.remarks, f"{Path(self.path).name}: {said}"]
        return rows._replace(content=of_sessions(thread, rows.prompt, rows.output), remarks=remarks)

    def _contents(self, world: Client, rows: Rows) -> Iterator[tuple[Content | None, int]] | None:
        """(content, reply) of each row in turn; None where the shared prefix says all."""
        if isinstance(rows.content, Blocks):
            return rows.content.contents(world)
        if rows.content is None and self.prefixes is None:
            return None
        starts = beginnings(world, self.shared_prefix, self.prefixes)
        if rows.content is None:
            return openings(world, starts, rows.prompt.tolist())
        return rows.content.contents(world, starts)

    def _set(self, keys: Iterable[str]) -> list[str]:
        defaults = type(self).__dataclass_fields__
        return [key for key in keys if vars(self)[key] != defaults[key].default]

    def _poisson(self, world: Client, count: int) -> np.ndarray:
        assert self.rate is not None
        gaps: np.ndarray = world.rng("arrivals").standard_exponential(count) / self.rate
        return np.asarray(self.start + np.cumsum(gaps))


def _context(world: Client, turns: Sequence[Turn]) -> Generator[Any, Any, None]:
    """Requests of one context, one after the other."""
    for number, turn in enumerate(turns):
        if number and turn.pause:
            yield world.env.timeout(turn.pause)
        request = world.request(turn.prompt, turn.output, turn.session, turn.content, turn.reply)
        yield world.call(request)
        if request.generated < request.output:
            return


def spread_ticks(times: np.ndarray, tick: float) -> np.ndarray:
    """Ascending times, those of one stamp spread evenly over `tick` seconds from it, or until the next stamp where that comes sooner.

    >>> spread_ticks(np.array([0.0, 0.0, 0.0, 3.0, 3.0, 4.0]), 3.0).tolist()
    [0.0, 1.0, 2.0, 3.0, 3.5, 4.0]
    """
    stamps, first, counts = np.unique(times, return_index=True, return_counts=True)
    lengths = np.minimum(np.append(np.diff(stamps), np.inf), tick)
    place = np.arange(len(times)) - np.repeat(first, counts)
    return np.asarray(times + place * np.repeat(lengths / counts, counts))
