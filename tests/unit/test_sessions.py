"""Conversations: their statistics, what each turn shares with the one before, when they end; several answers to one prompt."""
from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from driven import World, driven, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import WORKLOADS

FIXED = {"kind": "fixed", "input": 100, "output": 10}
UNIFORM = {"kind": "uniform", "input": [5, 200], "output": [1, 90]}
BASE = {"kind": "sessions", "turns": 4, "lengths": FIXED}


def by_session(world):
    found = defaultdict(list)
    for request in world.requests:
        found[request.session].append(request)
    return dict(found)


def segments(content):
    return list(zip(content.keys, content.ends, strict=True))


def test_turns_lengths_and_arrivals_have_the_laws_asked_for():
    world = driven({**BASE, "rate": 5, "num_sessions": 4000, "lengths": UNIFORM, "think_time": 20, "think_sigma": 0.8})
    sessions = by_session(world)
    assert sorted(sessions) == list(range(4000))
    turns = np.array([len(part) for part in sessions.values()])
    # A geometric law of mean m has the variance m (m - 1); five standard errors.
    assert turns.mean() == pytest.approx(4, abs=5 * np.sqrt(12 / 4000))
    assert (turns == 1).mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.1875 / 4000))
    first = np.array([part[0].arrival for part in sessions.values()])
    assert 1 / np.diff(first).mean() == pytest.approx(5, rel=5 / np.sqrt(4000))
    pauses = np.array([then.arrival - now.last for part in sessions.values() for now, then in pairwise(part)])
    assert pauses.mean() == pytest.approx(20, rel=5 * np.sqrt((np.exp(0.64) - 1) / len(pauses)))
    assert np.log(pauses).std() == pytest.approx(0.8, rel=0.05)
    messages = [then.prompt - now.prompt - now.output for part in sessions.values() for now, then in pairwise(part)]
    assert (min(messages), max(messages)) == (5, 200)
    assert np.mean(messages) == pytest.approx(102.5, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(
    shared_prefix=st.sampled_from([0, 40]), prefixes=st.sampled_from([None, {"tokens": 30, "count": 3, "zipf": 1.0}]),
    samples=st.integers(1, 3), load=st.sampled_from([{"rate": 3.0}, {"concurrency": 4}]), most=st.sampled_from([None, 700]),
)  # fmt: skip
def test_a_turn_begins_with_the_turn_before_and_its_answer(shared_prefix, prefixes, samples, load, most):
    options = {**BASE, **load, "shared_prefix": shared_prefix, "prefixes": prefixes, "samples": samples, "max_context": most}
    world = driven({**options, "num_sessions": 12, "lengths": UNIFORM}, service=lambda request: 0.5 + request.output / 50)
    front = shared_prefix + (30 if prefixes else 0)
    replies = [request.reply for request in world.requests]
    assert len(set(replies)) == len(replies)
    for part in by_session(world).values():
        rounds = [part[first : first + samples] for first in range(0, len(part), samples)]
        assert all(len(group) == samples for group in rounds)
        for group in rounds:
            assert len({(request.content, request.prompt, request.arrival) for request in group}) == 1
            assert (group[0].content.common, group[0].prompt > front) == (front, True)
            assert group[0].prompt + group[0].output <= (most or np.inf)
            assert group[0].content.ends[-1] == group[0].prompt
        if shared_prefix:
            assert rounds[0][0].content.ends[0] == shared_prefix
        for (now, *_), (then, *_) in pairwise(rounds):
            said = now.prompt + now.output
            wanted = [*segments(now.content), (now.reply, said)]
            assert segments(then.content)[: len(wanted)] == wanted
            assert then.prompt > said
            assert then.arrival >= now.last
    one, other = (part[0] for part in list(by_session(world).values())[:2])
    assert shared(one, other) in ({front, shared_prefix} if prefixes else {front})


def test_users_wait_for_their_answers_and_then_begin_again():
    world = driven({**BASE, "concurrency": 3, "turns": 2, "turns_law": "fixed", "num_sessions": 7, "think_time": "2s"})
    sessions = by_session(world)
    assert [len(part) for part in sessions.values()] == [2] * 7
    # A second to answer and two to think: three users begin a session at 0, 6 and 12.
    assert Counter(part[0].arrival for part in sessions.values()) == {0: 3, 6: 3, 12: 1}
    assert [request.arrival for request in sessions[3]] == [6, 9]
    assert [request.prompt for request in sessions[0]] == [100, 210]
    checked, _ = WORKLOADS.check({**BASE, "concurrency": 3, "num_sessions": 7})
    assert WORKLOADS.make(checked).closed_loop
    checked, _ = WORKLOADS.check({**BASE, "rate": 3, "num_sessions": 7})
    assert not WORKLOADS.make(checked).closed_loop


def test_the_kth_session_is_the_same_however_fast_it_is_served():
    options = {**BASE, "concurrency": 4, "num_sessions": 20, "lengths": UNIFORM, "prefixes": {"tokens": 9, "count": 5}}
    fast, slow = (
        {number: [(r.prompt, r.output) for r in part] for number, part in by_session(driven(options, service=service)).items()}
        for service in (lambda request: 0.1, lambda request: 1 + request.output % 7)
    )
    assert fast == slow
    longer = by_session(driven({**options, "num_sessions": 30}))
    assert {number: [(r.prompt, r.output) for r in longer[number]] for number in range(20)} == fast


def test_a_session_ends_at_the_context_and_when_it_is_turned_away():
    options = {**BASE, "rate": 1, "num_sessions": 5, "turns": 50, "turns_law": "fixed"}
    full = by_session(driven({**options, "max_context": 560}))
    assert [[request.prompt for request in part] for part in full.values()] == [[100, 210, 320, 430, 540]] * 5
    refused = by_session(driven(options, refuse=lambda request: request.prompt > 300))
    assert [len(part) for part in refused.values()] == [3] * 5


def test_users_who_are_always_turned_away_do_not_stop_the_clock():
    options = {**BASE, "concurrency": 2, "duration": 5}
    assert [r.arrival for r in driven(options, refuse=lambda request: True).requests] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert driven({**options, "max_context": 50}).requests == []


def test_sessions_begin_within_the_duration_and_are_finished():
    world = driven({**BASE, "rate": 2, "duration": "30s", "start": "10s", "turns": 3, "turns_law": "fixed", "think_time": 5})
    sessions = by_session(world)
    assert all(10 <= part[0].arrival < 40 for part in sessions.values())
    assert all(len(part) == 3 for part in sessions.values())
    users = by_session(driven({**BASE, "concurrency": 2, "duration": 10, "turns": 3, "turns_law": "fixed"}))
    assert [part[0].arrival for part in users.values()] == [0, 0, 3, 3, 6, 6, 9, 9]


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"rate": 1}, "", "neither num_sessions nor duration is given"),
        ({"rate": 1, "concurrency": 2, "num_sessions": 3}, "", "found both of rate (sessions per second) and concurrency (users)"),
        ({"num_sessions": 3}, "", "found neither of rate"),
        ({"rate": 1, "num_sessions": 3, "turns": 2.5, "turns_law": "fixed"}, "turns", "found 2.5; with turns_law: fixed a whole number"),
        ({"rate": 1, "num_sessions": 3, "turns": 0.5}, "turns", "at least 1"),
        ({"rate": 1, "num_sessions": 3, "think_sigma": 1}, "think_sigma", "not used here: think_time is 0"),
        ({"rate": 1, "num_sessions": 3, "max_context": 100, "shared_prefix": 99}, "max_context", "leave no room for a turn"),
        ({"rate": 1e-9, "num_sessions": 3000}, "rate", "3000 sessions take more than 100 years"),
        ({"rate": 1, "num_sessions": 3, "samples": 0}, "samples", "at least 1"),
        ({"rate": 1, "num_sessions": 3, "lengths": {"kind": "fixed", "input": 0, "output": 1}}, "lengths.input", "at least 1"),
    ],
)
def test_bad_options(options, path, words):
    [problem] = WORKLOADS.check({**BASE, **options})[1]
    assert problem.path == path
    assert words in problem.message


