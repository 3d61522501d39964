"""Sessions of several kinds, histories that are rewritten, and what a compaction keeps."""
from __future__ import annotations

import pytest
from driven import driven, shared

import sim
from sim.core.registry import WORKLOADS
from workloads.programs import presets

SYSTEM, TASK, OUTPUT, SEEN = 1000, 100, 50, 200
LOOP = {"system": SYSTEM, "message": TASK, "calls": 3, "output": OUTPUT, "tools": {"bash": 1}}
BASE = {"kind": "agents", "rate": 1, "num_sessions": 1, "tools": {"bash": {"time": "2s", "observation": SEEN}}}
TWO = {"one": LOOP, "two": {"output": OUTPUT, "message": TASK, "turns": 4}}


def rows(world, table):
    return world.tables[table].to_pandas()


def problems(**options):
    return {problem.path: problem.message for problem in WORKLOADS.check({**BASE, **options})[1]}


@pytest.mark.parametrize("arrivals", [{"rate": 5}, {"rate": None, "concurrency": 7}])
def test_sessions_begin_with_kinds_by_their_shares(arrivals):
    agents = rows(driven({**BASE, **arrivals, "agents": TWO, "mix": {"one": 3, "two": 1}, "num_sessions": 2000}), "agents")
    kinds = agents.sort_values("agent").calls
    assert set(kinds) == {3, 4}
    # Four standard errors of 2,000 draws.
    assert (kinds == 4).mean() == pytest.approx(0.25, abs=0.04)


def test_which_kind_a_session_is_does_not_depend_on_when_it_comes():
    drawn = [rows(driven({**BASE, **arrivals, "agents": TWO, "mix": {"one": 1, "two": 1}, "num_sessions": 40}), "agents")
             for arrivals in ({"rate": 5}, {"rate": None, "concurrency": 1})]  # fmt: skip
    one, other = (frame.sort_values("agent").calls.tolist() for frame in drawn)
    assert one == other


def test_turns_are_those_of_the_kind_before_those_of_the_workload():
    world = driven({**BASE, "agents": TWO, "mix": {"two": 1, "one": 1}, "turns": 2, "num_sessions": 50})
    assert rows(world, "turns").groupby("agent").turn.max().value_counts().index.sort_values().tolist() == [2, 4]


def test_a_rewritten_history_is_as_long_and_has_only_the_system_prompt_in_common():
    world = driven({**BASE, "agents": {"main": LOOP | {"context": {"edits": 1}}}, "turns": 3})
    turns, asked = rows(world, "turns"), world.requests
    assert turns.cause.tolist() == ["user", "tool", "tool", *["edit", "tool", "tool"] * 2]
    for place in (3, 6):
        assert asked[place].prompt == asked[place - 1].prompt + OUTPUT + TASK
        assert shared(asked[place - 1], asked[place]) == SYSTEM
        assert turns.new[place] == asked[place].prompt - SYSTEM
    # What follows goes on from the history as it is now.
    assert shared(asked[3], asked[4]) == asked[3].prompt


def test_edits_come_with_their_chance():
    kind = {"message": TASK, "output": OUTPUT, "context": {"edits": 0.3}}
    world = driven({**BASE, "tools": {}, "agents": {"main": kind}, "turns": 11, "num_sessions": 200})
    causes = rows(world, "turns").cause
    assert (causes == "edit").sum() / 2000 == pytest.approx(0.3, abs=0.04)


def test_what_a_compaction_keeps_is_in_the_prompt_and_written_by_nobody():
    limit = {"max": 2000, "compact_at": 0.8, "summary": 80, "kept": 70}
    world = driven({**BASE, "agents": {"main": LOOP | {"calls": 5, "context": limit}}})
    turns = rows(world, "turns")
    place = turns.index[turns.cause == "summary"][0]
    assert world.requests[place].output == 80
    assert world.requests[place + 1].prompt == SYSTEM + 80 + 70
    assert turns.new[place + 1] == 150


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"agents": TWO, "mix": {"one": 1, "too": 1}}, "mix.too", "there is no agent 'too'; did you mean two"),
        ({"agents": TWO, "mix": {"one": 0}}, "mix", "all shares are 0"),
        ({"agents": TWO, "mix": {"one": 1, "two": 1}, "agent": "one"}, "mix", "one of the two"),
        ({"agents": TWO, "mix": {"one": 1}}, "agents.two", "sessions begin with one"),
        ({"agents": TWO, "mix": {"one": -1, "two": 1}}, "mix.one", "at least 0 is wanted"),
        ({"agents": {"one": LOOP, "two": {"output": 5}}, "mix": {"one": 1, "two": 1}}, "agents.two", "missing message"),
        ({"agents": {"one": LOOP | {"context": {"kept": 5}}}}, "agents.one.context.kept", "never compacted"),
        ({"agents": {"one": LOOP | {"context": {"edits": 2}}}}, "agents.one.context.edits", "at most 1 is wanted"),
        ({"agents": {"one": LOOP | {"spawns": [{"agent": "sub", "share": 0.1}]}, "sub": LOOP | {"turns": 2}}}, "agents.sub.turns",
         "sub-agents get one message"),
        ({"agents": {"one": LOOP | {"spawns": [{"agent": "sub", "share": 0.1}]}, "sub": LOOP | {"context": {"edits": 0.1}}}},
         "agents.sub.context.edits", "sub-agents get one message"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(options, path, words):
    assert words in problems(**options)[path]


def test_a_preset_of_several_kinds_can_be_cut_to_one():
    mixed = presets.load("coding_assistant")
    whole = {"preset": "coding_assistant"}
    assert set(WORKLOADS.check({**BASE, "tools": {}, **whole})[0]["mix"]) == set(mixed["mix"])
    for options in ({**BASE, "tools": {}, **whole, "agent": "resumed"}, {"kind": "evals", "tasks": 2, **whole}):
        checked, wrong = WORKLOADS.check(options)
        assert wrong == []
        assert set(checked["agents"]) == {options.get("agent", "main"), "explorer"}


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_says_where_its_figures_come_from(name):
    import yaml

    content = yaml.safe_load((presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["source"]
    names = {kind["sandbox"]["pool"] for kind in content["agents"].values() if "sandbox" in kind}
    sandboxes = [{"nodes": 9, "node": {"cores": 64, "memory": "64GB", "disk": "1TB"}, "memory": "1GB", "boot": 1, "name": pool}
                 for pool in sorted(names)]  # fmt: skip
    load = {"kind": "agents", "preset": name, "rate": 1, "num_sessions": 2}
    engine = {"max_model_len": 1_000_000}
    pool = {"gpu": "h100_sxm", "parallel": {"tp": 8}, "engine": engine}
    cluster = {"pools": [pool], "sandboxes": sandboxes}
    summary = sim.run({"model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": [load]}).summary
    assert all(entry["ok"] for entry in summary["audit"].values())
