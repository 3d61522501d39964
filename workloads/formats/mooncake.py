"""Mooncake traces: JSON lines of timestamp (milliseconds), input_length, output_length, hash_ids (github.com/kvcache-ai/Mooncake).

`hash_ids` name the prompt's blocks of 512 tokens; they are not used yet, only counted. The published timestamps are ticks of about 3 s; the
option `spread: 3s` of the workload `trace` spreads them.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.formats._records import first_record, read
from workloads.formats._sheet import Sheet, numbers, rows
from workloads.formats._source import Source, listed
from workloads.formats.base import Rows

COLUMNS = (("timestamp",), ("input_length",), ("output_length",))
BLOCK = 512


@dataclass
class Mooncake:
    def sniff(self, path: str, head: bytes) -> bool:
        first = first_record(head)
        return "chat_id" not in first and all(names[0] in first for names in COLUMNS)

    def read(self, source: Source) -> Rows:
        sheet = read(source, COLUMNS, ("hash_ids", "session_id"))
        found = rows(sheet, numbers(sheet, "timestamp") / 1000, "input_length", "output_length", sheet.first(("session_id",)))
        return found._replace(remarks=_miscounted(sheet, found))


def _miscounted(sheet: Sheet, found: Rows) -> list[str]:
    if "hash_ids" not in sheet.columns:
        return []
    blocks = np.array([len(ids) if isinstance(ids, list) else -1 for ids in sheet.columns["hash_ids"]])
    wrong = (blocks >= 0) & (blocks != -(-found.prompt // BLOCK))
    if not wrong.any():
        return []
    what = f"{wrong.sum()} rows whose hash_ids do not count the {BLOCK}-token blocks of their input_length"
    return [f"{sheet.source.name}: {what} ({listed('line', found.line[wrong])}); the ids are not used"]
