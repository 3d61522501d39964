"""The prefix cache against its plain form, block for block: what is found, held, free, cached, and in which order it will be evicted."""
from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.content import Content
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from tests.both_caches import ACTS, SEGMENTS, Both, content, request
from tests.reference_cache import ReferenceCache, compare

TRACE = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces" / "mooncake_conversation_t0-2400.parquet"


def admit(kv, one, order=1):
    """Admit a request and compute its prompt in one step; returns tokens found."""
    one.computed = found = kv.find(one)
    known = one.prompt + one.generated
    assert kv.grow(one, known - found)
    one.computed, one.order = known, order
    return found


def finish(kv, one):
    """Its remaining tokens, then its end."""
    before, one.computed, one.generated = one.computed, one.prompt + one.output - 1, one.output
    size = kv.block_size
    assert kv.take(-(-one.computed // size) - -(-before // size))
    kv.drop(one)
    one.order = -1


def serve(kv, *requests):
    """One after the other, each to its end; returns tokens found."""
    found = []
    for one in requests:
        found.append(admit(kv, one))
        finish(kv, one)
    return found


# -- both side by side ------------------------------------------------------------
@settings(max_examples=400, deadline=None)
@given(st.integers(3, 30), st.sampled_from([1, 3, 4, 8]), st.integers(1, 30), st.lists(SEGMENTS, max_size=5), ACTS)
def test_equal_to_the_plain_form(blocks, size, chunk, contents, acts):
    both = Both(blocks, size, chunk, [content(*segments) for segments in contents])
    for act in acts:
        both.play(*act)


@pytest.mark.parametrize(("blocks", "size", "chunk"), [(12, 4, 9), (40, 4, 64), (150, 4, 16), (60, 1, 20), (25, 16, 50)])
def test_equal_to_the_plain_form_over_long_runs(blocks, size, chunk):
    dice = random.Random(blocks)
    trunk = [(dice.randint(1, 3), dice.choice([1, 2, 4, 7, 12, 16, 20])) for _ in range(6)]
    contents = []
    for _ in range(8):
        branch = [(dice.randint(1, 3), 4 * dice.randint(1, 4)) for _ in range(dice.randint(0, 4))]
        contents.append(content(*trunk[: dice.randint(1, 6)], *branch))
    both = Both(blocks, size, chunk, contents)
    for _ in range(1500):
        acts = [0, 1, 1, 2, 2, 3, 4, 4, 4, 5] if dice.random() < 0.3 else [0, 1, 1, 2, 3, 4, 4, 4]
        both.play(dice.choice(acts), dice.randrange(97), dice.randrange(97))
    assert both.hits > 500
    assert both.kv.returned > 5 * blocks


def test_a_block_that_somebody_else_completed_first_is_shared_and_the_own_one_given_back():
    both = Both(10, 4, 6, [content((1, 12))])
    slow, quick = request(1, 13, 5, both.contents[0]), request(2, 13, 5, both.contents[0])
    for one, tokens in ((slow, 6), (quick, 4)):
        one.computed = both.both("find", one)
        assert both.both("grow", one, tokens)
        one.computed += tokens
        one.order = one.id
    assert (quick.computed, both.kv.free) == (8, 7)
    assert both.both("grow", slow, 2)
    assert both.kv.free == 8
    compare(both.kv, both.plain)
    slow.computed = 8
    for one in (slow, quick):
        both.drop(one)
        compare(both.kv, both.plain)


# -- a trace ------------------------------------------------------------
def replay(kv, requests, live=8, chunk=8192):
    """Serve requests in turn, `live` at a time; returns tokens found by each."""
    running, found, keep = deque(), [], 200
    for order, one in enumerate(requests, 1):
        if len(running) == live:
            finish(kv, running.popleft())
        one.computed = kv.find(one)
        found.append(one.computed)
        while one.computed < one.prompt:
            tokens = min(chunk, one.prompt - one.computed)
            while kv.need(one, tokens) > kv.free - keep:
                finish(kv, running.popleft())
            assert kv.grow(one, tokens)
            one.computed += tokens
            one.order = order
        running.append(one)
    for one in running:
        finish(kv, one)
    return found


def mooncake(count):
    """The first requests of the Mooncake conversation trace, whose hashes name chained blocks of 512 tokens."""
    if not TRACE.is_file():
        pytest.skip("no traces at ../shared/data/traces")
    made = []
    for id, row in enumerate(pd.read_parquet(TRACE).head(count).itertuples(), 1):
        ends = [min(512 * i, row.input_tokens) for i in range(1, len(row.hash_ids) + 1)]
        made.append(request(id, row.input_tokens, row.output_tokens, Content([key + 1 for key in row.hash_ids.tolist()], ends)))
    return made


@pytest.mark.parametrize("count", [150, pytest.param(7851, marks=pytest.mark.study)])
@pytest.mark.parametrize("blocks", [20_000, 200_000])
def test_the_same_blocks_of_a_trace_are_found(blocks, count):
    kv, plain = Radix(blocks, 16), ReferenceCache(blocks, 16)
    found = replay(kv, mooncake(count))
    assert found == replay(plain, mooncake(count))
    assert sum(found) > 0
    compare(kv, plain)


# -- one thing at a time ------------------------------------------------------------
def test_whole_blocks_are_found_and_one_token_is_left_to_compute():
    kv = Radix(100, 16)
    system = content((1, 40), common=40)
    assert serve(kv, request(1, 45, 3, system), request(2, 60, 3, system)) == [0, 32]
    assert kv.holds(system) == 32
    assert serve(kv, request(3, 32, 3, content((1, 32)))) == [16]
    assert kv.holds(content((2, 40))) == 0


def test_a_session_finds_its_own_replies():
    kv = Radix(100, 16)
    first = request(1, 40, 30, content((1, 40)), reply=2)
    # Of 70 tokens the last was never fed back; of its 69 computed ones 64 fill blocks.
    again = request(2, 90, 10, content((1, 40), (2, 30), (3, 20)))
    other = request(3, 90, 10, content((1, 40), (4, 30), (3, 20)))
    assert serve(kv, first, again, other) == [0, 64, 32]


def test_contents_that_differ_in_a_short_piece_never_match():
    kv = Radix(100, 16)
    assert serve(kv, request(1, 64, 1, content((1, 16), (2, 3), (3, 45))), request(2, 64, 1, content((1, 16), (4, 3), (3, 45)))) == [0, 16]
    assert kv.holds(content((1, 16), (2, 3), (3, 45))) == kv.holds(content((1, 16), (4, 3), (3, 45))) == 64


def test_a_longer_and_a_shorter_piece_of_one_key_agree_as_far_as_the_shorter_goes():
    kv = Radix(100, 16)
    lengths = [(32, 32), (64, 32), (32, 64), (64, 16)]
    found = serve(kv, *(request(id, first + second + 1, 1, content((1, first), (2, second))) for id, (first, second) in enumerate(lengths)))
    assert found == [0, 32, 64, 80]


def test_who_is_admitted_in_the_same_step_shares():
    kv = Radix(10, 16)
    one, two = (request(id, 50, 5, content((1, 50))) for id in (1, 2))
    assert kv.grow(one, 50)
    two.computed = kv.find(two)
    assert (two.computed, kv.need(two, 2), kv.free) == (48, 1, 6)
    assert kv.grow(two, 2)
    assert kv.free == 5


def test_what_is_found_counts_as_needed_unless_somebody_holds_it():
    kv = Radix(6, 16)
    serve(kv, request(1, 64, 1, content((1, 64))))
    one = request(2, 90, 1, content((1, 64)))
    one.computed = kv.find(one)
    assert (one.computed, kv.free, kv.need(one, 26), kv.need(one, 40)) == (64, 6, 6, 7)
    assert not kv.grow(one, 40)
    assert (kv.free, kv.taken - kv.returned, one.leaf) == (6, 0, None)
    assert kv.grow(one, 26)
    assert (kv.free, kv.peak) == (0, 6)


def test_only_who_was_preempted_finds_what_nobody_named():
    kv = Radix(20, 16)
    ended, preempted = request(1, 40, 20), request(2, 40, 30)
    admit(kv, ended)
    admit(kv, preempted)
    finish(kv, ended)
    assert kv.take(1)
    preempted.computed, preempted.generated = 52, 13
    kv.drop(preempted)
    preempted.order, preempted.computed = -1, 0
    assert [kv.find(one) for one in (request(1, 40, 20), preempted, request(3, 40, 30))] == [0, 48, 0]


def test_keys_and_values_brought_along_need_no_computing_but_blocks():
    kv = Radix(20, 16)
    one = request(1, 50, 5, content((1, 40)))
    one.brought = 49
    assert (admit(kv, one), kv.free) == (49, 16)
    assert kv.holds(content((1, 40))) == 32


def test_only_what_is_cached_of_what_is_brought_comes_without_blocks():
    kv = Radix(4, 16)
    admit(kv, request(1, 48, 1, content((1, 48))))
    one = request(2, 48, 1, content((1, 16)))
    one.brought = one.computed = 40
    assert (kv.find(one), kv.need(one, 8), kv.free) == (40, 2, 1)
    assert not kv.grow(one, 8)


def test_the_oldest_goes_first_from_its_end_on_and_says_so():
    gone = []
    kv = Radix(8, 16)
    kv.evicted = lambda node, blocks: gone.append((kv.path(node), node.ends[-1] - blocks))
    serve(kv, request(1, 64, 1, content((1, 24), (2, 40))), request(2, 32, 1, content((3, 32))))
    one = request(3, 64, 1, content((1, 24), (4, 40)))
    assert admit(kv, one) == 16
    # Two blocks were still blank, so of the first request's own three the last one went.
    assert gone == [([(1, 1), (2, 4)], 3)]
    assert (kv.holds(content((1, 24), (2, 40))), kv.holds(content((3, 32)))) == (48, 32)
    assert kv.take(3)
    assert gone[1:] == [([(1, 1), (2, 3)], 1), ([(3, 2)], 1)]
    assert kv.take(1)
    assert gone[3:] == [([(3, 1)], 0)]
    assert not kv.take(1)


def test_a_path_names_split_pieces_in_one():
    kv = Radix(20, 16)
    serve(kv, request(1, 128, 1, content((1, 128))), request(2, 65, 1, content((1, 64))), request(3, 97, 1, content((1, 96))))
    paths = []
    kv.evicted = lambda node, blocks: paths.append((kv.path(node), blocks))
    assert kv.take(20)
    assert paths == [([(1, 8)], 2), ([(1, 6)], 2), ([(1, 4)], 4)]


def test_nothing_is_left_of_what_was_evicted():
    kv = Radix(50, 4)
    for id in range(1, 200):
        serve(kv, request(id, 60, 9, content((1, 10), (id % 7, 20), (id, 30)), reply=1000 + id))
    assert kv.free == 50
    assert kv.take(50)
    assert (kv._root.children, len(kv._queue), kv._head, kv._tail) == ({}, 0, 0, 0)


def test_without_contents_it_counts_like_paged():
    dice, radix, paged = random.Random(1), Radix(40, 16), Paged(40, 16)
    running = []
    for id in range(500):
        one = request(id, dice.randint(1, 300), dice.randint(1, 100))
        for kv in (radix, paged):
            assert (kv.find(one), kv.need(one, 0)) == (0, 0)
        if radix.need(one, one.prompt) + 7 <= radix.free:
            assert radix.grow(one, one.prompt)
            assert paged.grow(one, one.prompt)
            one.computed = one.prompt
            running.append(one)
        elif running:
            for kv in (radix, paged):
                running[0].computed = running[0].prompt
                finish(kv, running[0])
            running.pop(0)
        assert (radix.free, radix.taken, radix.returned, radix.peak) == (paged.free, paged.taken, paged.returned, paged.peak)
    assert (len(radix._queue), radix._root.children) == (0, {})
