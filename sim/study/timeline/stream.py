"""A file in the JSON trace format of Chrome, which Perfetto (ui.perfetto.dev) and chrome://tracing open, written as events are made.

Why this format and not Perfetto's own: it is text, it is documented ("Trace Event Format", Google, 2016), and both viewers read it. An
event is an object with `ph`: X a slice of a thread, b/n/e an asynchronous slice and what happens in it, C a counter, i an instant, s/f the
ends of an arrow, M a name. Slices of one thread must nest, or the viewer drops them; asynchronous ones may overlap. Viewers sort by time,
so the order in the file is free but for ties, where the outer slice comes first.

Times are whole microseconds: fractions are read as binary numbers and cut off, so that slices that touch would overlap. A slice begins at
the next whole one and ends at the one before, never before it began: intervals that touch to within rounding then never overlap.

Bytes are the same for the same events: the header of the archive has no time and no name.
"""
from __future__ import annotations

import functools
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Any

import numpy as np

from sim.core.record import Page, Table

BUFFER = 2_000
LEVEL = 5  # of gzip: 6 makes files 6 % smaller in twice the time
FIRST_THREAD = 100_001  # threads and processes have no number in common: a thread with that of its process would be the main one
MICRO = 1e6


class Trace:
    """Events of a run that ends at `end` (seconds). Processes and threads are named once and referred to by number; times are whole
    microseconds, names and arguments JSON (`quoted`, `said`). A context: on leaving it the file is complete, with `notes` at its end.
    """

    def __init__(self, file: IO[bytes], end: float):
        self.end = end
        self.events = 0
        self.notes: dict[str, Any] = {}
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0)
        self._lines: list[str] = []
        self._processes = self._threads = self._ids = 0
        self._comma = ""

    def __enter__(self) -> Trace:
        self._gzip.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._flush()
            notes = json.dumps(self.notes | {"events": self.events}, allow_nan=False)
            self._gzip.write(f'\n],"otherData":{notes}}}\n'.encode())
        finally:
            self._gzip.close()

    def process(self, name: str) -> int:
        """A new process, shown below those before it; returns its number."""
        self._processes += 1
        self._named(self._processes, 0, "process", name, self._processes)
        return self._processes

    def thread(self, process: int, name: str) -> int:
        """A new thread of a process, shown below those before it; returns its number."""
        number = FIRST_THREAD + self._threads
        self._threads += 1
        self._named(process, number, "thread", name, self._threads)
        return number

    def identity(self) -> str:
        """A new one, of an asynchronous slice or an arrow."""
        self._ids += 1
        return f"0x{self._ids:x}"

    def slice(self, at: tuple[int, int], name: str, span: tuple[int, int], args: str = "") -> None:
        """A slice of a thread, at (process, thread), from begin to end."""
        extra = f',"args":{args}' if args else ""
        self.add(f'{{"ph":"X","pid":{at[0]},"tid":{at[1]},"ts":{span[0]},"dur":{span[1] - span[0]},"name":{name}{extra}}}')

    def instant(self, at: tuple[int, int], name: str, time: int, args: str = "") -> None:
        """A moment on a thread."""
        extra = f',"args":{args}' if args else ""
        self.add(f'{{"ph":"i","s":"t","pid":{at[0]},"tid":{at[1]},"ts":{time},"name":{name}{extra}}}')

    def counter(self, process: int, name: str, time: int, args: str) -> None:
        """Values of a counter from a time on: one line of the viewer for each key of `args`."""
        self.add(f'{{"ph":"C","pid":{process},"tid":0,"ts":{time},"name":{name},"args":{args}}}')

    def inside(self, ph: str, at: tuple[int, str, str], name: str, time: int, args: str = "") -> None:
        """The begin (b), the end (e) or a moment (n) of an asynchronous slice, at (process, category, identity); those of one identity
        nest, and are written in the order of their times. An identity is of the process, else the viewer would show it outside of it.
        """
        extra = f',"args":{args}' if args else ""
        self.add(f'{{"ph":"{ph}","pid":{at[0]},"tid":0,"cat":{at[1]},"id2":{{"local":"{at[2]}"}},"ts":{time},'
                 f'"name":{name}{extra}}}')  # fmt: skip

    def arrow(self, name: str, source: tuple[int, int, int], target: tuple[int, int, int]) -> None:
        """An arrow between slices, each found by (process, thread, a time within it)."""
        known = self.identity()
        for ph, (process, thread, time) in (("s", source), ("f", target)):
            end = ',"bp":"e"' if ph == "f" else ""
            self.add(f'{{"ph":"{ph}","pid":{process},"tid":{thread},"ts":{time},"cat":"flow","id":"{known}","name":{name}{end}}}')

    def add(self, event: str) -> None:
        """An event as JSON."""
        self.events += 1
        self._write(event)

    def times(self, seconds: np.ndarray) -> list[int]:
        """Moments as whole microseconds within the run, rounded down."""
        found: list[int] = np.floor(self._within(seconds)).astype("i8").tolist()
        return found

    def spans(self, start: np.ndarray, end: np.ndarray) -> tuple[list[int], list[int]]:
        """Begins and ends of slices as whole microseconds within the run; intervals that do not overlap still do not."""
        begin = np.minimum(np.ceil(self._within(start)), math.floor(self.end * MICRO))
        until = np.maximum(np.floor(self._within(end)), begin)
        return begin.astype("i8").tolist(), until.astype("i8").tolist()

    def _within(self, seconds: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.clip(seconds, 0.0, self.end) * MICRO
        return found

    def _named(self, process: int, thread: int, what: str, name: str, order: int) -> None:
        for key, value in (("name", quoted(name)), ("sort_index", str(order))):
            args = f'{{"{"name" if key == "name" else "sort_index"}":{value}}}'
            self._write(f'{{"ph":"M","pid":{process},"tid":{thread},"ts":0,"name":"{what}_{key}","args":{args}}}')

    def _write(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            self._gzip.write((self._comma + ",\n".join(self._lines)).encode())
            self._comma = ",\n"
            self._lines.clear()


@functools.lru_cache(maxsize=4096)
def quoted(name: str) -> str:
    """A name as JSON."""
    return json.dumps(name)


def said(**args: Any) -> str:
    """Arguments as JSON: what is None or not a number is left out, numbers have six digits."""
    shown = {key: _short(value) for key, value in args.items() if value is not None and value == value}
    return json.dumps(shown, separators=(",", ":"), allow_nan=False)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def evenly(count: int, most: int) -> int:
    """Every how manyth of `count` things is taken so that there are at most `most` (at least 1)."""
    return max(-(-count // max(most, 1)), 1)


def thinned(table: Table, most: int) -> Iterator[tuple[Page, np.ndarray]]:
    """At most `most` rows of a table, evenly from all of it: pages, and the places of rows in them."""
    step = evenly(len(table), most)
    for page in table.pages():
        yield page, np.arange(-page.first % step, len(page), step)


def names(table: Table, column: str) -> Sequence[str]:
    """The labels of a column as JSON, by code."""
    return [quoted(text) for text in table.labels[column]]
