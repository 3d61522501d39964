"""What a table says about shared prompts: ids of blocks, tokens, or which earlier row a row begins with.

* `hash_ids`: a list of ids, one for each block of the prompt; a column `block_size` gives the tokens of a block, else they are 512, as
  Mooncake has them, and 16 in Qwen-Bailian's files (`chat_id`).
* `input_tok_ids` (LLMServingSim) or `prompt_token_ids` (vLLM): the prompt's tokens themselves. They are compared 16 at a time, vLLM's
  usual block, so that prompts which part within 16 tokens are taken to part at the start of them.
* `prefix_ref` with `prefix_tokens`, or with `prefix_blocks` of 64 tokens: the row begins with so many tokens of row `prefix_ref` of its
  session (of the file, where there are no sessions), counted from 0 in the order of the file; -1 for none.
"""
from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from workloads._identity import Blocks, Chain, blocks, of_tokens
from workloads.formats._sheet import Sheet, numbers, sessions, shown
from workloads.formats.base import Rows

IDS = "hash_ids"
SIZE = "block_size"
TOKENS = ("input_tok_ids", "prompt_token_ids")
REF, SHARED, SHARED_BLOCKS = "prefix_ref", "prefix_tokens", "prefix_blocks"
REFERENCES = (REF, SHARED, SHARED_BLOCKS)
LISTS = (IDS, SIZE, *TOKENS)
MOONCAKE, WEKA, SMALL = 512, 64, 16
MISSING, BAD = -1, -2
ADVICE = "; `prefix: none` does without the ids"


def identified(sheet: Sheet, rows: Rows, session: str = "") -> Rows:
    """The rows with what they share, where the sheet tells it and it is wanted; `session` names the column of sessions."""
    if not sheet.source.identity:
        return rows
    content: Blocks | Chain | None = None
    if IDS in sheet.columns:
        content = hashed(sheet, rows.prompt, _size(sheet, session), all_blocks=SIZE not in sheet.columns and session != "chat_id")
    elif tokens := sheet.first(TOKENS):
        content = _tokens(sheet, tokens, rows.prompt)
    elif REF in sheet.columns and (shared := sheet.first((SHARED, SHARED_BLOCKS))):
        content = _referred(sheet, shared, rows, session)
    return rows._replace(content=content)


