"""Programs of agents against closed forms: growth of contexts, tokens sent again, budgets, compaction, sub-agents, joins."""
from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from driven import World, driven, shared
from hypothesis import given, settings
from hypothesis import strategies as st

SYSTEM, TASK, OUTPUT, SEEN, CALLS = 1000, 100, 50, 200, 6
TOOLS = {"bash": {"time": "2s", "observation": SEEN}}
LOOP = {"system": SYSTEM, "message": TASK, "calls": CALLS, "output": OUTPUT, "tools": {"bash": 1}}
BASE = {"kind": "agents", "rate": 1, "num_sessions": 3, "tools": TOOLS}


def one(kind=None, **more):
    return {**BASE, "agents": {"main": LOOP | (kind or {})}, **more}


def rows(world, table):
    return world.tables[table].to_pandas()


def agents(world):
    return rows(world, "agents").set_index("agent").sort_index()


def test_a_context_grows_by_what_is_said_and_is_sent_again_each_time():
    world = driven(one(num_sessions=1))
    prompts = [request.prompt for request in world.requests]
    assert prompts == [SYSTEM + TASK + k * (OUTPUT + SEEN) for k in range(CALLS)]
    # n calls send n (s + t) + (o + w) n (n - 1) / 2 tokens; all but the new ones are the past.
    total = CALLS * (SYSTEM + TASK) + (OUTPUT + SEEN) * CALLS * (CALLS - 1) // 2
    assert agents(world).prompt_tokens.tolist() == [total]
    past = sum(shared(now, then) for now, then in zip(world.requests[1:], world.requests, strict=False))
    replies = OUTPUT * (CALLS - 1)
    new = SYSTEM + TASK + SEEN * (CALLS - 1)
    turns = rows(world, "turns")
    assert turns.new.sum() == new
    assert past + replies + new == total
    assert turns.cause.tolist() == ["user"] + ["tool"] * (CALLS - 1)
    assert math.isnan(turns.gap[0])
    assert turns.gap[1:].tolist() == pytest.approx([2.0] * (CALLS - 1))
    # A call takes a second here.
    [row] = agents(world).itertuples()
    assert (row.llm_s, row.tool_s, row.status) == (pytest.approx(CALLS), pytest.approx(2 * (CALLS - 1)), "completed")


def test_sessions_share_the_system_prompt_alone_and_each_has_its_program():
    world = driven(one(num_sessions=2))
    first = {request.session: request for request in reversed(world.requests)}
    assert shared(first[0], first[1]) == SYSTEM
    assert first[0].content.common == SYSTEM
    assert all(request.program == request.session for request in world.requests)
    assert len({request.reply for request in world.requests}) == len(world.requests)


def test_users_come_back_after_a_pause_and_the_last_call_says_that_it_is_the_last():
    world = driven(one({"calls": 2}, num_sessions=1, turns=3, think_time="10s"))
    assert rows(world, "turns").cause.tolist() == ["user", "tool"] * 3
    assert rows(world, "turns").turn.tolist() == [1, 1, 2, 2, 3, 3]
    assert agents(world).think_s.tolist() == [pytest.approx(20.0)]
    pauses = [request.pause for request in world.requests]
    assert pauses[:5] == [2.0, 10.0, 2.0, 10.0, 2.0]
    assert math.isnan(pauses[5])


def test_compaction_replaces_all_but_the_system_prompt():
    limit = {"max": 2000, "compact_at": 0.8, "summary": 80}
    world = driven(one({"context": limit, "calls": 9}, num_sessions=1))
    turns = rows(world, "turns")
    at = turns.index[turns.cause == "summary"].tolist()
    assert at == [2, 5, 8, 11]
    for place in at:
        asked, after = world.requests[place], world.requests[place + 1]
        assert asked.output == 80
        # The next call would have exceeded the threshold, the one before it did not.
        assert asked.prompt + OUTPUT > 1600 >= world.requests[place - 1].prompt + OUTPUT
        assert (after.prompt, shared(asked, after), turns.cause[place + 1], turns.new[place + 1]) == (SYSTEM + 80, SYSTEM, "compaction", 80)
    assert agents(world).compactions.tolist() == [4]
    assert agents(world).calls.tolist() == [9 + 4]


