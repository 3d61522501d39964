"""Plain JSON lines: the columns of plain CSV (`_plain.py`) as keys of one object a line, times in seconds unless the key says otherwise.

guidellm, LLMServingSim and Qwen-Bailian write it, the last two with what prompts share (`_ids.py`). A guidellm line and a Mooncake line
without `hash_ids` look alike but differ by a factor of 1000 in time, so `format: auto` does not choose between the two.
"""
from __future__ import annotations

from dataclasses import dataclass

from workloads.formats._ids import LISTS
from workloads.formats._plain import OPTIONAL, REQUIRED, plain_rows
from workloads.formats._records import first_record, read
from workloads.formats._source import Source
from workloads.formats.base import Rows


@dataclass
class Jsonl:
    def sniff(self, path: str, head: bytes) -> bool:
        first = first_record(head)
        mooncake = {"hash_ids", "timestamp", "input_length"} <= first.keys() and "chat_id" not in first
        return not mooncake and all(any(name in first for name in names) for names in REQUIRED)

    def read(self, source: Source) -> Rows:
        return plain_rows(read(source, REQUIRED, (*OPTIONAL, *LISTS)))
