"""Parquet with the columns of plain CSV (`_plain.py`)."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.formats._ids import LISTS
from workloads.formats._plain import OPTIONAL, REQUIRED, plain_rows
from workloads.formats._sheet import Sheet, plain, require
from workloads.formats._source import PARQUET, Source
from workloads.formats.base import Rows


@dataclass
class Parquet:
    def sniff(self, path: str, head: bytes) -> bool:
        return head.startswith(PARQUET)

    def read(self, source: Source) -> Rows:
        import pyarrow as pa
        import pyarrow.parquet as pq

        source.unit = "row"
        if not source.data.startswith(PARQUET):
            source.fail(f"this is no Parquet file; {source.opening()}")
        try:
            with pq.ParquetFile(pa.BufferReader(source.data)) as file:
                names = file.schema_arrow.names
                require(source, names, REQUIRED)
                wanted = {name for names in (*REQUIRED, OPTIONAL, LISTS) for name in names}
                written = {plain(name): name for name in reversed(names) if plain(name) in wanted}
                table = file.read(columns=list(written.values()), use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            source.fail(f"the Parquet file is damaged or incomplete ({str(error).splitlines()[0]})")
        if not table.num_rows:
            source.fail("the table has no rows")
        columns = {name: table.column(as_written).combine_chunks() for name, as_written in written.items()}
        return plain_rows(Sheet(source, names, columns, np.arange(1, table.num_rows + 1)))
