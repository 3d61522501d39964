"""A table with named columns, of whatever file, and the numbers in it.

Names are compared without regard to case and surrounding blanks. A column is an arrow array (of text from CSV, of any type from Parquet)
or a list of JSON values; whole columns are converted at once, and only one that does not convert is gone through cell by cell.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import did_you_mean
from workloads.formats._source import Source
from workloads.formats.base import Rows

AGENT = "agent_id"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sheet(NamedTuple):
    """`names`: every column, as written. `columns`: those that were wanted and are there, by lower-case name. `line`: of each row."""

    source: Source
    names: list[str]
    columns: Mapping[str, Any]
    line: np.ndarray

    def first(self, choices: Sequence[str]) -> str:
        """The first of several names for one thing that the file has; empty if none."""
        return next((name for name in choices if name in self.columns), "")

    def wrong(self, row: int, message: str) -> None:
        """Note a problem of a row, counted from 0."""
        number, lines = int(self.line[row]), self.source.unit == "line"
        self.source.findings.add(message if lines else f"row {number}: {message}", number if lines else 0)


def plain(name: str) -> str:
    """A column's name as it is compared.

    >>> plain(" ContextTokens ")
    'contexttokens'
    """
    return name.strip().lower()


def require(source: Source, names: Sequence[str], wanted: Sequence[Sequence[str]]) -> None:
    """Raise BadInput unless the file has one column of each group of names, saying which are missing and what was found."""
    have = {plain(name): name for name in names}
    missing = [choices for choices in wanted if not any(choice in have for choice in choices)]
    if not missing:
        return
    if all(_number(name) is not None for name in names):
        example = ",".join(choices[0] for choices in wanted)
        source.fail(f"there is no header; a first line with the names of the columns is wanted, such as {example}", 1)
    line = 1 if source.unit == "line" else 0
    for choices in missing:
        near = did_you_mean(choices[0], have)
        hint = f"; {near}" if near.startswith("did") else ""
        others = f" (also known as {', '.join(choices[1:])})" if choices[1:] else ""
        source.findings.add(f"the column {choices[0]}{others} is missing; found {', '.join(names)}{hint}", line)
    source.findings.stop()


def numbers(sheet: Sheet, name: str) -> np.ndarray:
    """A column as float64; NaN where a cell holds no finite number, which is noted as a problem of that line."""
    column = sheet.columns[name]
    values = _at_once(column)
    if values is None or not np.isfinite(values).all():
        cells = column if isinstance(column, list) else column.to_pylist()
        values = np.array([math.nan if (value := _number(cell)) is None else value for cell in cells], dtype=float)
        for row in np.flatnonzero(np.isnan(values)).tolist():
            sheet.wrong(row, f"{name} is {shown(cells[row])}; a number is wanted")
    return values


def tokens(sheet: Sheet, name: str) -> np.ndarray:
    """A column of token counts as int64; 1 where a cell is bad, which is noted."""
    values = numbers(sheet, name)
    whole = np.nan_to_num(np.rint(values), nan=1.0)
    for row in np.flatnonzero(np.isfinite(values) & (whole != values)).tolist():
        sheet.wrong(row, f"{name} is {values[row]:g}; a whole number of tokens is wanted")
    return np.asarray(np.clip(whole, -(2.0**62), 2.0**62), dtype=np.int64)


def sessions(sheet: Sheet, name: str) -> np.ndarray:
    """A column of session names as numbers 0, 1, ... in order of appearance; -1 where there is none."""
    if not name:
        return np.full(len(sheet.line), -1, dtype=np.int64)
    column = sheet.columns[name]
    if isinstance(column, list):
        seen: dict[Any, int] = {}
        return np.array([-1 if value in (None, "") else seen.setdefault(str(value), len(seen)) for value in column], dtype=np.int64)
    codes = column.dictionary_encode()
    found = _array(codes.indices, -1).astype(np.int64)
    empty = [code for code, text in enumerate(codes.dictionary.to_pylist()) if text == ""]
    return np.where(np.isin(found, empty), -1, found)


def clock(sheet: Sheet, name: str) -> np.ndarray:
    """A text column of dates and times as seconds after the earliest; without a zone it is UTC. NaN where a cell is bad, which is noted.

    Rows without a zone among some with another zone than UTC are an error: nobody can say how far apart they are.
    """
    import pyarrow as pa

    column = sheet.columns[name]
    if isinstance(column, list):
        column = pa.array([cell if isinstance(cell, str) else None if cell is None else str(cell) for cell in column], pa.string())
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        if column.null_count:
            break
        try:
            ticks = _array(column.cast(kind).cast(pa.int64()), 0)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        return np.asarray((ticks - ticks.min()) / 1e9)
    cells = column.to_pylist()
    values = np.array([_moment(cell) for cell in cells], dtype=float)
    for row in np.flatnonzero(np.isnan(values)).tolist():
        wanted = "a date and time such as 2023-11-16 18:15:46.6805900 is wanted"
        sheet.wrong(row, f"{name} is {shown(cells[row])}; {wanted}")
    # Seconds ahead of UTC, NaN without a zone.
    zones = np.array([_ahead(cell) for cell in cells])
    elsewhere, bare = zones[np.nan_to_num(zones) != 0], np.isnan(zones) & np.isfinite(values)
    if len(elsewhere) and bare.any():
        what = f"no time zone in {name}, while others have one that is not UTC"
        sheet.source.found(what, sheet.line[bare], "; write all of them with their zone, or none")
    return from_first(values) / 1e6


def dated(sheet: Sheet, name: str) -> bool:
    """Whether a column begins with a date and time in text."""
    column = sheet.columns[name]
    cells = column[:1] if isinstance(column, list) else column.slice(0, 1).to_pylist()
    return bool(cells) and isinstance(cells[0], str) and _number(cells[0]) is None and not math.isnan(_moment(cells[0]))


def from_first(times: np.ndarray) -> np.ndarray:
    """Times of a wall clock, counted from the earliest."""
    good = times[np.isfinite(times)]
    return times - good.min() if len(good) else times


def rows(sheet: Sheet, arrival: np.ndarray | None, prompt: str, output: str, session: str = "") -> Rows:
    """The rows of a sheet, given its times and the names of its other columns."""
    counts = tokens(sheet, prompt), tokens(sheet, output)
    found = sessions(sheet, session)
    thread = None
    if session and AGENT in sheet.columns:
        agents = sessions(sheet, AGENT)
        thread = np.where(found < 0, -1, found * (agents.max(initial=0) + 2) + agents + 1)
    return Rows(arrival, *counts, found, sheet.line, [], thread)


def _at_once(column: Any) -> np.ndarray | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if isinstance(column, list):
            # Text and truth values would convert too; they are looked at one by one.
            return np.array(column, dtype=float) if set(map(type, column)) <= {int, float} else None
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
        return _array(column.cast(pa.float64()), math.nan)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
        return None


def _array(column: Any, gap: float) -> np.ndarray:
    """The numbers of an arrow array, `gap` where it has none.

    Arrow's own to_numpy and its scalars import pandas, 0.2 s for nothing; columns of text files have no gaps and need neither.
    """
    return np.from_dlpack(column.fill_null(gap) if column.null_count else column)


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _moment(cell: Any) -> float:
    """Microseconds since 1970, which a float holds exactly where it would not hold the seconds; NaN when it is no date and time."""
    try:
        moment = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return math.nan
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) / timedelta(microseconds=1)


def _ahead(cell: Any) -> float:
    """How far the zone of a date and time is ahead of UTC, in seconds; NaN where there is none."""
    try:
        offset = datetime.fromisoformat(str(cell).strip()).utcoffset()
    except ValueError:
        return math.nan
    return math.nan if offset is None else offset.total_seconds()


def shown(cell: Any) -> str:
    """A cell as a message gives it."""
    return "empty" if cell is None or (isinstance(cell, str) and not cell.strip()) else f"{cell!r:.60}"