@pytest.mark.parametrize(
    ("kind", "status", "calls"),
    [
        ({"budget": {"calls": 4}}, "calls", 4),
        # 1100 + 50, 1350 + 50, 1600 + 50: in all 4200.
        ({"budget": {"tokens": 4200}}, "tokens", 3),
        ({"budget": {"tokens": 4199}}, "tokens", 2),
        ({"context": {"max": 1650}}, "context", 3),
        ({"context": {"max": 1649}}, "context", 2),
        # Calls begin at 0, 3, 6, 9 s and take one.
        ({"budget": {"time": "7s"}}, "time", 3),
        ({"budget": {"time": "6.5s"}}, "time", 3),
        ({"budget": {"time": "8.5s"}}, "time", 3),
        ({}, "completed", CALLS),
    ],
)
def test_budgets(kind, status, calls):
    world = driven(one(kind, num_sessions=1))
    [row] = agents(world).itertuples()
    assert (row.status, row.calls, len(world.requests)) == (status, calls, calls)
    if "time" in kind.get("budget", {}):
        seconds = float(kind["budget"]["time"][:-1])
        assert row.end - row.start == pytest.approx(seconds, abs=1e-6)
        # What is under way is called off: a call at 6.5 s, a tool at 8.5 s.
        assert [request.reason for _, request in world.cancelled] == (["timeout"] if seconds == 6.5 else [])
        assert rows(world, "tool_calls").outcome.tolist() == ["ok", "ok"] + (["cancelled"] if seconds >= 7 else [])
    parts = row.llm_s + row.tool_s + row.sandbox_s + row.join_s + row.think_s
    assert parts == pytest.approx(row.end - row.start)


def test_calls_that_fail_are_repeated_and_then_given_up():
    refused = Counter()

    def refuse(request):
        refused[request.prompt] += 1
        return request.prompt == SYSTEM + TASK + OUTPUT + SEEN and refused[request.prompt] <= 2

    kind = {"calls": 3, "retries": {"max": 2, "backoff": "4s"}}
    world = driven(one(kind, num_sessions=1), refuse=refuse)
    turns = rows(world, "turns")
    assert turns.cause.tolist() == ["user", "tool", "retry", "retry", "tool"]
    assert turns.new.tolist() == [SYSTEM + TASK, SEEN, 0, 0, SEEN]
    assert turns.gap[2:4].tolist() == pytest.approx([4.0, 8.0])
    assert agents(world).status.tolist() == ["completed"]
    again = driven(one(kind, num_sessions=1), refuse=lambda request: True)
    assert agents(again).status.tolist() == ["failed"]
    assert len(again.requests) == 3


# -- sub-agents ------------------------------------------------------------
def tree(count, depth, join="all", calls=2):
    kind = {"system": 10, "task": 20, "calls": calls, "output": 5, "budget": {"depth": depth}}
    kind["spawns"] = [{"agent": "node", "calls": [1], "count": count, "join": join, "result": 7}]
    return {**BASE, "num_sessions": 1, "tools": {}, "agents": {"node": kind}}


@pytest.mark.parametrize(("count", "depth"), [(2, 0), (1, 4), (3, 4), (5, 2)])
def test_families_grow_as_the_closed_form_says(count, depth):
    world = driven(tree(count, depth))
    table = agents(world)
    levels = [count**level for level in range(depth + 1)]
    assert table.depth.value_counts().sort_index().tolist() == levels
    assert (table.status == "completed").all()
    # 30 tokens at first, then 5 more of the answer and 7 of each result.
    inner, leaf = 30 + (30 + 5 + 7 * count), 30 + 35
    assert table.prompt_tokens.sum() == inner * sum(levels[:-1]) + leaf * levels[-1]
    # Two calls of a second at each level, one after the other along the way down.
    assert table.end.max() - table.start.min() == pytest.approx(2 * (depth + 1))
    for row in table[table.depth > 0].itertuples():
        parent = table.loc[row.parent]
        assert (row.depth, row.root) == (parent.depth + 1, 0)
        assert parent.start <= row.start
        assert row.end <= parent.end
    first = next(request for request in world.requests if request.session == 1) if depth else None
    if first is not None:
        assert shared(first, world.requests[0]) == 10
        assert first.program == 0


