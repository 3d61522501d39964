"""Mooncake traces: JSON lines of timestamp (milliseconds), input_length, output_length, hash_ids (github.com/kvcache-ai/Mooncake).

`hash_ids` name the prompt's blocks of 512 tokens, each with all before it. The published timestamps are ticks of about 3 s; the option
`spread: 3s` of the workload `trace` spreads them.
"""
from __future__ import annotations

from dataclasses import dataclass

from workloads.formats._ids import LISTS, identified
from workloads.formats._records import first_record, read
from workloads.formats._sheet import numbers, rows
from workloads.formats._source import Source
from workloads.formats.base import Rows

COLUMNS = (("timestamp",), ("input_length",), ("output_length",))


@dataclass
class Mooncake:
    def sniff(self, path: str, head: bytes) -> bool:
        first = first_record(head)
        return "chat_id" not in first and all(names[0] in first for names in COLUMNS)

    def read(self, source: Source) -> Rows:
        sheet = read(source, COLUMNS, ("session_id", *LISTS))
        session = sheet.first(("session_id",))
        found = rows(sheet, numbers(sheet, "timestamp") / 1000, "input_length", "output_length", session)
        return identified(sheet, found, session)
