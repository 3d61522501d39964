"""The contiguous cache against a row of blocks that are marked one by one, and its reservations against the paper's words."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.request import Request
from sim.policy.kv.contiguous import Contiguous


class Row:
    """Every block by name: first fit means the lowest run of free blocks that is long enough."""

    def __init__(self, blocks):
        self.owner = [None] * blocks

    def place(self, size):
        runs = (at for at in range(len(self.owner) - size + 1) if all(owner is None for owner in self.owner[at : at + size]))
        return next(runs, None)

    def take(self, name, at, size):
        self.owner[at : at + size] = [name] * size

    def drop(self, name):
        self.owner = [None if owner == name else owner for owner in self.owner]

    def largest(self):
        longest = here = 0
        for owner in self.owner:
            here = 0 if owner is not None else here + 1
            longest = max(longest, here)
        return longest


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.integers(1, 30),
    size=st.sampled_from([1, 4, 16]),
    reservation=st.sampled_from(["max", "pow2", "oracle"]),
    moves=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99)), max_size=60),
)
def test_equals_a_row_of_blocks(blocks, size, reservation, moves):
    kv, row, live = Contiguous(blocks, size, 70, reservation), Row(blocks), []
    for number, (comes, prompt, output, pick) in enumerate(moves):
        if comes or not live:
            request = Request(number, 0.0, prompt, output)
            need, at = kv.reserves(request), row.place(kv.reserves(request))
            assert kv.need(request, prompt) == (need if at is not None else blocks + 1)
            assert kv.grow(request, prompt) == (at is not None)
            if at is not None:
                row.take(number, at, need)
                live.append(request)
                request.computed = prompt
                assert kv.need(request, 1) == 0
                assert kv.grow(request, 1)
        else:
            request = live.pop(pick % len(live))
            kv.drop(request)
            row.drop(request.id)
        assert kv.free == row.owner.count(None) == kv.blocks - kv.taken + kv.returned
        assert kv.largest_hole == row.largest()
        assert kv.peak >= blocks - kv.free
    for request in live:
        kv.drop(request)
    assert kv.free == kv.largest_hole == blocks


@pytest.mark.parametrize(("reservation", "tokens"), [("max", 2048), ("pow2", 100 + 32), ("oracle", 100 + 25)])
def test_what_is_reserved_is_what_the_paper_says(reservation, tokens):
    """An output of 25 tokens reserves 32 (Kwon et al., section 6.1); the last token needs no room."""
    assert Contiguous(10_000, 1, 2048, reservation).reserves(Request(0, 0.0, 100, 25)) == tokens - 1


def test_never_reserves_more_than_there_is():
    """The front door lets in whatever fits the whole cache."""
    assert Contiguous(10, 16, 8192).reserves(Request(0, 0.0, 100, 61)) == 10
    assert Contiguous(10, 16, 161, "pow2").reserves(Request(0, 0.0, 100, 61)) == 10


def test_free_blocks_in_pieces_serve_nobody():
    kv = Contiguous(9, 1, 99, "oracle")
    small = [Request(i, 0.0, 2, 2) for i in range(3)]
    assert [kv.grow(request, 2) for request in small] == [True] * 3
    kv.drop(small[0])
    kv.drop(small[2])
    big = Request(9, 0.0, 3, 2)
    assert kv.free == 6
    assert kv.largest_hole == 3
    assert kv.need(big, 3) > kv.free
    assert not kv.grow(big, 3)
    kv.drop(small[1])
    assert kv.grow(big, 3)


def test_decoders_take_nothing():
    kv = Contiguous(9, 1, 9)
    assert not kv.grows
    assert kv.take(0)
    assert not kv.take(1)
