"""Trajectories that go on turn by turn, all together: when calls go out, who is waited for, and that nobody waits for ever."""
from __future__ import annotations

import numpy as np
import pytest
from episodes import AT_HOME, MAIN, Play, run, scenario, team
from rl_runs import played, rows
from rl_runs import scenario as plain

from sim.core.errors import BadInput
from sim.spec.load import loads
from workloads.programs.options import Kind
from workloads.rollouts import team as teams

TOOL = {"bash": {"time": {"dist": "normal", "mean": "10s", "sd": "4s", "min": "0s"}, "observation": 30}}
VARIED = {"calls": {"dist": "uniform", "min": 2, "max": 7}}


def batch(**main):
    return team(tools=TOOL, **main)._replace(stepping="batch")


def serving(request):
    return 0.1 + request.output / 50


def turns_of(play):
    """Of each session, (arrival, seconds until the answer, seconds at the tool after it) of its calls."""
    tools = play.client.tables["tool_calls"].to_pandas().sort_values("start")
    found = {}
    for request in play.client.requests:
        found.setdefault(request.session, []).append([request.arrival, request.last - request.arrival, 0.0])
    for session, calls in found.items():
        used = tools[tools.agent == session]
        for call, seconds in zip(calls, used.end - used.start, strict=False):
            call[2] = seconds
    return found


def test_a_turn_takes_as_long_as_its_slowest_trajectory():
    alone, together = Play(team(tools=TOOL, **VARIED), service=serving), Play(batch(**VARIED), service=serving)
    for play in (alone, together):
        for prompt in range(8):
            play.begin(prompt)
        play.end()
    one, two = turns_of(alone), turns_of(together)
    assert {len(calls) for calls in one.values()} == {2, 3, 4, 5, 6, 7}
    start, turn = 0.0, 0
    while under_way := [number for number, calls in one.items() if len(calls) > turn]:
        assert [two[number][turn][0] for number in under_way] == pytest.approx([start] * len(under_way))
        start += max(one[number][turn][1] + one[number][turn][2] for number in under_way)
        turn += 1
    assert max(at for at, _ in together.ends) == pytest.approx(start)
    # What each does is the same, and calls go out in the order of the trajectories.
    for number, calls in one.items():
        np.testing.assert_allclose([call[1:] for call in two[number]], [call[1:] for call in calls])
    sent = [(request.arrival, request.session) for request in together.client.requests]
    assert sent == sorted(sent)


@pytest.mark.parametrize("how", ["stop", "turned", "park"])
def test_nobody_waits_for_who_is_stopped_or_parked(how):
    play = Play(batch(), service=serving)
    play.turned = lambda one: how != "turned" or one.number != 2 or play.env.now < 20
    group = play.begin(samples=6)
    play.env.run(until=25.0)
    gone = group.trajectories[2]
    waits = next(one for one in group.trajectories[3:] if not one.work.open)
    if how != "turned":
        for one in (gone, waits):
            (play.turns.stop if how == "stop" else play.turns.park)(one)
    play.env.run(until=400.0)
    left = {"stop": 4, "turned": 5, "park": 4}[how]
    assert len(play.ends) == left
    if how == "park":
        assert play.turns.resume(gone)
        play.env.run(until=401.0)
        # It goes on by itself, and whoever goes on meanwhile joins it.
        assert any(request.arrival >= 400.0 for request in play.client.requests)
        assert play.turns.resume(waits)
        play.end()
        assert len(play.ends) == 6
        assert all((one.turns, one.masked) == (4, False) for _, one in play.ends)
    assert play.end().turns.running() == 0


def test_all_that_are_parked_and_go_on_at_once_are_in_step_again():
    play = Play(batch(calls=6), service=serving)
    group = play.begin(samples=8)
    for at in (3.0, 17.0, 17.5, 41.0):
        play.env.run(until=at)
        for one in group.trajectories:
            play.turns.park(one)
        for one in group.trajectories[:4]:
            assert play.turns.resume(one)
        play.env.run(until=at + 0.2)
        for one in group.trajectories[4:]:
            assert play.turns.resume(one)
    play.end()
    assert all((one.turns, one.masked) == (6, False) for _, one in play.ends)
    last = {request.session: request.arrival for request in play.client.requests}
    assert len(set(last.values())) == 1


