"""What prompts share, by reference to one earlier prompt each, from the ways in which recordings tell it."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workloads._identity import Blocks, Chain, of_sessions
from workloads.programs.script import Shares

ASSUMED = "a prompt is taken to begin with the prompt and the answer before it of its agent, as far as it is long enough"


def told(content: Chain | Blocks) -> Shares:
    """From references to rows, or from ids of blocks: then a row refers to the first that has the last block they share."""
    if isinstance(content, Chain):
        return Shares(content.ref.tolist(), content.shared.tolist(), content.prompt.tolist(), True)
    rows = len(content.counts)
    row = np.repeat(np.arange(rows), content.counts)
    _, place, key = np.unique(content.keys, return_index=True, return_inverse=True)
    earlier = row[place][key] < row
    # A key names all before it too, so the blocks that were there before are the first of a row.
    shared = np.bincount(row[earlier], minlength=rows)
    last = content.first + shared - 1
    ref = np.where(shared > 0, row[place][key][np.maximum(last, 0)] if len(key) else -1, -1)
    tokens = np.minimum(np.minimum(shared * content.size, content.prompt), np.where(ref < 0, 0, content.prompt[ref]))
    return Shares(ref.tolist(), tokens.tolist(), content.prompt.tolist(), True)


def assumed(threads: Sequence[int], times: Sequence[float], prompt: Sequence[int], output: Sequence[int]) -> Shares:
    """As nothing tells otherwise: each prompt begins with the one before it of its thread and with its answer, as far as it is long enough.

    Rows in any order; `threads` are numbers from 0. A row without a prompt is passed over.
    """
    prompts = np.array(prompt, dtype=np.int64)
    of = np.where(prompts > 0, np.array(threads), -1)
    order = np.lexsort((np.array(times), of))
    chain = of_sessions(of[order], prompts[order], np.array(output, dtype=np.int64)[order])
    ref, shared = np.empty_like(prompts), np.empty_like(prompts)
    ref[order] = np.where(chain.ref >= 0, order[chain.ref], -1)
    shared[order] = chain.shared
    return Shares(ref.tolist(), shared.tolist(), prompts.tolist(), False)
