"""BurstGPT, v1.1 and v1.2: Timestamp (seconds), Request tokens, Response tokens, and in v1.2 Session ID (github.com/HPMLL/BurstGPT).

`Response tokens` of 0 marks a failed call; `zero_tokens: skip` leaves those out.
"""
from __future__ import annotations

from dataclasses import dataclass

from workloads.formats._delimited import has, read
from workloads.formats._sheet import numbers, rows
from workloads.formats._source import Source
from workloads.formats.base import Rows

COLUMNS = (("timestamp",), ("request tokens",), ("response tokens",))
SESSION = "session id"


@dataclass
class Burstgpt:
    def sniff(self, path: str, head: bytes) -> bool:
        return has(head, *COLUMNS)

    def read(self, source: Source) -> Rows:
        sheet = read(source, COLUMNS, (SESSION,))
        return rows(sheet, numbers(sheet, "timestamp"), "request tokens", "response tokens", sheet.first((SESSION,)))
