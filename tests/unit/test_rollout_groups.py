"""Groups and trajectories: moves, staleness, waste, and the ledger that counts them."""
from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core import rollout
from sim.core.ledger import Ledger
from sim.core.rollout import ACCEPTED, DONE, MOVES, PARTIAL, PENDING, REJECTED, RUNNING, SCORED, STALE_DROPPED, TRAINED, Group, Prompt

STATES = rollout.STATES
LIVE = (RUNNING, PARTIAL, DONE, SCORED, ACCEPTED)


def group(number=0, size=2, launched=0, version=0):
    made = Group(number, Prompt(number), size, launched)
    made.start(version)
    return made


def complete(made, tokens=10, version=0):
    for one in made.trajectories[: made.size]:
        one.add(version, tokens)
        made.end(one)
    return made


def test_a_life():
    made = complete(group(), 10)
    for state in (DONE, SCORED, ACCEPTED, TRAINED):
        made.move(state)
    assert made.tokens == 20
    assert made.waste == {}
    assert MOVES[TRAINED] == MOVES[REJECTED] == MOVES[STALE_DROPPED] == ()


@pytest.mark.parametrize("state", range(len(STATES)), ids=STATES)
def test_any_other_move_is_refused_and_changes_nothing(state):
    for to in range(len(STATES)):
        made = complete(group())
        made.state = state
        if to in MOVES[state]:
            made.move(to)
            assert made.state == to
        else:
            with pytest.raises(ValueError, match=f"is {STATES[state]} and cannot become {STATES[to]}"):
                made.move(to)
            assert (made.state, made.tokens, made.waste) == (state, 20, {})


def test_every_state_is_reached_and_what_is_not_final_ends():
    reached = {PENDING} | {to for moves in MOVES for to in moves}
    assert reached == set(range(len(STATES)))
    assert all(REJECTED in moves and STALE_DROPPED in moves for state, moves in enumerate(MOVES) if state not in rollout.FINAL)


def test_an_incomplete_group_is_not_done():
    made = group()
    made.end(made.trajectories[1])
    with pytest.raises(ValueError, match="1 of 2"):
        made.move(DONE)
    with pytest.raises(ValueError, match="trajectory 1 of group 0, running, ends"):
        made.end(made.trajectories[1])


def test_sizes_that_make_no_group():
    for size, launched in ((0, 0), (3, 2)):
        with pytest.raises(ValueError, match="a group of"):
            Group(0, Prompt(0), size, launched)


def test_the_three_lags_by_hand():
    made = group(version=3)
    one = made.trajectories[0]
    one.add(4, 30)
    one.add(4, 10)
    one.add(6, 10)
    assert one.segments == [(4, 40), (6, 10)]
    assert one.lags(7) == (4, 3, 7 - (4 * 40 + 6 * 10) / 50)
    assert made.oldest == 4
    assert made.trajectories[1].lags(7) == (4, 4, 4.0)


def test_versions_do_not_fall():
    made = group(version=3)
    with pytest.raises(ValueError, match="version 2"):
        made.trajectories[0].add(2, 1)
    made.trajectories[0].add(5, 1)
    with pytest.raises(ValueError, match="version 4"):
        made.trajectories[0].add(4, 1)
    with pytest.raises(ValueError, match="-1 tokens"):
        made.trajectories[0].add(5, -1)


@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), max_size=8), st.integers(0, 5))
@settings(max_examples=60)
def test_submission_is_no_later_than_the_oldest_segment_and_that_than_the_mean(start, steps, wait):
    one = group(version=start).trajectories[0]
    version = start
    for rise, tokens in steps:
        version += rise
        one.add(version, tokens)
    lags = one.lags(version + wait)
    assert lags.submit + 1e-9 >= lags.oldest >= lags.mean - 1e-9
    assert lags.mean >= wait - 1e-9
    assert sum(tokens for _, tokens in one.segments) == one.tokens == sum(tokens for _, tokens in steps)
    assert [one for one, _ in one.segments] == sorted({one for one, _ in one.segments})


def test_the_first_to_end_are_kept_and_the_rest_is_surplus():
    made = group(size=2, launched=4)
    for one, tokens in zip(made.trajectories, (50, 10, 20, 7), strict=True):
        one.add(0, tokens)
    assert not made.end(made.trajectories[2])
    assert made.end(made.trajectories[1])
    assert made.end(made.trajectories[0])
    made.move(DONE)
    assert [one.number for one in made.kept] == [2, 1]
    assert (made.tokens, made.waste) == (30, {"surplus": 57})
    made.move(REJECTED, "zero_variance")
    assert made.waste == {"surplus": 57, "zero_variance": 30}
    assert rollout.wasted([made, made]) == {"surplus": 114, "zero_variance": 60}


def test_who_begins_again_has_nothing_and_who_goes_on_has_all():
    made = group(version=1)
    made.trajectories[0].add(1, 5)
    made.move(PARTIAL)
    made.start(2)
    assert (made.v_submit, made.tokens, made.launches) == (1, 5, 1)
    made.move(PENDING, "abort")
    assert (made.tokens, made.waste) == (0, {"abort": 5})
    made.start(4)
    assert (made.v_submit, made.launches, made.oldest) == (4, 2, 4)


def test_mean_reward_leaves_out_what_is_masked():
    made = complete(group(size=3))
    for one, reward in zip(made.trajectories, (1.0, 0.0, 1.0), strict=True):
        one.reward = reward
    made.trajectories[1].masked = True
    assert made.mean_reward == 1.0
    assert len(made.lags(2)) == 2
    made.trajectories[0].reward = math.nan
    assert math.isnan(made.mean_reward)


STEPS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, len(STATES) - 1)), max_size=60)


@given(STEPS)
@settings(max_examples=80)
def test_the_ledger_counts_what_is_there(steps):
    ledger = Ledger(4, 1)
    groups = [Group(number, Prompt(number), 1) for number in range(8)]
    for number, state in steps:
        made = groups[number]
        if state not in MOVES[made.state]:
            continue
        if state == RUNNING:
            ledger.start(made)
            continue
        if state == DONE:
            made.end(made.trajectories[0])
        ledger.move(made, state)
    count = [made.state for made in groups].count
    assert ledger.active == count(RUNNING) + count(DONE) + count(SCORED)
    assert (ledger.partial, ledger.queued, ledger.taken) == (count(PARTIAL), count(ACCEPTED), count(TRAINED))
    assert ledger.started == sum(made.launches for made in groups)
    assert ledger.finished == ledger.started - count(RUNNING) - count(PARTIAL)
    assert {made.number for made in ledger.live()} == {made.number for made in groups if made.state in LIVE}
    assert [made.number for made in ledger.live(PARTIAL)] == [made.number for made in ledger.live() if made.state == PARTIAL]
