"""Requests of InferenceX's multi-turn benchmark: recorded coding sessions replayed against a real engine, one row per request.

A user's next request goes out some time after the answer before; `Rows.pause` holds how long, as it was measured, so that the sessions can
be sent again at the pace of other answers (`pace: answers`). Answers are sampled anew, longer than the recorded ones, and the next prompt
holds what was recorded: a prompt shares with the one before (`theoretical_cache_hit_blocks` of 64 tokens) but not with its answer.

Output tokens are the chunks of the answer, one token each: their sum is what the server counted (within 0.5 %). A client that fell behind
reads many tokens in one chunk; there its own count of the text's tokens is taken, some percent higher, by another tokenizer.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads._identity import Chain
from workloads.formats._delimited import has, read
from workloads.formats._sheet import Sheet, numbers, rows, tokens
from workloads.formats._source import Source
from workloads.formats.base import Rows

USER, SENT, ENDED = "user_id", "request_start_time", "request_complete_time"
INPUT, OUTPUT, CHUNKS, HITS = "input_tokens", "output_tokens_actual", "n_chunks", "theoretical_cache_hit_blocks"
COLUMNS = ((USER,), (SENT,), (ENDED,), (INPUT,), (OUTPUT,), (CHUNKS,), (HITS,))
SUCCESS = "success"
BLOCK = 64
BEHIND = 0.9  # share of its own count of tokens below which a client's chunks were not one token each


@dataclass
class Inferencex:
    def sniff(self, path: str, head: bytes) -> bool:
        return has(head, *COLUMNS)

    def read(self, source: Source) -> Rows:
        sheet = read(source, COLUMNS, (SUCCESS,))
        sent, ended = numbers(sheet, SENT), numbers(sheet, ENDED)
        for row in np.flatnonzero(ended < sent).tolist():
            sheet.wrong(row, f"{ENDED} {ended[row]:g} is before {SENT} {sent[row]:g}")
        found = rows(sheet, sent, INPUT, OUTPUT, USER)
        chunks = tokens(sheet, CHUNKS)
        found = found._replace(output=np.where(chunks < BEHIND * found.output, found.output, chunks))
        order = np.argsort(sent, kind="stable")
        failed = _failed(sheet)
        if failed.any():
            left = f"left out {failed.sum()} of {len(failed)} requests, which failed"
            found = found._replace(remarks=[f"{source.name}: {left}"])
            order = order[~failed[order]]
        if not len(order):
            source.fail("no request of it succeeded")
        return _linked(found.pick(order), ended[order], tokens(sheet, HITS)[order], source.identity)


def _failed(sheet: Sheet) -> np.ndarray:
    if SUCCESS not in sheet.columns:
        return np.zeros(len(sheet.line), dtype=bool)
    return np.array([str(cell).strip().lower() != "true" for cell in sheet.columns[SUCCESS].to_pylist()], dtype=bool)


def _linked(found: Rows, ended: np.ndarray, hits: np.ndarray, identity: bool) -> Rows:
    """Rows in order of time, with their pauses and, if wanted, what they share with the row before of their user."""
    before = np.full(len(ended), -1, dtype=np.int64)
    order = np.argsort(found.session, kind="stable")
    same = found.session[order][1:] == found.session[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    assert found.arrival is not None
    pause = np.where(before < 0, 0.0, np.maximum(found.arrival - ended[before], 0.0))
    if not identity:
        return found._replace(pause=pause)
    shared = np.where(before < 0, 0, np.minimum(BLOCK * hits, np.minimum(found.prompt, found.prompt[before])))
    linked = Chain(np.where(shared > 0, before, -1), shared, found.prompt, np.arange(len(before)))
    return found._replace(pause=pause, content=linked)
