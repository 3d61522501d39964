"""Tables of facts, written while the clock runs and read afterwards.

Rows are appended as tuples (the cheapest thing Python can do) and turned into typed numpy columns a chunk at a time, so a million rows
cost their bytes and no more. Beyond `KEEP` rows the columns go to Parquet files in a temporary folder, and memory stays bounded however
long the run. Times are seconds. Metrics are never stored here: `study/metrics.py` derives them.
"""
from __future__ import annotations

import functools
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sim.core.errors import BadInput, Problem, did_you_mean

CHUNK = 16_384
KEEP = 500_000


class Column(NamedTuple):
    """A column's name, numpy dtype and meaning. `labels` makes it a category: small integers in the rows, text in the files."""

    name: str
    dtype: str
    doc: str
    labels: tuple[str, ...] | None = None


class Page:
    """Some rows of a table, `first` the number of the first of them: arrays by column name, not to be written to.

    A column is read when it is first asked for, so a page costs what its reader uses; ask before the next page is taken.
    """

    def __init__(self, first: int, rows: int, read: Callable[[str], np.ndarray]):
        self.first, self.rows = first, rows
        self._read = read
        self._columns: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            self._columns[name] = self._read(name)
        return self._columns[name]


class Table:
    """One table: append tuples in column order, read numpy arrays by column name (categories as codes into `labels`).

    A column is a whole array; `pages` walks a table of any length in little memory.
    """

    def __init__(self, name: str, columns: Sequence[Column]):
        self.name = name
        self.columns = tuple(columns)
        self.labels: dict[str, list[str]] = {c.name: list(c.labels) for c in columns if c.labels is not None}
        self._codes: dict[str, dict[str, int]] = {name: {text: i for i, text in enumerate(known)} for name, known in self.labels.items()}
        self._rows: list[tuple[Any, ...]] = []
        self.add = self._rows.append
        self._chunks: list[dict[str, np.ndarray]] = []
        self._parts: list[Path] = []
        self._chunked = self._stored = 0
        self._folder: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Table:
        """A table saved by `save`; columns are read when asked for."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        columns = []
        for field in schema:
            doc = (field.metadata or {}).get(b"doc", b"").decode()
            if pa.types.is_dictionary(field.type):
                labels = tuple(json.loads((field.metadata or {}).get(b"labels", b"[]")))
                columns.append(Column(field.name, "i4", doc, labels))
            else:
                columns.append(Column(field.name, np.dtype(field.type.to_pandas_dtype()).str[1:], doc))
        table = cls(path.stem, columns)
        table._parts, table._stored = [path], rows
        return table

    def append(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= CHUNK:
            self._flush()

    def trim(self) -> None:
        """Put full chunks away. Who adds rows by `add`, which is `append` without looking how many there are, calls it now and then."""
        if len(self._rows) >= CHUNK:
            self._flush()

    def label(self, column: str, text: str) -> int:
        """The code of a category's value, new or known."""
        codes, known = self._codes[column], self.labels[column]
        if len(codes) != len(known):
            codes.update((text, code) for code, text in enumerate(known))
        if text not in codes:
            codes[text] = len(known)
            known.append(text)
        return codes[text]

    def __len__(self) -> int:
        return self._stored + self._chunked + len(self._rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column as one array, not to be written to; of what went to disk, only this column is read back."""
        dtypes = {c.name: c.dtype for c in self.columns}
        if name not in dtypes:
            raise KeyError(f"table {self.name} has no column '{name}'; {did_you_mean(name, dtypes)}")
        parts = [page[name] for page in self.pages()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype=dtypes[name])

    def pages(self) -> Iterator[Page]:
        """All rows in order, as pages of about `CHUNK`: a chunk in memory, or a row group of a file."""
        self._flush()
        first = 0
        for part in self._parts:
            for page in self._stored_pages(part, first):
                yield page
                first += len(page)
        for chunk in self._chunks:
            rows = len(chunk[self.columns[0].name])
            yield Page(first, rows, chunk.__getitem__)
            first += rows

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """The table (or some columns) as a pandas DataFrame, categories as text."""
        import pandas as pd

        data: dict[str, Any] = {}
        for name in columns or [c.name for c in self.columns]:
            values = self[name]
            data[name] = pd.Categorical.from_codes(values, categories=self.labels[name]) if name in self.labels else values
        return pd.DataFrame(data)

    def save(self, path: Path) -> None:
        """Write the table as one Parquet file, a chunk at a time."""
        with self._writer(path) as writer:
            for page in self.pages():
                writer.write_table(self._arrow(page, writer.schema))

    def _flush(self) -> None:
        if self._rows:
            values, count = zip(*self._rows, strict=True), len(self._rows)
            self._chunks.append({c.name: np.fromiter(v, c.dtype, count) for c, v in zip(self.columns, values, strict=True)})
            self._chunked += count
            self._rows.clear()
        if self._chunked >= KEEP:
            self._spool()

    def _spool(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="burstsim-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        part = self._folder / f"{self.name}-{len(self._parts)}.parquet"
        # Read several times, then thrown away: lz4 takes two thirds of the time of zstd, and half as much disk again.
        with self._writer(part, "lz4") as writer:
            for chunk in self._chunks:
                writer.write_table(self._arrow(chunk, writer.schema))
        self._parts.append(part)
        self._stored += self._chunked
        self._chunks, self._chunked = [], 0

    def _writer(self, path: Path, compression: str = "zstd") -> Any:
        import pyarrow.parquet as pq

        # Dictionaries pay for categories only: times hardly ever repeat.
        return pq.ParquetWriter(path, self._schema(), compression=compression, use_dictionary=list(self.labels))

    def _schema(self) -> Any:
        import pyarrow as pa

        fields = []
        for c in self.columns:
            metadata = {"doc": c.doc}
            if c.name in self.labels:
                metadata["labels"] = json.dumps(self.labels[c.name])
            kind = pa.dictionary(pa.int32(), pa.string()) if c.name in self.labels else pa.from_numpy_dtype(np.dtype(c.dtype))
            fields.append(pa.field(c.name, kind, metadata=metadata))
        return pa.schema(fields)

    def _arrow(self, rows: Page | dict[str, np.ndarray], schema: Any) -> Any:
        import pyarrow as pa

        arrays = []
        for c in self.columns:
            values = np.ascontiguousarray(rows[c.name], dtype=c.dtype)
            array = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
            arrays.append(pa.DictionaryArray.from_arrays(array, _strings(self.labels[c.name])) if c.name in self.labels else array)
        return pa.Table.from_arrays(arrays, schema=schema)

    def _stored_pages(self, path: Path, first: int) -> Iterator[Page]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                yield Page(first, rows, functools.partial(self._read, file, group, path))
                first += rows

    def _read(self, file: Any, group: int, path: Path, name: str) -> np.ndarray:
        try:
            array = file.read_row_group(group, columns=[name], use_threads=False).column(0).combine_chunks()
            values: np.ndarray = (array.indices if name in self.labels else array).to_numpy(zero_copy_only=False)
            if name in self.labels:
                # Parquet keeps its own dictionary per row group; the codes are made ours again.
                codes = [self.labels[name].index(text) for text in array.dictionary.to_pylist()]
                values = np.array(codes or [0], dtype="i4")[values]
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadInput([Problem(f"is damaged, in the column {name}: {error}; run the scenario again", file=str(path))]) from error
        return values.astype(next(c.dtype for c in self.columns if c.name == name), copy=False)


def _strings(texts: Sequence[str]) -> Any:
    """An Arrow array of texts, from buffers: `pa.array` imports pandas, which costs more than writing a file."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype="i4")
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))])
