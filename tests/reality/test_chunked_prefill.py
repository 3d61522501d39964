"""Chunked prefill against prefill first: the capacity at a bound on the P99 time between tokens (Sarathi-Serve, OSDI 2024).

Recalled from the paper, not re-read: 2.6 times the capacity of vLLM with Mistral-7B on an A100 and up to 3.7 times with Yi-34B on two
(abstract); bounds of 0.1 s (Mistral-7B) and 0.2 s (Yi-34B) and budgets of 512 tokens for the strict SLO, a median scheduling delay of at
most 2 s (section 5.1, table 3); lengths (table 2).
"""
from __future__ import annotations

import pytest

from tests.reality.search import ENGINE, POOL, TRAFFIC, capacity, study

YI = ("model=01-ai/Yi-34B", f"{POOL}.parallel.tp=2")
FIRST = (f"{ENGINE}.batcher.kind=prefill_first", f"{ENGINE}.max_num_batched_tokens=16384")


def tail(rate, *sets):
    """P99 time between tokens and median scheduling delay, s."""
    result = study("chunked_prefill", f"{TRAFFIC}.rate={rate}", *sets)
    return result.summary["itl_s"]["p99"], result.requests["queue"].median()


def sustained(limit, *sets):
    def keeps(rate):
        gap, delay = tail(rate, *sets)
        return gap <= limit and delay <= 2.0

    return capacity(keeps, 0.05, 10.0, within=0.05)


def test_chunks_keep_the_tail_where_whole_prompts_do_not():
    """At a rate beyond what prefill first keeps below 0.1 s; its prompts, up to 7168 tokens, start no later for it."""
    chunked, whole = tail(1.6), tail(1.6, *FIRST)
    assert chunked[0] < 0.1 < whole[0]
    assert whole[1] < chunked[1]


@pytest.mark.study
def test_capacity_at_the_strict_bound():
    """Published 2.6 times for Mistral-7B; up to 3.7 times for Yi-34B, of which the data set is not recalled."""
    assert sustained(0.1) / sustained(0.1, *FIRST) == pytest.approx(2.6, rel=0.15)
    assert 2.0 <= sustained(0.2, *YI) / sustained(0.2, *YI, *FIRST) <= 3.7
