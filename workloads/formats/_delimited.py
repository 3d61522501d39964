"""Text tables: a header line, then one row a line; commas, semicolons or tabs between the cells, CRLF or LF at the end of a line."""
from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from workloads.formats._sheet import Sheet, plain, require
from workloads.formats._source import Source

DELIMITERS = ",;\t"


def header(head: bytes) -> list[str]:
    """The names of the columns, as written; empty when the first line is not text with a delimiter."""
    line = head.lstrip(b"\r\n").split(b"\n", 1)[0]
    try:
        text = line.decode("utf-8").strip("\r")
    except UnicodeDecodeError:
        return []
    if "\r" in text or text.startswith(("{", "[")) or not any(mark in text for mark in DELIMITERS):
        return []
    return [name.strip() for name in next(csv.reader([text], delimiter=_delimiter(text)))]


def has(head: bytes, *groups: Sequence[str]) -> bool:
    """Whether the header has one column of each group of names."""
    names = {plain(name) for name in header(head)}
    return all(any(choice in names for choice in choices) for choices in groups)


def read(source: Source, required: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> Sheet:
    """The wanted columns of the file as text. Rows with too many or too few cells are noted; raises BadInput when columns are missing."""
    names = header(source.data)
    if not names:
        source.fail(f"no table: a first line with the names of the columns is wanted; {source.opening()}", 1)
    require(source, names, required)
    if b"\n" not in source.data.strip():
        source.fail("there is a header but no row below it", 1)
    wanted = {name for choices in (*required, optional) for name in choices}
    positions: dict[str, int] = {}
    for position, name in enumerate(map(plain, names)):
        if name in positions:
            source.fail(f"the column {name} is there twice", 1)
        if name in wanted:
            positions[name] = position
    table, ragged = _parsed(source, len(names), sorted(positions.values()))
    lines = _lines(source.data, table.num_rows, ragged)
    for number, found in ragged:
        source.findings.add(f"{found} cells; the header has {len(names)}", lines[1].get(number, 0))
    if not table.num_rows:
        source.fail("there is a header but no row below it", 1)
    return Sheet(source, names, {name: table.column(str(at)).combine_chunks() for name, at in positions.items()}, lines[0])


def _delimiter(text: str) -> str:
    return max(DELIMITERS, key=text.count)


def _parsed(source: Source, width: int, positions: Sequence[int]) -> tuple[Any, list[tuple[int, int]]]:
    """The columns at `positions` as text, and (number among the non-empty lines, cells) of each row that has not `width` cells."""
    import pyarrow as pa
    import pyarrow.csv

    ragged: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    keys = [str(position) for position in positions]
    first = source.data.lstrip(b"\r\n").split(b"\n", 1)[0].decode()
    try:
        table = pa.csv.read_csv(
            io.BytesIO(source.data.lstrip(b"\r\n")),
            # One thread: only then are rows numbered for the handler.
            pa.csv.ReadOptions(use_threads=False, skip_rows=1, column_names=[str(at) for at in range(width)], block_size=1 << 24),
            pa.csv.ParseOptions(delimiter=_delimiter(first), invalid_row_handler=note),
            pa.csv.ConvertOptions(include_columns=keys, column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        source.fail(f"the table cannot be read: {str(error).splitlines()[0]}", _undecodable(source.data))
    return table, ragged


def _undecodable(data: bytes) -> int:
    """The line that is not UTF-8; 0 when all are."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 0


def _lines(data: bytes, rows: int, ragged: Sequence[tuple[int, int]]) -> tuple[np.ndarray, dict[int, int]]:
    """The line of each row that was read, and that of each row left out, by its number among the non-empty lines."""
    if not ragged and b"\n\n" not in data and b"\n\r\n" not in data and data[:1] not in (b"\n", b"\r"):
        return np.arange(2, rows + 2), {}
    filled = [number for number, line in enumerate(data.split(b"\n"), 1) if line.strip(b"\r")]
    left_out = {number: filled[number - 1] for number, _ in ragged if number <= len(filled)}
    gone = set(left_out.values())
    kept = np.array([line for line in filled[1:] if line not in gone], dtype=np.int64)
    # A quoted line break makes more lines than rows; the numbers are then those of the rows.
    return (kept if len(kept) == rows else np.arange(2, rows + 2)), left_out
