"""Dynamic sampling and the buffer of accepted groups."""
from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sim.core.rollout import Group, Prompt
from workloads.rollouts.buffer import Buffer
from workloads.rollouts.sampling import DynamicSampling


def group(number, rewards=(1.0, 0.0), version=0):
    made = Group(number, Prompt(number), len(rewards))
    made.start(version)
    for one, reward in zip(made.trajectories, rewards, strict=True):
        one.add(version, 10)
        one.reward = reward
        made.end(one)
    return made


@pytest.mark.parametrize(("rewards", "valid"), [
    ((1, 1, 1), False), ((0, 0, 0), False), ((1, 0, 0), True), ((0.2, 0.2, 0.7), True), ((1,), False),
])  # fmt: skip
def test_groups_that_differ_are_valid(rewards, valid):
    assert DynamicSampling().accepts(group(0, rewards)) is valid


def test_who_is_masked_makes_no_difference():
    made = group(0, (1, 1, 0))
    made.trajectories[2].masked = True
    assert not DynamicSampling().accepts(made)


def run(sampling, wanted, outcomes):
    """One step, groups ending one by one in order of launch: (valid, launched, running at the end, gave up)."""
    valid = running = launched = ended = 0
    while True:
        groups, spent = sampling.more(wanted, valid, running, launched)
        running += groups
        launched += groups
        if valid >= wanted and (sampling.style == "stream" or not running):
            return valid, launched, running, False
        if spent:
            return valid, launched, running, True
        assert running, "nothing runs and nothing is launched"
        running -= 1
        valid += outcomes(ended)
        ended += 1


def test_whole_batches_until_there_are_enough():
    """Half of 30 are valid, 12 are wanted: one batch. Of 9 in 30 it takes two."""
    sampling = DynamicSampling(gen_batch_factor=2.5)
    assert sampling.gen_batch(12) == 30
    assert run(sampling, 12, lambda place: place % 2) == (15, 30, 0, False)
    assert run(sampling, 12, lambda place: place % 10 < 3) == (18, 60, 0, False)


def test_a_stream_stops_with_the_last_that_is_wanted():
    sampling = DynamicSampling(style="stream", gen_batch_factor=2)
    valid, launched, running, spent = run(sampling, 10, lambda place: place % 2)
    assert (valid, spent) == (10, False)
    # The 10th valid is the 20th to end; until then 20 were running at all times.
    assert (launched, running) == (39, 19)
    assert sampling.generated(10, 0.5) == 39


@pytest.mark.parametrize("style", ["batch", "stream"])
def test_a_filter_that_accepts_nothing_stops_after_the_bound(style):
    sampling = DynamicSampling(style=style, max_num_gen_batches=4)
    assert run(sampling, 8, lambda place: False) == (0, 4 * 24, 0, True)
    assert sampling.spent(8, 0, 96)
    assert not sampling.spent(8, 0, 95)
    assert not sampling.spent(8, 8, 96)
    assert "of 96 groups 0 were neither all right nor all wrong, and 8 are wanted" in sampling.why(8, 0, 96)
    assert sampling.gives_up(8, 0.0) == 1.0
    assert sampling.batches(8, 0.0) == 4.0


@pytest.mark.parametrize(("share", "factor"), [(0.5, 1.5), (0.3, 2.0), (0.9, 1.0)])
def test_yield_against_simulation(share, factor):
    batch = DynamicSampling(gen_batch_factor=factor, max_num_gen_batches=4)
    stream = DynamicSampling(style="stream", gen_batch_factor=factor, max_num_gen_batches=1000)
    luck = random.Random(3)
    done = [run(batch, 16, lambda _: luck.random() < share) for _ in range(1500)]
    assert sum(launched for _, launched, _, _ in done) / len(done) == pytest.approx(batch.generated(16, share), rel=0.03)
    assert sum(spent for *_, spent in done) / len(done) == pytest.approx(batch.gives_up(16, share), abs=0.03)
    done = [run(stream, 16, lambda _: luck.random() < share) for _ in range(300)]
    assert sum(launched for _, launched, _, _ in done) / len(done) == pytest.approx(stream.generated(16, share), rel=0.03)


def test_an_option_without_effect_is_refused():
    with pytest.raises(ValidationError, match="take style stream"):
        DynamicSampling(rest="resume")


def test_the_oldest_first_or_the_freshest():
    for order, expected in (("fifo", [0, 1, 2, 3]), ("fresh", [3, 1, 0, 2])):
        buffer = Buffer(order)
        for number, version in enumerate((2, 3, 2, 5)):
            assert buffer.put(group(number, version=version)) is None
        assert [one.number for one in buffer.take(4)] == expected
        assert len(buffer) == 0


def test_a_full_buffer_loses_the_oldest_or_the_stalest():
    for order, lost in (("fifo", [0, 1]), ("fresh", [1, 3])):
        buffer = Buffer(order, cap=2)
        puts = [buffer.put(group(number, version=version)) for number, version in enumerate((4, 1, 5, 2))]
        assert [one.number for one in puts if one is not None] == lost
        assert len(buffer) == 2


def test_all_or_nothing():
    buffer = Buffer()
    for number in range(3):
        buffer.put(group(number))
    assert buffer.take(4) == []
    assert buffer.take(2, lambda one: one.number == 1) == []
    assert len(buffer) == 3
    assert [one.number for one in buffer.take(2, lambda one: one.number > 0)] == [1, 2]
    with pytest.raises(ValueError, match="group 0 is in the buffer already"):
        buffer.put(group(0))
    assert [one.number for one in buffer.remove({0, 7})] == [0]


@given(st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=40), st.sampled_from(["fifo", "fresh"]), st.integers(0, 5))
@settings(max_examples=60)
def test_what_goes_in_comes_out_once(steps, order, cap):
    """A number puts a group of that version; None takes two."""
    buffer, inside, gone = Buffer(order, cap), [], []
    for number, step in enumerate(steps):
        if step is None:
            expected = [(place, *one) for place, one in enumerate(inside)]
            expected.sort(key=lambda one: (one[0] if order == "fifo" else -one[2], one[0]))
            wanted = [one[1] for one in expected[:2]] if len(expected) >= 2 else []
            taken = [one.number for one in buffer.take(2)]
            assert taken == wanted
        else:
            inside.append((number, step))
            lost = buffer.put(group(number, version=step))
            taken = [lost.number] if lost else []
        gone += taken
        inside = [one for one in inside if one[0] not in taken]
        assert len(buffer) == len(inside) <= (cap or len(steps))
    assert len(gone) == len(set(gone))
