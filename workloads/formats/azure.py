"""Azure LLM inference traces of 2023 and 2024: TIMESTAMP,ContextTokens,GeneratedTokens (github.com/Azure/AzurePublicDataset).

The time is a wall clock with seven decimals and no zone (2023), or with +00:00 and without decimals on whole seconds (2024); it is counted
from the earliest row.
"""
from __future__ import annotations

from dataclasses import dataclass

from workloads.formats._delimited import has, read
from workloads.formats._sheet import clock, rows
from workloads.formats._source import Source
from workloads.formats.base import Rows

COLUMNS = (("timestamp",), ("contexttokens",), ("generatedtokens",))


@dataclass
class Azure:
    def sniff(self, path: str, head: bytes) -> bool:
        return has(head, *COLUMNS)

    def read(self, source: Source) -> Rows:
        sheet = read(source, COLUMNS)
        return rows(sheet, clock(sheet, "timestamp"), "contexttokens", "generatedtokens")