def test_random_branching_has_the_mean_of_a_branching_process():
    """Each of the calls but the last of an agent begins one sub-agent with chance p: m = (n - 1) p of them on average, and so many agents
    per root as the sum of m^i.
    """
    kind = {"task": 20, "calls": 4, "output": 5, "budget": {"depth": 3}, "spawns": [{"agent": "node", "share": 0.4}]}
    world = driven({**BASE, "rate": 1000, "num_sessions": 2000, "tools": {}, "agents": {"node": kind}})
    table = agents(world)
    mean = 3 * 0.4
    assert len(table) / 2000 == pytest.approx(sum(mean**level for level in range(4)), rel=0.04)
    born = table[table.depth > 0].parent.value_counts().reindex(table[table.depth < 3].index, fill_value=0)
    # Of a binomial law.
    assert born.mean() == pytest.approx(mean, rel=0.02)
    assert born.var() == pytest.approx(3 * 0.4 * 0.6, rel=0.05)


def test_budgets_of_agents_in_all():
    world = driven({**BASE, "num_sessions": 2, "tools": {}, "agents": {"node": {
        "task": 20, "calls": 2, "output": 5, "budget": {"agents": 6}, "spawns": [{"agent": "node", "calls": [1], "count": 2}],
    }}})  # fmt: skip
    assert agents(world).root.value_counts().tolist() == [6, 6]


def test_the_first_results_are_enough_and_the_others_are_called_off():
    kind = {"task": 20, "calls": 2, "output": 5, "spawns": [{"agent": "sub", "calls": [1], "count": 4, "join": 2, "result": 30}]}
    inner = {"task": {"dist": "uniform", "min": 10, "max": 1000}, "calls": 3, "output": 5, "tools": {"bash": 1}, "spawns": []}
    world = driven({**BASE, "num_sessions": 1, "agents": {"main": kind, "sub": inner}}, service=lambda request: request.prompt / 100)
    table = agents(world)
    subs = table[table.depth == 1].sort_values("end")
    assert subs.status.tolist() == ["completed"] * 2 + ["cancelled"] * 2
    # All end when the second one has its last answer.
    assert subs.end.tolist()[1:] == [subs.end.iloc[1]] * 3
    assert table.loc[0].join_s == pytest.approx(subs.end.iloc[1] - subs.start.iloc[0])
    assert world.requests[-1].prompt == 20 + 5 + 2 * 30
    # Whoever was at a tool or waited for an answer: called off at that very time.
    gone = [at for at, _ in world.cancelled]
    calls = rows(world, "tool_calls")
    off = calls[calls.outcome == "cancelled"]
    assert len(gone) + len(off) == 2
    assert set(gone) | set(off.end) == {subs.end.iloc[1]}


def test_a_parent_that_runs_out_of_time_takes_its_family_along():
    options = tree(2, 3)
    options["agents"]["node"]["budget"]["time"] = "3.5s"
    options["agents"]["node"]["calls"] = 2
    world = driven(options)
    table = agents(world)
    assert Counter(table.status) == {"time": 1, "cancelled": 14}
    assert table.end.max() - table.start.min() == pytest.approx(3.5, abs=1e-6)
    assert len(world.cancelled) == 8
    assert {request.reason for _, request in world.cancelled} == {"cancelled"}


def test_who_failed_does_not_count_among_the_first():
    kind = {"task": 20, "calls": 2, "output": 5, "spawns": [{"agent": "sub", "calls": [1], "count": 3, "join": 1}]}
    inner = {"system": 50, "task": {"dist": "uniform", "min": 10, "max": 1000}, "output": 9}
    options = {**BASE, "num_sessions": 1, "tools": {}, "agents": {"main": kind, "sub": inner}}
    least = min(request.prompt for request in driven(options).requests if request.prompt > 50)
    world = driven(options, service=lambda request: request.prompt / 100, refuse=lambda request: request.prompt == least)
    assert Counter(agents(world)[lambda table: table.depth == 1].status) == {"failed": 1, "completed": 1, "cancelled": 1}
    assert world.requests[-1].prompt == 20 + 5 + 9