def hashed(sheet: Sheet, prompt: np.ndarray, size: int, all_blocks: bool, scope: np.ndarray | None = None) -> Blocks | None:
    """The column `hash_ids`; None after problems have been noted.

    A prompt of n tokens has ceil(n / size) ids; unless `all_blocks`, the last block may lack one where it is not full. Ids of different
    `scope`s (from 0) have nothing to do with each other.
    """
    ids, count = _flat(sheet, IDS)
    before = sheet.source.findings.total
    for row in np.flatnonzero(count == MISSING).tolist():
        sheet.wrong(row, f"{IDS} is missing; other rows have it, and a list of whole numbers from 0 is wanted{ADVICE}")
    negative = np.repeat(np.arange(len(count)), np.maximum(count, 0))[ids < 0]
    for row in np.unique(negative).tolist():
        sheet.wrong(row, f"{IDS} has a negative id; whole numbers from 0 are wanted{ADVICE}")
    most = -(-prompt // size)
    least = most if all_blocks else prompt // size
    contradict = (count >= 0) & ((count < least) | (count > most)) & (prompt > 0)
    for row in np.flatnonzero(contradict).tolist():
        wanted = f"{most[row]}" if least[row] == most[row] else f"{least[row]} or {most[row]}"
        found = f"{count[row]} id{'s' if count[row] != 1 else ''}"
        sheet.wrong(row, f"{IDS} has {found}; {prompt[row]} input tokens are {wanted} blocks of {size}{ADVICE}")
    if sheet.source.findings.total > before or (count < 0).any():
        return None
    return blocks(ids, count, prompt, size, scope)


def _size(sheet: Sheet, session: str) -> int:
    if SIZE not in sheet.columns:
        return SMALL if session == "chat_id" else MOONCAKE
    sizes = numbers(sheet, SIZE)
    for row in np.flatnonzero((sizes != sizes[0]) | (sizes < 1) | (sizes != np.rint(sizes))).tolist():
        sheet.wrong(row, f"{SIZE} is {sizes[row]:g}; one size, a whole number of tokens from 1, is wanted for all rows{ADVICE}")
    return max(1, int(np.nan_to_num(sizes[0], nan=1.0)))


def _tokens(sheet: Sheet, name: str, prompt: np.ndarray) -> Blocks | None:
    ids, count = _flat(sheet, name)
    before = sheet.source.findings.total
    for row in np.flatnonzero((count != prompt) & (prompt > 0) & (count != BAD)).tolist():
        found = "missing; other rows have it" if count[row] == MISSING else f"a list of {count[row]} tokens"
        sheet.wrong(row, f"{name} is {found}; the row has {prompt[row]} input tokens{ADVICE}")
    if sheet.source.findings.total > before or (count < 0).any():
        return None
    flat, last = ids.tolist(), np.cumsum(count).tolist()
    return of_tokens([flat[end - number : end] for end, number in zip(last, count.tolist(), strict=True)], prompt, SMALL)


def _referred(sheet: Sheet, name: str, rows: Rows, session: str) -> Chain | None:
    ref, shared = numbers(sheet, REF), numbers(sheet, name) * (WEKA if name == SHARED_BLOCKS else 1)
    group = sessions(sheet, session)
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - start[order]
    before = sheet.source.findings.total
    for row in np.flatnonzero((ref < -1) | (ref >= place) | (ref != np.rint(ref))).tolist():
        where = "of its session" if session else "of the file"
        sheet.wrong(row, f"{REF} is {ref[row]:g}; an earlier row {where}, 0 to {place[row] - 1}, or -1 is wanted{ADVICE}")
    if sheet.source.findings.total > before or np.isnan(shared).any():
        return None
    found = np.where(ref < 0, -1, order[np.clip(start + ref.astype(np.int64), 0, len(order) - 1)])
    most = np.minimum(rows.prompt, np.where(found < 0, 0, (rows.prompt + rows.output)[found]))
    for row in np.flatnonzero((shared < 0) | (shared > most) | (shared != np.rint(shared))).tolist():
        allowed = f"its {rows.prompt[row]} input tokens and the row it begins with allow {most[row]}"
        sheet.wrong(row, f"{name} makes {shared[row]:g} tokens; {allowed}{ADVICE}")
    whole = shared.astype(np.int64)
    return Chain(np.where(whole > 0, found, -1), whole, rows.prompt, np.arange(len(ref)))


def _flat(sheet: Sheet, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The lists of a column one after the other (int64), and the length of each, MISSING without one, BAD where a problem was noted."""
    column = sheet.columns[name]
    if not isinstance(column, list):
        return _from_arrow(sheet, name, column)
    lists: list[list[Any]] = []
    count = np.full(len(column), MISSING, dtype=np.int64)
    for row, cell in enumerate(column):
        if cell is None:
            continue
        if isinstance(cell, list) and set(map(type, cell)) <= {int}:
            lists.append(cell)
            count[row] = len(cell)
        else:
            odd = next((one for one in cell if type(one) is not int), None) if isinstance(cell, list) else cell
            what = f"has {shown(odd)} in it" if isinstance(cell, list) else f"is {shown(cell)}"
            sheet.wrong(row, f"{name} {what}; a list of whole numbers is wanted{ADVICE}")
            count[row] = BAD
    flat = list(chain.from_iterable(lists))
    try:
        return np.array(flat, dtype=np.int64), count
    except OverflowError:
        # As below: too large for int64.
        seen: dict[int, int] = {}
        return np.array([seen.setdefault(one, len(seen)) if one >= 0 else -1 for one in flat], dtype=np.int64), count


def _from_arrow(sheet: Sheet, name: str, column: Any) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not lists or not pa.types.is_integer(column.type.value_type):
        sheet.source.fail(f"the column {name} holds {column.type}; lists of whole numbers are wanted{ADVICE}")
    lengths, values = column.value_lengths(), column.flatten()
    if values.null_count:
        sheet.source.fail(f"the column {name} has lists with gaps in them; whole numbers are wanted{ADVICE}")
    count = np.from_dlpack(lengths.fill_null(MISSING) if lengths.null_count else lengths).astype(np.int64)
    ids = np.from_dlpack(values)
    # Hashes of 64 bits without a sign do not fit, and which number a block has is all the same.
    return (np.unique(ids, return_inverse=True)[1] if ids.dtype == np.uint64 else ids).astype(np.int64), count
