"""Any table of a recording, as a sheet: Parquet, JSON lines or delimited text, told apart by how the file begins."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workloads.formats import _delimited, _records
from workloads.formats._sheet import Sheet, plain, require
from workloads.formats._source import PARQUET, Source


def columns(source: Source) -> set[str]:
    """The names of a table's columns in lower case; none where the file is no table."""
    if source.data.startswith(PARQUET):
        return set(map(plain, _names(source)))
    return set(_records.first_record(source.data[: 1 << 20])) or set(map(plain, _delimited.header(source.data[: 1 << 20])))


def read(source: Source, required: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> Sheet:
    """The wanted columns. Raises BadInput when there is no table, a column is missing or no row is there."""
    if source.data.startswith(PARQUET):
        return _parquet(source, required, optional)
    if source.data.lstrip().startswith(b"{"):
        return _records.read(source, required, optional)
    return _delimited.read(source, required, optional)


def _names(source: Source) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(pa.BufferReader(source.data)).names)
    except (pa.ArrowInvalid, OSError) as error:
        source.fail(f"the Parquet file is damaged or incomplete ({str(error).splitlines()[0]})")


def _parquet(source: Source, required: Sequence[Sequence[str]], optional: Sequence[str]) -> Sheet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source.unit = "row"
    names = _names(source)
    require(source, names, required)
    wanted = {name for choices in (*required, optional) for name in choices}
    written = {plain(name): name for name in reversed(names) if plain(name) in wanted}
    try:
        table = pq.read_table(pa.BufferReader(source.data), columns=list(written.values()), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        source.fail(f"the Parquet file is damaged or incomplete ({str(error).splitlines()[0]})")
    if not table.num_rows:
        source.fail("the table has no rows")
    found = {name: table.column(as_written).combine_chunks() for name, as_written in written.items()}
    return Sheet(source, names, found, np.arange(1, table.num_rows + 1))