# -- sameness ------------------------------------------------------------
RANDOM = {
    "main": {
        "system": 100, "message": {"mean": 50, "cv": 1}, "calls": {"dist": "geometric", "mean": 4}, "output": {"median": 40, "sigma": 1},
        "tools": {"bash": 1, "read": 2}, "parallel_tools": {"dist": "geometric", "mean": 1.5},
        "spawns": [{"agent": "sub", "share": 0.2, "count": {"dist": "geometric", "mean": 2}, "join": 1}],
    },
    "sub": {"task": {"mean": 30, "cv": 1}, "calls": 3, "output": {"mean": 30, "cv": 1}, "tools": {"read": 1}},
}  # fmt: skip
MORE = {"bash": {"time": {"mean": "2s"}, "observation": {"mean": 100, "cv": 2}, "fail": 0.2, "retries": 2, "timeout": "3s"},
        "read": {"time": {"median": "100ms", "sigma": 1}, "observation": {"mean": 300, "cv": 1}}}  # fmt: skip


def said(world):
    """Of each session's root, its calls; and how long each of its tools took."""
    roots = agents(world)[lambda table: table.depth == 0].sort_values("start").index
    calls = {root: [(r.prompt, r.output) for r in world.requests if r.session == root] for root in roots}
    tools = rows(world, "tool_calls")
    times = {root: [round(x, 6) for x in (tools.end - tools.start)[tools.agent == root]] for root in roots}
    return [(calls[root], times[root]) for root in roots]


def test_the_kth_session_is_the_same_on_another_cluster_and_in_a_longer_run():
    options = {**BASE, "concurrency": 4, "rate": None, "num_sessions": 12, "turns": 2, "tools": MORE, "agents": RANDOM}
    options["agents"] = {name: kind | {"spawns": []} for name, kind in RANDOM.items() if name == "main"}
    fast = driven(options, service=lambda request: 0.01)
    slow = driven(options, service=lambda request: 1 + request.output % 7)
    longer = driven({**options, "num_sessions": 20}, service=lambda request: 0.01)
    order = sorted(map(repr, said(fast)))
    assert order == sorted(map(repr, said(slow)))
    assert said(longer)[:4] == said(fast)[:4]
    assert set(order) <= set(map(repr, said(longer)))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), speed=st.floats(0.001, 5), budget=st.sampled_from([{}, {"time": "5s"}, {"calls": 3}, {"agents": 3}]))
def test_families_are_whole_and_repeat_themselves(seed, speed, budget):
    kinds = {name: kind | {"budget": budget} for name, kind in RANDOM.items()}
    options = {**BASE, "rate": 2, "num_sessions": 3, "turns": {"dist": "geometric", "mean": 2}, "think_time": "1s", "agents": kinds}
    options["tools"] = MORE
    world = driven(options, world=World(seed, lambda request: speed * request.output / 50))
    table = agents(world)
    assert sorted(table.index) == list(range(len(table)))
    for row in table.itertuples():
        assert row.llm_s + row.tool_s + row.sandbox_s + row.join_s + row.think_s == pytest.approx(row.end - row.start, abs=1e-6)
        if row.parent >= 0:
            assert table.loc[row.parent].start <= row.start <= row.end <= table.loc[row.parent].end
    other = driven(options, world=World(seed, lambda request: speed * request.output / 50))
    for name in ("agents", "turns", "tool_calls"):
        assert rows(world, name).equals(rows(other, name))


def test_users_who_are_always_turned_away_do_not_stop_the_clock():
    options = one(concurrency=2, rate=None, num_sessions=None, duration=5)
    assert Counter(request.arrival for request in driven(options, refuse=lambda request: True).requests) == dict.fromkeys(range(5), 2)


def test_arrivals_are_poisson_and_turns_have_their_law():
    options = one({"calls": 1, "tools": {}}, rate=5, num_sessions=3000, turns={"dist": "geometric", "mean": 3}, think_time={"mean": "2s"})
    table = agents(driven(options | {"tools": {}}))
    gaps = np.diff(np.sort(table.start))
    assert gaps.mean() == pytest.approx(0.2, rel=5 / np.sqrt(3000))
    assert gaps.std() == pytest.approx(0.2, rel=0.1)
    assert table.calls.mean() == pytest.approx(3, abs=5 * np.sqrt(6 / 3000))
    assert table.think_s.sum() / (table.calls - 1).sum() == pytest.approx(2, rel=0.05)


def test_what_is_unfinished_is_noted_when_the_clock_stops():
    world = World()
    driven({**one(), "num_sessions": 1}, world=world)
    assert [call() for call in world.closed] == [None]
    assert len(world.tables["agents"]) == 1
