"""Lower tiers against their plain form, block for block: what is found, held and written in which tier, and what goes first."""
from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.policy.kv.tiers import Tiered
from tests.both_caches import ACTS, SEGMENTS, Both, content
from tests.reference_tiers import ReferenceTiers


def tier_blocks(kv, plain):
    """Names of the blocks of each tier, first out first; every run lies under a name that can be reached."""
    names, todo = {}, [(kv._names_below, 0)]
    while todo:
        piece, before = todo.pop()
        names[piece] = before
        for (start, label), child in piece.children.items():
            assert (child.parent, child.start, child.label, child.live) == (piece, start, label, True)
            assert child.children or any(child.runs)
            assert label is not None
            names[child] = name_at(plain, names, child, start)
            todo.append((child, names[child]))
    found = []
    for level, tier in enumerate(kv.tiers):
        blocks = []
        for run in tier._queue:
            assert run.piece.live
            assert run in run.piece.runs[level]
            assert run.spans == sorted(run.spans)
            for begin, end in reversed(run.spans):
                assert begin < end
                blocks += [name_at(plain, names, run.piece, at) for at in reversed(range(begin, end))]
        assert tier.held == len(blocks) <= tier.blocks
        found.append(blocks)
    return found


def name_at(plain, names, piece, at):
    """The plain form's name of block `at` of a piece."""
    if piece.parent is None:
        return 0
    parent = piece.parent
    name = name_at(plain, names, parent, piece.start - 1)
    keys = piece.label if isinstance(piece.label, tuple) else (piece.label,)
    for _ in range(piece.start, at + 1):
        name, keys = plain.name(name, keys), ()
    return name


class BothTiers(Both):
    def __init__(self, blocks, size, chunk, contents, sizes, through):
        super().__init__(blocks, size, chunk, contents)
        self.kv, self.plain = Tiered(blocks, size, sizes, through), ReferenceTiers(blocks, size, sizes, through)
        self.reloaded = 0

    def play(self, act, a, b):
        super().play(act, a, b)
        assert tier_blocks(self.kv, self.plain) == [list(tier) for tier in self.plain.tiers]
        assert [tier.written for tier in self.kv.tiers] == self.plain.written

    def admit(self, a, b):
        one = self.waiting[0] if self.waiting else None
        super().admit(a, b)
        if one is not None and one.order > 0 and one.fetch and not one.brought:
            parts = self.kv.brought.pop(one.id)
            assert parts == [(tier, count) for tier, count in enumerate(self.plain.parts) if count]
            assert sum(count for _, count in parts) * self.size == one.fetch
            self.reloaded += one.fetch


SIZES = st.lists(st.integers(1, 25), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.integers(3, 20), st.sampled_from([1, 3, 4]), st.integers(1, 30), st.lists(SEGMENTS, max_size=5), ACTS, SIZES, st.booleans())
def test_equal_to_the_plain_form(blocks, size, chunk, contents, acts, sizes, through):
    both = BothTiers(blocks, size, chunk, [content(*segments) for segments in contents], sizes, through)
    for act in acts:
        both.play(*act)


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize(("blocks", "size", "sizes"), [(16, 4, [30]), (25, 4, [20, 31]), (90, 1, [120, 60, 90])])
def test_equal_to_the_plain_form_over_long_runs(blocks, size, sizes, through):
    dice = random.Random(blocks)
    trunk = [(dice.randint(1, 3), dice.choice([1, 2, 4, 7, 12, 16, 20])) for _ in range(6)]
    contents = []
    for _ in range(12):
        branch = [(dice.randint(1, 5), 4 * dice.randint(1, 4)) for _ in range(dice.randint(0, 4))]
        contents.append(content(*trunk[: dice.randint(1, 6)], *branch))
    both = BothTiers(blocks, size, 16, contents, sizes, through)
    for _ in range(700):
        both.play(dice.choice([0, 1, 1, 2, 3, 4, 4, 4, 5]), dice.randrange(97), dice.randrange(97))
    assert both.reloaded > 200
