"""Tail policies: what a round launches, when it is over, and what it costs against brute force."""
from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import TAILS
from sim.core.rollout import Group, Prompt
from sim.core.rounds import Batch, Launch, Left, Replica
from sim.policy.tail.over_sample import times

NOTHING = Left(0, 0)


def tail(kind, **options):
    checked, problems = TAILS.check({"kind": kind, **options})
    assert not problems
    return TAILS.make(checked)


def test_over_sampling_launches_more_and_keeps_what_is_wanted():
    assert tail("over_sample").launch(Batch(128, 8), NOTHING) == Launch(0, 0, 160, 10, 128)
    assert tail("over_sample", eta_prompt=1.1, eta_response=1).launch(Batch(10, 8), NOTHING) == Launch(0, 0, 11, 8, 10)
    assert times(1.1, 10) == 11
    assert times(1.25, 3) == 4


def test_who_is_left_comes_first():
    assert tail("partial").launch(Batch(10, 8), NOTHING) == Launch(0, 0, 20, 8, 10)
    assert tail("partial").launch(Batch(10, 8), Left(7, 0)) == Launch(7, 0, 13, 8, 10)
    assert tail("partial").launch(Batch(10, 8), Left(30, 0)) == Launch(20, 0, 0, 8, 10)
    assert tail("over_sample", rest="restart").launch(Batch(8, 2), Left(0, 4)) == Launch(0, 4, 6, 3, 8)


def rounds(policy, batch, luck, count):
    """Rounds played with a time per prompt, each group as one: (fresh prompts, trained, long rounds, left over)."""
    partial, losers, trained, fresh, shapes = [], [], [], 0, []
    for _ in range(count):
        launch = policy.launch(batch, Left(len(partial), len(losers)))
        times_left = partial[: launch.resumed] + losers[: launch.again] + [luck.expovariate(1) for _ in range(launch.fresh)]
        partial, losers = partial[launch.resumed :], losers[launch.again :]
        fresh += launch.fresh
        ended = sorted(times_left)
        over = next(done for done in range(len(ended) + 1) if policy.over(launch, done))
        assert over == launch.needed <= launch.groups
        trained.append(ended[:over])
        rest = ended[over:]
        if policy.fate() == "resume":
            partial += [one - ended[over - 1] for one in rest]
        elif policy.fate() == "restart":
            losers += rest
        shapes.append(launch)
    return fresh, trained, shapes, len(partial) + len(losers)


@pytest.mark.parametrize(("kind", "options"), [
    ("wait_all", {}), ("partial", {}), ("tail_batching", {}), ("over_sample", {"rest": "restart"}), ("over_sample", {"rest": "resume"}),
])  # fmt: skip
def test_no_prompt_is_lost(kind, options):
    fresh, trained, _, left = rounds(tail(kind, **options), Batch(16, 4), random.Random(5), 40)
    assert all(len(one) == 16 for one in trained)
    assert fresh == 40 * 16 + left


def test_every_fifth_round_of_tail_batching_is_long():
    _, _, shapes, _ = rounds(tail("tail_batching"), Batch(128, 8), random.Random(5), 50)
    long = [place for place, launch in enumerate(shapes) if launch.again]
    assert long == list(range(4, 50, 5))
    assert all(shapes[place] == Launch(0, 128, 0, 8, 128) for place in long)
    assert shapes[0] == Launch(0, 0, 160, 10, 128)


def test_the_price_of_a_round_by_order_statistics():
    """The k-th of n exponentials: H(n) - H(n - k)."""
    def harmonic(n):
        return sum(1 / k for k in range(1, n + 1))

    luck = random.Random(11)
    for kind, options, expected in (("wait_all", {}, harmonic(16)), ("over_sample", {"eta_prompt": 1.5}, harmonic(24) - harmonic(8))):
        _, trained, _, _ = rounds(tail(kind, **options), Batch(16, 1), luck, 2000)
        assert sum(one[-1] for one in trained) / 2000 == pytest.approx(expected, rel=0.03)


def test_truncation():
    policy = tail("truncate", max_len=1000)
    group = Group(0, Prompt(0), 2)
    group.trajectories[0].cut = True
    assert (policy.limit(28672), policy.limit(500)) == (1000, 500)
    assert [policy.masks(one) for one in group.trajectories] == [True, False]
    assert not tail("truncate", max_len=1000, overlong="keep").masks(group.trajectories[0])


def replica(number, used, running=1, waiting=0, tokens=100):
    return Replica(number, running, waiting, used, tokens)


def test_divided_goes_in_chunks_to_where_there_is_room():
    policy = tail("divided", chunk=500)
    assert (policy.piece(1200), policy.piece(300)) == (500, 300)
    seen = [replica(3, 50), replica(5, 20), replica(7, 10, waiting=2)]
    one = Group(0, Prompt(0), 1).trajectories[0]
    assert policy.home(one, 3, seen) == 5
    assert policy.home(one, 5, [replica(3, 20), replica(5, 20)]) == 5
    assert tail("divided", migrate=False).home(one, 3, seen) == 3


def test_probes_first_then_the_longest_as_far_as_is_known():
    policy = tail("divided")
    unknown, known, short = (Group(number, Prompt(number), 3) for number in range(3))
    for group, tokens in ((known, 900), (short, 100)):
        group.start(0)
        group.trajectories[0].add(0, tokens)
        group.end(group.trajectories[0])
    waiting = [group.trajectories[place] for group in (short, known, unknown) for place in (1, 2)] + [unknown.trajectories[0]]
    order = sorted(waiting, key=policy.rank)
    assert [(one.group.number, one.number) for one in order] == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert len({tail("divided", probe=False).rank(one) for one in waiting}) == 1


def test_a_policy_around_another_leaves_the_rounds_to_it():
    policy = tail("consolidate", rounds={"kind": "divided", "chunk": 64, "rounds": {"kind": "partial"}})
    assert policy.launch(Batch(10, 8), Left(7, 0)) == Launch(7, 0, 13, 8, 10)
    assert (policy.fate(), policy.piece(1000), policy.every) == ("resume", 64, 5.0)
    assert tail("consolidate").fate() == "drop"


def test_nothing_moves_while_somebody_waits():
    seen = [replica(0, 5), replica(1, 5)]
    assert tail("consolidate").moves(seen) == [(1, 0)]
    assert tail("consolidate").moves([*seen, replica(2, 90, waiting=1)]) == []
    assert tail("consolidate", max_running=1).moves(seen) == []


def fewest(loads, room):
    """Bins that hold the loads, by trying all partitions."""
    for bins in range(1, len(loads) + 1):
        for places in itertools.product(range(bins), repeat=len(loads)):
            if all(sum(load for load, place in zip(loads, places, strict=True) if place == one) <= room for one in range(bins)):
                return bins
    return 0


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_consolidation_frees_nearly_as_many_as_can_be(loads):
    """Best fit decreasing needs at most 11/9 of the fewest bins and 6/9 (Dosa 2007); every load is where it may be."""
    seen = [replica(number, load) for number, load in enumerate(loads)]
    moves = tail("consolidate").moves(seen)
    held = dict(enumerate(loads))
    for source, home in moves:
        held[home] += held.pop(source)
    light = [load for load in loads if load <= 50]
    assert all(held[number] <= 50 or loads[number] > 50 for number in held)
    assert all(number in held for number, load in enumerate(loads) if load > 50)
    kept = len(held) - (len(loads) - len(light))
    assert kept <= math.floor(11 / 9 * fewest(light, 50) + 6 / 9 + 1e-9)