@pytest.mark.parametrize(("changes", "masked", "cut"), [
    ({"budget": {"time": "25s"}}, 6, 0), ({"budget": {"calls": 3}}, 0, 6), ({"retries": {"max": 1, "backoff": "1s"}}, 2, 0),
    ({"output": 50, "context": {"max": 400, "compact_at": 0.8, "summary": 20}}, 0, 0),
])  # fmt: skip
def test_nobody_waits_for_who_failed_or_ran_out(changes, masked, cut):
    play = Play(batch(calls=6, **changes), service=serving,
                refuse=lambda request: "retries" in changes and request.session in (1, 4) and request.prompt > 220)  # fmt: skip
    play.begin(samples=6)
    assert len(play.end().ends) == 6
    assert (sum(one.masked for _, one in play.ends), sum(one.cut for _, one in play.ends)) == (masked, cut)
    assert play.client.tables["agents"]["compactions"].any() == ("context" in changes)


def test_those_that_come_later_wait_for_the_others_and_they_for_them():
    play = Play(batch(), service=serving)
    play.begin(0)
    play.env.run(until=5.0)
    play.begin(1)
    play.end()
    found = turns_of(play)
    early, late = found[0][1][0], found[4][0][0]
    assert early == late > 5.0


def test_who_is_in_line_for_a_sandbox_of_others_is_not_waited_for():
    """There is room for 4 of 12, which give theirs back when they have ended."""
    def play(mine, world, control):
        seen.append(mine)
        for prompt in range(3):
            mine.begin(prompt)
        yield world.env.timeout(1.0)

    seen = []
    inside = {"bash": {**TOOL["bash"], "sandbox": True}}
    small = {"nodes": 1, "node": {"cores": 4, "memory": "4GB", "disk": "1TB"}, "memory": "1GB"}
    options = scenario(AT_HOME, inside, box=small)
    with_step = run(options, play, stepping="batch")
    assert len(seen[0].ends) == 12
    calls = with_step.tables["requests"].to_pandas().sort_values("arrival")
    assert (calls.groupby("arrival").size() == 4).mean() > 0.7


def test_a_round_in_steps_takes_as_long_as_the_slowest_of_each_turn():
    changes = {"answers": None, "prompt": None, "agents": {"main": MAIN | {"calls": 10}}, "tools": TOOL, "steps": 2}
    alone, together = played(**changes), played(**changes, stepping="batch")
    took = [rows(result, "rl_steps")["generate"].mean() for result in (alone, together)]
    # Of 32, each turn's slowest of N(10, 4) against the slowest sum of nine.
    means = 9 * 10 + 2.07 * 4 * 3, 9 * (10 + 2.07 * 4)
    assert took == pytest.approx(means, rel=0.06)
    assert rows(alone, "rl_samples")["tokens"].sum() == rows(together, "rl_samples")["tokens"].sum()


def test_stepping_without_turns_or_with_other_agents_is_refused():
    good = batch()
    assert list(teams.problems(good)) == []
    scout = {"scout": Kind.model_validate({"output": 7})}
    forks = good._replace(agents={"main": Kind.model_validate(MAIN | {"spawns": [{"agent": "scout", "share": 0.1}]}), **scout})
    asks = team(tools={"bash": {"model": {"agent": "scout"}}})._replace(stepping="batch")
    asks = asks._replace(agents=asks.agents | scout)
    for members, why in ((forks, "agents.main has spawns"), (asks, "tools.bash asks an agent")):
        assert [path for path, text in teams.problems(members) if why in text] == ["stepping"]
        assert not [path for path, _ in teams.problems(members._replace(stepping="trajectory")) if path == "stepping"]
    with pytest.raises(BadInput, match="there are no turns"):
        loads(plain(stepping="batch"))
