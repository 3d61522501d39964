"""Agents as rollouts: what samples share, how a trajectory ends and what it is worth, environments that fail, what YAML says of it."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from driven import shared
from episodes import BASH, MAIN, Play, team

from sim.core.errors import BadInput
from sim.core.rng import Luck
from workloads.programs.options import Kind, Quota, Tool
from workloads.rollouts import team as teams
from workloads.rollouts.environment import Environment
from workloads.rollouts.team import Team

BROKEN = {"failure": 0.3, "time": {"dist": "uniform", "min": "250s", "max": "400s"}}


# -- what samples share ------------------------------------------------------------
def test_samples_of_a_prompt_are_asked_the_same_and_work_on_the_same_image():
    images, inside = [], {"bash": BASH | {"sandbox": True}}
    lease = SimpleNamespace(open=True, release=lambda: None, run=lambda seconds, cores, timeout: play.env.timeout(
        seconds, SimpleNamespace(outcome="ok", queued=0.0)))  # fmt: skip
    play = Play(team(tools=inside, sandbox={"pool": "box"}))
    play.client.pools["box"] = lambda image: images.append(image) or play.env.timeout(1.0, lease)
    for prompt in range(3):
        play.begin(prompt, tokens=60 + prompt)
    play.end()
    firsts = {}
    for request in play.client.requests:
        firsts.setdefault(request.session, request)
    for session, one in firsts.items():
        for other, two in firsts.items():
            same = session // 4 == other // 4
            assert shared(one, two) == (one.prompt if same else 100)
            assert not same or one.prompt == 100 + 60 + session // 4
    assert sorted(images) == [0] * 4 + [1] * 4 + [2] * 4
    # Answers and what tools say are a sample's own.
    assert len({tuple(one) for one in play.lengths}) == 12


def test_what_a_sample_does_is_the_same_whatever_goes_on_around_it():
    one = Play(team())
    for prompt in range(3):
        one.begin(prompt)
    two = Play(team(), service=lambda request: 0.1 + request.output / 7)
    two.begin(2)
    two.env.run(until=30.0)
    two.begin(0, samples=6)
    two.begin(1)
    assert one.end().lengths[:4] == two.end().lengths[4:8]
    assert (one.lengths[4:8], one.lengths[8:]) == (two.lengths[10:], two.lengths[:4])


def test_what_begins_again_is_drawn_anew_and_so_is_a_prompt_that_is_met_again():
    play = Play(team())
    group = play.begin(5)
    play.env.run(until=3.0)
    for one in group.trajectories:
        play.turns.stop(one)
    group.move(0, "restarted")
    play.start(group)
    play.begin(5, epoch=1)
    alone = play.begin(6, samples=1).trajectories[0]
    play.turns.stop(alone)
    assert not play.turns.resume(alone)
    play.turns.begin(alone, alone.group.prompt)
    play.end()
    first, again, epoch, (aborted, anew) = play.lengths[:4], play.lengths[4:8], play.lengths[8:12], play.lengths[12:]
    outputs = [[[output for _, output in one] for one in part] for part in (first, again, epoch)]
    assert all(len(one) == 4 for part in (again, epoch) for one in part)
    assert all(begun != other[: len(begun)] for begun, other in zip(outputs[0], outputs[1], strict=True))
    assert outputs[1] != outputs[2]
    assert aborted[0][1] != anew[0][1]
    # And all of that repeats.
    same = Play(team())
    for epoch in (0, 1, 2):
        same.begin(5, epoch=epoch)
    assert same.end().lengths[4:12] == play.lengths[4:12]


# -- how it ends ------------------------------------------------------------
def test_length_turns_and_tokens_are_those_of_the_whole_conversation():
    play = Play(team())
    play.begin()
    play.end()
    for number, (_, one) in enumerate(sorted(play.ends, key=lambda end: end[1].number)):
        calls = play.lengths[number]
        assert (one.turns, one.tokens) == (4, sum(output for _, output in calls))
        assert one.length == sum(calls[-1]) == 100 + 60 + 3 * 30 + one.tokens
        assert (one.cut, one.masked, one.right) == (False, False, True)


def test_a_conversation_that_forks_has_the_length_of_all_its_streams():
    forks = team(calls=3, output=50, spawns=[{"agent": "scout", "calls": [1], "count": 2, "task": 20, "result": 5}])
    forks = forks._replace(agents={**forks.agents, "scout": Kind.model_validate({"system": 10, "output": 7})})
    play = Play(forks)
    play.begin(samples=1)
    one = play.end().ends[0][1]
    assert (one.tokens, one.turns) == (3 * 50 + 2 * 7, 5)
    assert one.length == (100 + 60 + 3 * 50 + 2 * 5 + 30) + 2 * (10 + 20 + 7)
    # A summary is written once, and stands in the stream it ends as in the one it begins.
    play = Play(team(calls=4, output=50, context={"max": 400, "compact_at": 0.8, "summary": 20}))
    play.begin(samples=1)
    one = play.end().ends[0][1]
    assert (one.tokens, one.turns) == (4 * 50 + 20, 5)
    assert one.length == (100 + 60 + 2 * 80 + 20) + (100 + 20 + 80 + 50)


@pytest.mark.parametrize(("changes", "cut", "masked"), [
    ({"budget": {"calls": 2}}, True, False), ({"budget": {"tokens": 700}}, True, False), ({"context": {"max": 270}}, True, False),
    ({"budget": {"time": "2500ms"}}, False, True), ({"retries": {"max": 1, "backoff": "1s"}}, False, True),
])  # fmt: skip
def test_who_runs_out_of_tokens_is_cut_and_who_fails_is_masked(changes, cut, masked):
    failing = "retries" in changes
    play = Play(team(output=50, **changes), refuse=lambda request: failing and request.prompt > 200)
    play.begin()
    for _, one in play.end().ends:
        assert (one.cut, one.masked, one.right) == (cut, masked, False)
    assert len(play.ends) == 4


def test_who_is_turned_away_at_once_is_told_of_a_second_later():
    play = Play(team(), refuse=lambda request: True)
    group = play.begin()
    play.env.run(until=0.5)
    play.turns.stop(group.trajectories[0])
    assert play.turns.running() == 3
    assert [(at, one.number, one.masked) for at, one in play.end().ends] == [(1.0, number, True) for number in (1, 2, 3)]


def test_without_a_sandbox_nothing_is_known_of_the_policy():
    play = Play(team(tools={"bash": BASH | {"sandbox": True}}, sandbox={"pool": "box", "at": "start"}))
    play.client.pools["box"] = lambda image: play.env.timeout(40.0, SimpleNamespace(reason="boot_failed"))
    play.begin()
    assert [(at, one.masked, one.tokens, one.length) for at, one in play.end().ends] == [(40.0, True, 0, 100)] * 4


def test_a_group_that_is_too_old_ends_with_the_turn_and_nobody_is_told():
    def turned(one):
        if one.group.prompt.id != 1 or play.env.now < 5.0:
            return True
        # As a gate does that drops the group: also the one that asks.
        for each in one.group.trajectories:
            play.turns.stop(each)
        return False

    play = Play(team())
    play.turned = turned
    play.begin(0)
    old = play.begin(1)
    play.end()
    assert {one.group.prompt.id for _, one in play.ends} == {0}
    agents = play.client.tables["agents"].to_pandas()
    ends = agents[agents.agent >= 4]
    assert (ends.status == "cancelled").all()
    assert ends.end.nunique() == 1
    # Where only it is said to be too old, its siblings go on.
    play = Play(team(), turned=lambda one: one.number != 2)
    old = play.begin(1)
    play.end()
    assert sorted(one.number for _, one in play.ends) == [0, 1, 3]
    assert sum(request.session == 2 for request in play.client.requests) == 1
    assert old.done_count == 3


# -- environments ------------------------------------------------------------
def test_an_environment_that_fails_costs_its_time_out_and_is_tried_again_or_given_up():
    ready = {"reset": {"median": "20s", "sigma": 0.5}, **BROKEN}
    for retries in (0, 1):
        play = Play(team(ready | {"retries": retries}))
        for prompt in range(50):
            play.begin(prompt)
        play.end()
        rows = play.client.tables["tool_calls"].to_pandas()
        resets = rows[rows.tool == "reset"]
        assert len(resets) == 200
        seconds, masked = resets.end - resets.start, np.array([one.masked for _, one in play.ends])
        failed = resets.outcome == "timeout"
        assert failed.mean() == pytest.approx(0.3 ** (retries + 1), abs=0.1)
        assert masked.sum() == failed.sum()
        assert seconds[failed].between(250 * (retries + 1), 400 * (retries + 1)).all()
        assert np.median(seconds[~failed & (resets.tries == 1)]) == pytest.approx(20, rel=0.2)
        assert all(one.tokens == 0 and one.turns == 0 for _, one in play.ends if one.masked)
        agents = play.client.tables["agents"].to_pandas()
        assert (agents.tool_calls == rows.groupby("agent").size().reindex(agents.agent).to_numpy()).all()
        assert (agents.tool_s[(agents.status == "sandbox").to_numpy()] > 250).all()
    # What samples do in theirs does not hang on it.
    still = Play(team())
    for prompt in range(50):
        still.begin(prompt)
    worked = sorted({request.session for request in play.client.requests})
    assert 150 < len(worked) < 200
    assert [still.end().lengths[number] for number in worked] == play.lengths


def test_a_chance_for_a_whole_step_and_what_environments_do_not_say():
    rare = Environment.model_validate({"failure_per_step": 0.1, "time": "300s"})
    with pytest.raises(ValueError, match="how many resets"):
        rare.readied(Luck(1))
    each = rare.among(128)
    fails = np.mean([any(not each.readied(Luck(1000 * step + n)).ready for n in range(128)) for step in range(1500)])
    assert fails == pytest.approx(0.1, abs=0.025)
    assert Environment.model_validate(BROKEN).among(9).failure == 0.3
    for options, message in (
        ({"failure": 0.1}, "write time"), ({"time": "3s"}, "time is used when"), ({"retries": 2}, "retries is used when"),
        (BROKEN | {"failure_per_step": 0.1}, "give one of them"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Environment.model_validate(options)


# -- what YAML says ------------------------------------------------------------
def test_a_preset_of_agents_without_the_turns_of_its_users():
    found = teams.complete({"steps": 3, "agents_preset": "mini_swe_agent", "agents": {"coder": {"context": {"max": 32000}}}})
    assert set(found) == {"steps", "agents", "tools"}
    assert found["agents"]["coder"]["context"] == {"max": 32000}
    assert found["agents"]["coder"]["sandbox"]["pool"] == "swe"
    assert "turns" not in teams.complete({"agents_preset": "coding_assistant"})["agents"].popitem()[1]
    assert teams.complete({"steps": 3}) == {"steps": 3}
    with pytest.raises(BadInput, match="unknown preset 'mini'") as error:
        teams.complete({"agents_preset": "mini"})
    assert error.value.problems[0].path == "agents_preset"


def test_what_is_wrong_with_agents_as_rollouts():
    good = team(sandbox={"pool": "box"}, model="judge", tools={"bash": BASH | {"sandbox": True}})
    assert list(teams.problems(good)) == []
    assert (good.models, good.sandboxes) == ({"agents.main.model": "judge"}, {"agents.main.sandbox.pool": "box"})
    assert good.task.whole(0.5) == 60
    assert dict(teams.problems(team(turns=2)))["agents.main.turns"].startswith("not used here: nobody comes back")
    kinds = {"main": Kind.model_validate(MAIN | {"tools": {"reset": 1}})}
    clash = Team(kinds, None, {"reset": Tool.model_validate(BASH)}, {}, Environment(reset=good.task))
    assert [path for path, _ in teams.problems(clash)] == ["tools.reset"]
    assert [path for path, _ in teams.problems(good._replace(agent="mian"))] == ["agent"]
    alone = Team({}, "main", {}, {"web": Quota(rate=1)}, Environment(reset=good.task))
    assert [path for path, _ in teams.problems(alone)] == ["agent", "apis", "environment"]
