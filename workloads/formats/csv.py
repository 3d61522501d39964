"""Plain CSV: arrival_s,input_tokens,output_tokens and their synonyms (`_plain.py`), in any order, among other columns."""
from __future__ import annotations

from dataclasses import dataclass

from workloads.formats._delimited import has, read
from workloads.formats._plain import OPTIONAL, REQUIRED, plain_rows
from workloads.formats._source import Source
from workloads.formats.base import Rows


@dataclass
class Csv:
    def sniff(self, path: str, head: bytes) -> bool:
        return has(head, *REQUIRED)

    def read(self, source: Source) -> Rows:
        return plain_rows(read(source, REQUIRED, OPTIONAL))
