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

from sim.core.errors import did_you_mean
from sim.core.request import STATUSES

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
        known = self.labels[column]
        if text not in known:
            known.append(text)
        return known.index(text)

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
                yield Page(first, rows, functools.partial(self._read, file, group))
                first += rows

    def _read(self, file: Any, group: int, name: str) -> np.ndarray:
        array = file.read_row_group(group, columns=[name], use_threads=False).column(0).combine_chunks()
        values: np.ndarray = (array.indices if name in self.labels else array).to_numpy(zero_copy_only=False)
        if name in self.labels:
            # Parquet keeps its own dictionary per row group; the codes are made ours again.
            codes = [self.labels[name].index(text) for text in array.dictionary.to_pylist()]
            values = np.array(codes or [0], dtype="i4")[values]
        return values.astype(next(c.dtype for c in self.columns if c.name == name), copy=False)


def _strings(texts: Sequence[str]) -> Any:
    """An Arrow array of texts, from buffers: `pa.array` imports pandas, which costs more than writing a file."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype="i4")
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))])


REQUESTS = (
    Column("request", "i8", "number, in order of arrival"),
    Column("workload", "i4", "which workload sent it", ()),
    Column("session", "i8", "the session it belongs to, -1 if none"),
    Column("replica", "i4", "the replica that served it (row of `replicas`), -1 if none"),
    Column("arrival", "f8", "when it reached the front door, s"),
    Column("admitted", "f8", "when an engine first scheduled it, s (NaN: never)"),
    Column("first_token", "f8", "when its first token was out, s (NaN: never)"),
    Column("last_token", "f8", "when its last token was out, s (NaN: unfinished)"),
    Column("input_tokens", "i4", "prompt tokens"),
    Column("output_tokens", "i4", "tokens generated"),
    Column("wanted_tokens", "i4", "tokens that would have been generated"),
    Column("preemptions", "i4", "times its cache was dropped and recomputed"),
    Column("status", "i4", "how it ended", STATUSES),
    Column("reason", "i4", "why it was rejected or failed", ("",)),
    Column("cached_tokens", "i4", "prompt tokens found in the KV cache when it was first admitted"),
    Column("common_tokens", "i4", "of them, tokens of a system prompt that sessions share"),
    Column("overhead", "f8", "time in the API server and tokeniser, outside the engine, s; the times above are the engine's"),
)
STRETCHES = (
    Column("start", "f8", "begin of the run of steps, s"),
    Column("seconds", "f8", "its length, s"),
    Column("first_step", "f8", "length of its first step, s; step lengths grow linearly over the stretch"),
    Column("replica", "i4", "row of `replicas`"),
    Column("steps", "i4", "engine steps in it"),
    Column("decoders", "i4", "requests that got one token in each step"),
    Column("held", "i8", "KV tokens the decoders held before its first step; grows by `decoders` a step"),
    Column("prefills", "i4", "prompt chunks computed (then steps = 1)"),
    Column("prefill_tokens", "i4", "prompt tokens computed"),
    Column("prefill_pairs", "f8", "query-key pairs of those chunks: sum of n (before + (n + 1) / 2)"),
    Column("waiting", "i4", "requests queued at this replica during the stretch"),
    Column("blocks", "i4", "KV blocks in use at its end"),
    Column("paused", "i4", "requests that could have got a token but waited for the prompts"),
    Column("tokens", "f8", "tokens that its decoders got; with speculation, steps before a request's last count at the expected pace"),
)
STALLS = (
    Column("request", "i8", "the request that got no tokens: it was preempted, or handed on to a decode replica"),
    Column("replica", "i4", "row of `replicas`"),
    Column("start", "f8", "its last token before, s"),
    Column("end", "f8", "its next token, s"),
)
REPLICAS = (
    Column("pool", "i4", "the pool it belongs to", ()),
    Column("gpu", "i4", "GPU of the catalogue", ()),
    Column("gpus", "i4", "GPUs it occupies"),
    Column("start", "f8", "begin of its life, s"),
    Column("end", "f8", "end of its life, s"),
    Column("blocks", "i4", "KV blocks it has"),
    Column("block_size", "i4", "tokens per KV block"),
    Column("peak_blocks", "i4", "most KV blocks in use at once"),
    Column("taken_blocks", "i8", "KV blocks taken over the run"),
    Column("returned_blocks", "i8", "KV blocks given back over the run"),
    Column("left_blocks", "i4", "KV blocks in use at the end"),
    Column("preemptions", "i4", "requests whose cache was dropped and recomputed"),
    Column("kept_peak_blocks", "i4", "most free KV blocks kept at once for sessions that paused"),
    Column("kept_block_seconds", "f8", "their sum over time, block-seconds"),
)
TRANSFERS = (
    Column("kind", "i4", "why keys and values moved", ("handoff", "swap_in", "reload", "offload")),
    Column("request", "i8", "the request they belong to; offload: the one whose coming or going sent them"),
    Column("source", "i4", "the replica they came from (its host's memory or a lower tier where it is the target)"),
    Column("target", "i4", "the replica they went to"),
    Column("start", "f8", "when they were asked for, s"),
    Column("end", "f8", "when the last byte was in, s"),
    Column("bytes", "f8", "bytes moved"),
    Column("tokens", "i8", "tokens they belong to"),
    Column("tier", "i4", "the lower tier they came from (reload) or went to (offload)", ("", "host", "ssd", "remote")),
)
ADAPTERS = (
    Column("request", "i8", "a request that starts to run with an adapter, or starts again"),
    Column("adapter", "i4", "the adapter it asks for", ()),
    Column("replica", "i4", "row of `replicas`"),
    Column("time", "f8", "when it starts, s"),
    Column("source", "i4", "where the adapter was", ("slot", "host", "storage")),
    Column("seconds", "f8", "how long the engine waited for it before the step"),
)
STAGES = (
    Column("request", "i8", "a request of a cascade: an answer, or a model's verdict on one"),
    Column("root", "i8", "the first request of its chain"),
    Column("stage", "i4", "0 for the first service of the chain, 1 for the next"),
    Column("part", "i4", "what it is for", ("answer", "verdict")),
    Column("service", "i4", "the pool or model it was for", ()),
    Column("outcome", "i4", "what came of it", ("accepted", "escalated", "last", "refused", "open", "verdict")),
    Column("start", "f8", "when it was sent, s"),
    Column("end", "f8", "when the chain went on or its caller had the answer, verification included, s (NaN: never)"),
)
TABLES = {
    "requests": REQUESTS, "stretches": STRETCHES, "stalls": STALLS, "replicas": REPLICAS, "transfers": TRANSFERS, "adapters": ADAPTERS,
    "stages": STAGES,
}  # fmt: skip


def tables() -> dict[str, Table]:
    """Empty tables of a run."""
    return {name: Table(name, columns) for name, columns in TABLES.items()}
