"""Agents as rollouts on real engines: tokens to the last one, what a stop gives back, publications, pulls at the start of a step."""
from __future__ import annotations

import numpy as np
import pytest
from episodes import AT_HOME, BASH, MAIN, drives, run, scenario

import sim
from sim.core.errors import BadInput
from tests.invariants.test_scenarios import both, equal


def test_tokens_add_up_whatever_is_stopped_and_all_that_was_held_is_given_back():
    seen, made = {}, []

    def play(mine, world, control):
        seen["play"] = mine
        groups = [mine.begin(prompt) for prompt in range(6)]
        for _ in range(40):
            yield world.env.timeout(0.25)
            made.append([mine.turns.progress(one) for group in groups for one in group.trajectories])
        yield world.env.timeout(0.01)
        stopped = [one for group in groups[:3] for one in group.trajectories if not one.ended]
        for one in stopped:
            mine.turns.stop(one)
            mine.turns.stop(one)
        seen["stopped"] = sum(mine.turns.progress(one) for one in stopped)

    result = run(scenario(), play)
    mine, requests = seen["play"], result.tables["requests"]
    assert (np.diff(np.array(made), axis=0) >= 0).all()
    assert np.array(made).max() > 0
    kept = sum(one.tokens for _, one in mine.ends)
    assert kept + seen["stopped"] + mine.spilt == requests["output_tokens"].sum()
    assert 0 < seen["stopped"] < kept
    assert 12 <= len(mine.ends) < 24
    sandboxes = result.tables["sandboxes"]
    assert "unfinished" not in {sandboxes.labels["outcome"][code] for code in sandboxes["outcome"]}
    # Prompts of a group are found in the cache: of the 160 tokens all whole blocks but what the first of a replica computes.
    firsts = requests["input_tokens"] == 160
    assert (requests["cached_tokens"][firsts] >= 144).mean() > 0.4


def test_a_publication_stops_engines_and_not_tools_and_calls_go_on_after_it():
    seen = {"marks": []}

    def play(mine, world, control):
        group = mine.begin(0, samples=16)
        for _ in range(3):
            yield world.env.timeout(2.0)
            yield control.pause()
            for one in group.trajectories:
                if not one.ended:
                    mine.mark(one)
            mine.version += 1
            before = [mine.turns.progress(one) for one in group.trajectories]
            seen["from"] = world.env.now
            yield control.update(4.0, "recompute")
            seen["marks"].append((seen["from"], world.env.now))
            assert before == [mine.turns.progress(one) for one in group.trajectories]
            control.resume()
        seen["group"] = group

    result = run(scenario(), play)
    tools = result.tables["tool_calls"]
    assert any(((tools["end"] > begin) & (tools["end"] < end)).any() for begin, end in seen["marks"])
    written = [[version for version, _ in one.segments] for one in seen["group"].trajectories]
    assert all(versions == sorted(set(versions)) for versions in written)
    assert max(len(versions) for versions in written) > 2
    assert sum(one.tokens for one in seen["group"].trajectories) == result.tables["requests"]["output_tokens"].sum()
    assert result.tables["pauses"]["forgotten"].sum() > 0


@pytest.mark.parametrize("prefix", [True, False])
def test_parked_they_keep_what_they_have_and_go_on_where_they_were(prefix):
    plays, seen = [], {}

    def straight(mine, world, control):
        plays.append(mine)
        mine.begin(0, samples=12)
        yield world.env.timeout(1.0)

    def halting(mine, world, control):
        plays.append(mine)
        group = mine.begin(0, samples=12)
        for at in (4.5, 0.4, 1.5, 0.0):
            yield world.env.timeout(at)
            parked = [one for one in group.trajectories if not one.ended]
            before = [mine.turns.progress(one) for one in parked]
            for one in parked:
                mine.mark(one)
                mine.turns.park(one)
                mine.turns.park(one)
            yield world.env.timeout(9.0 if at else 0.0)
            late = [mine.turns.progress(one) - tokens for one, tokens in zip(parked, before, strict=True)]
            assert sum(late[number] for number in range(len(parked))) == mine.spilt - seen.get("spilt", 0)
            assert all(one.work.agent is not None for one in parked)
            seen.setdefault("away", []).append((world.env.now - 8.9, world.env.now))
            seen["spilt"] = mine.spilt
            for one in parked:
                assert mine.turns.resume(one)
                assert not mine.turns.resume(one)

    one = run(scenario(enable_prefix_caching=prefix), straight)
    two = run(scenario(enable_prefix_caching=prefix), halting)
    result = [sorted((one.number, one.tokens, one.length, one.turns, one.masked) for _, one in mine.ends) for mine in plays]
    assert result[0] == result[1]
    requests, tools = two.tables["requests"], two.tables["tool_calls"]
    assert len(requests) > len(one.tables["requests"]) + 4
    assert requests["output_tokens"].sum() == one.tables["requests"]["output_tokens"].sum()
    for begin, end in seen["away"][:3]:
        assert not ((requests["arrival"] > begin) & (requests["arrival"] < end)).any()
    assert any(((tools["end"] > begin) & (tools["end"] < end)).any() for begin, end in seen["away"][:3])
    assert len(two.tables["sandboxes"]) == len(one.tables["sandboxes"]) == 12


