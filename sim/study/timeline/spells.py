"""Rows of a table as asynchronous slices, which may overlap: transfers, tool calls, sandboxes; evenly thinned where they are many."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.core.record import Page, Table
from sim.study.timeline.stream import Trace, evenly, names, said


class Spells(NamedTuple):
    """How rows of a table are drawn: the process they are shown in, the column (of labels) that names them, those of their begins and ends,
    those told in the arguments, and those of moments between. `replicas` are columns that hold rows of `replicas`.

    Numbers below 0 and empty texts mean that there is none, and are not told. A NaN end is that of the run, and a NaN begin no slice.
    """

    process: str
    name: str
    columns: tuple[str, ...]
    span: tuple[str, str] = ("start", "end")
    moments: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()


def draw(
    trace: Trace, table: Table, spells: Spells, room: int, *, seats: Sequence[str] = (), keep: Callable[[Page], np.ndarray] | None = None
) -> None:  # fmt: skip
    """At most `room` events; `seats` are the names of replicas, `keep` says which rows of a page are wanted."""
    wanted = len(table) if keep is None else sum(int(keep(page).sum()) for page in table.pages())
    most = room // (2 + len(spells.moments))
    if not wanted or not most:
        return
    step = evenly(wanted, most)
    process = trace.process(f"{spells.process}, 1 in {step}" if step > 1 else spells.process)
    titles, moments, shown, seen = names(table, spells.name), [f'"{name}"' for name in spells.moments], 0, 0
    for page in table.pages():
        rows = np.arange(len(page)) if keep is None else np.flatnonzero(keep(page))
        seen, rows = seen + len(rows), rows[-seen % step :: step]
        rows = rows[~np.isnan(page[spells.span[0]][rows])]
        end = page[spells.span[1]][rows]
        start, until = page[spells.span[0]][rows], np.where(np.isnan(end), trace.end, end)
        marks = [_moments(trace, page[name][rows]) for name in spells.moments]
        spans = zip(trace.times(start), trace.times(until), page[spells.name][rows].tolist(), *marks, strict=True)
        for (begin, stop, code, *times), args in zip(spans, _args(table, page, rows, spells, seats), strict=True):
            at = (process, titles[code], trace.identity())
            trace.inside("b", at, titles[code], begin, said(**args))
            for time, name in sorted((time, name) for time, name in zip(times, moments, strict=True) if time is not None):
                trace.inside("n", at, name, min(max(time, begin), stop))
            trace.inside("e", at, titles[code], max(stop, begin))
            shown += 1
    trace.notes[table.name] = {"shown": shown, "of": len(table)}


def _moments(trace: Trace, seconds: np.ndarray) -> list[int | None]:
    there = ~np.isnan(seconds)
    return [time if known else None for time, known in zip(trace.times(np.where(there, seconds, 0.0)), there.tolist(), strict=True)]


def _args(table: Table, page: Page, rows: np.ndarray, spells: Spells, seats: Sequence[str]) -> Iterator[dict[str, Any]]:
    columns = []
    for name in spells.columns:
        values = page[name][rows].tolist()
        texts = table.labels.get(name, seats if name in spells.replicas else None)
        columns.append([_there(value, texts) for value in values])
    for row in zip(*columns, strict=True):
        yield dict(zip(spells.columns, row, strict=True))


def _there(value: Any, texts: Sequence[str] | None) -> Any:
    if value < 0:
        return None
    return value if texts is None else texts[value] or None
