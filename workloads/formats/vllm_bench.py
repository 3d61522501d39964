"""vLLM's benchmark: its `custom` data sets (JSON lines without times) and its result files (one JSON object).

A data set line needs counts of tokens: prompt_len (or prompt_tokens, input_tokens, prompt_token_ids) and output_tokens. Text alone is
refused: how many tokens it makes depends on the model's tokenizer, and a guess from its characters would be wrong by tens of percent.
A result file holds input_lens, output_lens and, from newer versions, start_times of a monotonic clock, counted here from the first.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.formats._ids import identified
from workloads.formats._records import first_record, records
from workloads.formats._sheet import Sheet, from_first, numbers, rows
from workloads.formats._source import Source
from workloads.formats.base import Rows

IDS = "prompt_token_ids"
PROMPT = ("prompt_len", "prompt_tokens", "input_tokens", "input_len")
OUTPUT = ("output_tokens", "output_tokens_count", "output_len", "expected_output_len")


@dataclass
class VllmBench:
    def sniff(self, path: str, head: bytes) -> bool:
        if head.lstrip().startswith(b"{") and b'"input_lens"' in head:
            return True
        first = first_record(head)
        return "timestamp" not in first and ("prompt" in first or "prompt_len" in first or "prompt_token_ids" in first)

    def read(self, source: Source) -> Rows:
        if b'"input_lens"' in source.data:
            return _result(source)
        return _data_set(source)


def _data_set(source: Source) -> Rows:
    found, lines = records(source)
    prompts = [_prompt(record) for record in found]
    outputs = [next((record[name] for name in OUTPUT if name in record), None) for record in found]
    if not any(prompt is not None for prompt in prompts):
        source.findings.add(
            "the prompts are text without a count of tokens, and the count depends on the model's tokenizer; "
            "add prompt_len (tokens) to each line",
            int(lines[0]),
        )
        prompts = [1] * len(prompts)
    columns: dict[str, Any] = {"prompt_len": prompts, "output_tokens": outputs}
    if any(isinstance(record.get(IDS), list) for record in found):
        columns[IDS] = [record.get(IDS) for record in found]
    sheet = Sheet(source, list(found[0]), columns, lines)
    return identified(sheet, rows(sheet, None, "prompt_len", "output_tokens"))


def _prompt(record: dict[str, Any]) -> Any:
    if isinstance(record.get(IDS), list):
        return len(record[IDS])
    return next((record[name] for name in PROMPT if name in record), None)


def _result(source: Source) -> Rows:
    try:
        result = json.loads(source.data)
    except ValueError as error:
        source.fail(f"the result file is damaged or incomplete: {error}")
    columns = {name: result.get(name) for name in ("input_lens", "output_lens", "start_times")}
    for name in ("input_lens", "output_lens"):
        if not isinstance(columns[name], list) or not columns[name]:
            source.fail(f"{name} is missing; the benchmark writes it with --save-detailed")
    sizes = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    if len(set(sizes.values())) > 1:
        source.fail("the lists differ in length: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    source.unit = "row"
    sheet = Sheet(source, list(result), columns, np.arange(1, sizes["input_lens"] + 1))
    if "start_times" not in sizes:
        return rows(sheet, None, "input_lens", "output_lens")
    starts = from_first(numbers(sheet, "start_times"))
    # The lists are in order of the data set; requests started in order of time.
    return rows(sheet, starts, "input_lens", "output_lens").pick(np.argsort(starts, kind="stable"))