def test_who_ends_while_parked_is_told_of_afterwards_and_who_is_stopped_gives_back():
    seen = {}

    def play(mine, world, control):
        group = mine.begin(0)
        yield world.env.timeout(5.0)
        for one in group.trajectories:
            mine.turns.park(one)
        yield world.env.timeout(20.0)
        seen["before"] = list(mine.ends)
        first, *others = group.trajectories
        mine.turns.stop(first)
        for one in others:
            assert mine.turns.resume(one)
        assert not mine.turns.resume(first)
        yield world.env.timeout(0.1)
        seen["after"] = [(one.number, one.masked) for _, one in mine.ends]

    result = run(scenario(AT_HOME | {"budget": {"time": "8s"}}), play)
    assert seen == {"before": [], "after": [(1, True), (2, True), (3, True)]}
    sandboxes = result.tables["sandboxes"]
    assert "unfinished" not in {sandboxes.labels["outcome"][code] for code in sandboxes["outcome"]}


def test_contexts_that_no_replica_can_hold_are_cut_and_prompts_that_none_can_are_bad_input():
    def play(tokens):
        def begun(mine, world, control):
            seen.append(mine)
            mine.begin(0, tokens=tokens)
            return
            yield

        return begun

    seen = []
    run(scenario(MAIN, {"bash": BASH | {"observation": 400}}, max_model_len=900), play(60))
    assert [(one.cut, one.masked, one.turns) for _, one in seen[0].ends] == [(True, False, 2)] * 4
    with pytest.raises(BadInput, match="was turned away"):
        run(scenario(MAIN, {"bash": BASH}, max_model_len=900), play(1000))


def test_all_at_once_wait_for_images_that_a_steady_stream_finds():
    """A synchronous step asks for all its sandboxes at once: they share the registry's bandwidth and the boots of a node."""
    waits = {}
    slow = {"boot_concurrency": 4, "images": {"count": 64, "size": "4GB"}}
    for name, gap in (("burst", 0.0), ("steady", 12.0)):
        def play(mine, world, control, gap=gap):
            for prompt in range(24):
                mine.begin(prompt, samples=2)
                yield world.env.timeout(gap)

        boxes = run(scenario(box=slow), play).tables["sandboxes"]
        waits[name] = np.mean(boxes["granted"] - boxes["asked"])
    assert waits["burst"] > 3 * waits["steady"]


def test_stretch_equals_oracle_and_the_same_seed_repeats():
    ends = []

    def play(mine, world, control):
        groups = [mine.begin(prompt) for prompt in range(5)]
        yield world.env.timeout(6.0)
        yield control.update(1.0, "recompute")
        for one in groups[0].trajectories:
            mine.turns.stop(one)
        yield world.env.timeout(3.0)
        groups += [mine.begin(7), mine.begin(0, epoch=1)]
        ends.append(mine)

    with drives(play, {"reset": "1s", "failure": 0.3, "time": "20s", "retries": 1}):
        fast, exact = both(scenario(max_num_seqs=6))
        again = sim.run(scenario(max_num_seqs=6))
    equal(fast, exact)
    equal(fast, again)
    assert not {name: check for name, check in fast.summary["audit"].items() if not check["ok"]}
    assert {"ok", "timeout"} <= set(fast.tables["tool_calls"].to_pandas().query("tool == 'reset'").outcome)
    for table in ("agents", "tool_calls"):
        one, two = (result.tables[table] for result in (fast, exact))
        assert len(one) == len(two)
        np.testing.assert_allclose(np.sort(one["end"]), np.sort(two["end"]), rtol=1e-9)
    mine = [[(one.group.number, one.number, one.tokens, one.length, one.turns, one.masked) for _, one in run.ends] for run in ends]
    assert mine[0] == mine[1] == mine[2]
    assert ends[0].spilt == ends[1].spilt == ends[2].spilt