@pytest.mark.parametrize(
    "kind", [{"kind": "poisson", "rate": 4}, {"kind": "constant", "rate": 4}, {"kind": "preset", "preset": "azure_conv_2023"}]
)
def test_open_loops_send_a_prompt_several_times(kind):
    options = {**kind, "num_requests": 5000, "shared_prefix": 20, "prefixes": {"tokens": 30, "count": 2}}
    options |= {} if kind["kind"] == "preset" else {"lengths": UNIFORM}
    single, groups = driven(options), driven({**options, "samples": 3})
    assert len(groups.requests) == 3 * len(single.requests) == 15_000
    # The prompts, and the first answer to each, are those of the traffic without samples.
    assert [(r.arrival, r.prompt, r.output) for r in groups.requests[::3]] == [(r.arrival, r.prompt, r.output) for r in single.requests]
    for first in range(0, 300, 3):
        group = groups.requests[first : first + 3]
        assert len({(r.arrival, r.prompt, r.content) for r in group}) == 1
        assert group[0].content.ends[-1] == group[0].prompt
    assert shared(groups.requests[0], groups.requests[3]) in {20, 50, *(min(50, r.prompt) for r in groups.requests[:6])}
    answers = np.array([request.output for request in groups.requests]).reshape(-1, 3)
    assert abs(np.corrcoef(answers[:, 1], answers[:, 2])[0, 1]) < 5 / np.sqrt(5000)
    # Popularity is even, and both beginnings are cut where a prompt is shorter.
    assert Counter(r.content.keys[1] for r in single.requests if r.prompt > 20).most_common()[-1][1] > 2000
    assert all(r.content.ends[-1] == min(50, r.prompt) for r in single.requests)


def test_without_prefixes_the_client_says_what_is_shared():
    for options in ({"kind": "poisson", "rate": 4}, {"kind": "closed", "concurrency": 2}):
        world = driven({**options, "num_requests": 5, "shared_prefix": 20, "lengths": FIXED})
        assert [request.content for request in world.requests] == [None] * 5
    closed = driven({"kind": "closed", "concurrency": 2, "num_requests": 40, "lengths": UNIFORM, "prefixes": {"tokens": 30, "count": 2}})
    assert [request.content.ends[-1] for request in closed.requests] == [min(30, request.prompt) for request in closed.requests]
    assert len({request.content.keys for request in closed.requests}) == 2


def test_many_sessions_do_not_pile_up():
    world = World(service=lambda request: 0.001)
    driven({**BASE, "rate": 1000, "num_sessions": 9000, "turns": 1, "turns_law": "fixed"}, world=world)
    assert len(world.requests) == 9000
