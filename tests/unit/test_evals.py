"""Evaluations: what samples of a task share, limits of a harness, grades in clean sandboxes, the time to finish, bad input."""
from __future__ import annotations

import numpy as np
import pytest
from driven import World, driven, shared

import sim
from sim.core.errors import BadInput
from sim.core.registry import WORKLOADS
from sim.spec.load import dump, loads
from tests.invariants.test_scenarios import both, equal

MAIN = {"system": 100, "task": {"mean": 40, "cv": 1, "min": 1}, "calls": 3, "output": 10, "tools": {"bash": 1}}
TOOLS = {"bash": {"time": "2s", "observation": 20}, "tests": {"time": "5s", "observation": 1}}
GOOD = {"kind": "evals", "tasks": 4, "samples": 3, "agents": {"main": MAIN}, "tools": TOOLS, "grade": {"tool": "tests"}}
ONE_CALL = {"kind": "evals", "tasks": 6, "samples": 2, "lengths": {"kind": "uniform", "input": [10, 90], "output": [1, 30]}}
BOX = {"name": "box", "nodes": 1, "node": {"cores": 64, "memory": "256GB", "disk": "1TB"}, "memory": "1GB", "boot": "3s",
       "boot_concurrency": 1000, "exec": {"overhead": 0}, "images": {"count": 4, "size": "1GB"}}  # fmt: skip
INSIDE = {"tests": {"time": "5s", "observation": 1, "sandbox": True}, "bash": {"time": "2s", "observation": 20, "sandbox": True}}
AT_HOME = {"agents": {"main": MAIN | {"sandbox": {"pool": "box"}}}, "tools": INSIDE}


def rows(world, table):
    return world.tables[table].to_pandas()


def scenario(options, **pool):
    return {"model": "Qwen/Qwen2.5-0.5B", "workloads": [options],
            "cluster": {"pools": [{"gpu": "l40s", "replicas": 2}], "sandboxes": [BOX | pool]}}  # fmt: skip


def firsts(world):
    """The first prompt of each sample, in their order."""
    found = {}
    for request in world.requests:
        found.setdefault(request.session, request)
    return [found[number] for number in sorted(found)]


def test_samples_of_a_task_are_asked_the_same():
    asked = firsts(driven(GOOD))
    assert len(asked) == 12
    for number, one in enumerate(asked):
        for other in asked[number + 1 :]:
            same = number // 3 == other.session // 3
            assert shared(one, other) == (one.prompt if same else 100)
    assert len({one.prompt for one in asked}) == 4


def test_what_else_a_sample_does_is_its_own():
    varied = GOOD | {"agents": {"main": MAIN | {"output": {"mean": 200, "cv": 1, "min": 1}}}}
    world = driven(varied)
    assert len({tuple(r.output for r in world.requests if r.session == number) for number in range(12)}) == 12
    # And it is the same however many run at a time.
    other = driven(varied | {"concurrency": 2})
    for number in range(12):
        one, two = ([(r.prompt, r.output) for r in w.requests if r.session == number] for w in (world, other))
        assert one == two


def test_all_land_at_once_or_evenly_or_one_after_the_other():
    """A sample takes 3 calls of a second, 2 tools of 2 s and a grade of 5 s."""
    begun = lambda world: sorted(rows(world, "agents").start)  # noqa: E731
    assert begun(driven(GOOD | {"start": "7s"})) == [7.0] * 12
    assert begun(driven(GOOD | {"within": "24s"})) == pytest.approx(np.arange(12) * 2.0)
    limited = rows(driven(GOOD | {"concurrency": 5}), "agents")
    assert sorted(limited.start) == pytest.approx([0.0] * 5 + [12.0] * 5 + [24.0] * 2)
    assert limited.end.max() == pytest.approx(36.0)


def test_a_sample_can_be_one_call():
    world = driven(ONE_CALL)
    asked = firsts(world)
    assert len(asked) == len(world.requests) == 12
    assert [one.prompt for one in asked[::2]] == [one.prompt for one in asked[1::2]]
    assert all(shared(one, two) == one.prompt for one, two in zip(asked[::2], asked[1::2], strict=True))
    assert len({one.output for one in asked}) > 6
    assert all(np.isnan(one.pause) for one in asked)


@pytest.mark.parametrize(
    ("budget", "status", "calls"),
    [({"calls": 2}, "calls", 2), ({"time": "3.5s"}, "time", 2), ({"time": "5s"}, "time", 2), ({}, "completed", 3)],
)
def test_what_there_is_when_a_budget_is_spent_is_graded(budget, status, calls):
    world = driven(GOOD | {"agents": {"main": MAIN | {"budget": budget}}})
    agents, tools = rows(world, "agents"), rows(world, "tool_calls")
    assert set(agents.status) == {status}
    assert set(agents.calls) == {calls}
    assert len(tools[(tools.tool == "tests") & (tools.outcome == "ok")]) == 12
    parts = agents[["llm_s", "tool_s", "sandbox_s", "join_s", "think_s"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx((agents.end - agents.start).to_numpy())
    if "time" in budget:
        # What is under way then is called off, a call at 3.5 s and a tool at 5 s, and the grade takes its time all the same.
        seconds = float(budget["time"][:-1])
        assert (agents.end - agents.start).to_numpy() == pytest.approx(seconds + 5.0, abs=1e-6)
        assert [request.reason for _, request in world.cancelled] == (["timeout"] * 12 if seconds == 3.5 else [])
        assert (tools.outcome == "cancelled").sum() == (12 if seconds == 5 else 0)


def test_what_failed_is_not_graded():
    world = driven(GOOD, world=World(refuse=lambda request: True))
    assert set(rows(world, "agents").status) == {"failed"}
    assert not len(rows(world, "tool_calls"))


def test_grades_in_a_clean_sandbox_of_the_same_image():
    result = sim.run(scenario(GOOD | AT_HOME | {"grade": {"tool": "tests", "clean_sandbox": True}}))
    boxes, agents = result.tables["sandboxes"].to_pandas(), result.tables["agents"].to_pandas()
    assert len(boxes) == 24
    assert boxes.image.value_counts().to_dict() == {0: 6, 1: 6, 2: 6, 3: 6}
    assert not boxes.duplicated(["asked", "image", "released"]).all()
    # The one that was worked in is given back before the other is asked for.
    times = np.sort(boxes.asked.to_numpy())
    assert (boxes.released.to_numpy()[:, None] <= times[12:][None, :]).any()
    one = result.summary["evals"]["evals"]
    assert one["sandboxes"]["held"] == 24
    assert one["ended"] == {"completed": 12}
    assert one["share"]["grade"] == pytest.approx(12 * 5.0 / (agents.end - agents.start).sum())
    assert sum(one["share"].values()) == pytest.approx(1.0)
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    kept = sim.run(scenario(GOOD | AT_HOME))
    assert len(kept.tables["sandboxes"]) == 12


def test_one_call_is_graded_in_its_sandbox():
    result = sim.run(scenario(ONE_CALL | {"sandbox": {"pool": "box"}, "tools": {"tests": INSIDE["tests"]}, "grade": {"tool": "tests"}}))
    assert len(result.tables["sandboxes"]) == 12
    assert result.tables["tool_calls"]["end"].max() == pytest.approx(result.summary["evals"]["evals"]["finish_s"])


def test_time_to_finish_when_sandboxes_are_short():
    """96 samples, room for 32 sandboxes at a time, held for the boot, two tools, the calls and the grade: three rounds."""
    lone = scenario(GOOD | AT_HOME | {"tasks": 1, "samples": 1}, images=None, cores=2)
    many = scenario(GOOD | AT_HOME | {"tasks": 32, "agents": {"main": MAIN | {"task": 40, "sandbox": {"pool": "box", "at": "start"}}}},
                    images=None, cores=2)  # fmt: skip
    one, all_ = (sim.run(each).summary["evals"]["evals"] for each in (lone, many))
    assert all_["sandboxes"]["peak"] == 32
    assert all_["finish_s"] == pytest.approx(3 * one["finish_s"], rel=0.02)
    assert all_["done_s"]["p50"] == pytest.approx(2 * one["finish_s"], rel=0.02)
    assert all_["share"]["sandbox"] == pytest.approx((1 + 2) / (1 + 2 + 3), abs=0.15)


def test_what_is_cut_off_has_no_time_to_finish():
    result = sim.run(scenario(GOOD | {"within": "60s"}) | {"duration": "40s"})
    one = result.summary["evals"]["evals"]
    assert one["finish_s"] is None
    assert one["done_s"]["p99"] is None
    assert one["begun"] < one["samples"] == 12


@pytest.mark.parametrize("options", [
    GOOD, GOOD | AT_HOME | {"concurrency": 5, "grade": {"tool": "tests", "clean_sandbox": True}},
    GOOD | {"within": "3s", "agents": {"main": MAIN | {"budget": {"time": "4s"}}}}, ONE_CALL,
])  # fmt: skip
def test_both_engines_agree(options):
    small = scenario(options, boot={"mean": "400ms"})
    small["cluster"]["pools"][0]["engine"] = {"max_num_seqs": 3, "num_gpu_blocks_override": 60, "max_model_len": 640}
    fast, exact = both(small)
    equal(fast, exact)


def test_it_repeats_itself_when_saved(tmp_path):
    first = loads(scenario(GOOD | AT_HOME))
    (tmp_path / "x.yaml").write_text(dump(first), encoding="utf-8")
    assert sim.load(tmp_path / "x.yaml") == first


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"tasks": 0}, "tasks", "at least 1"),
        ({"tasks": 10**8, "samples": 2}, "tasks", "at most 100,000,000"),
        ({"within": "-1s"}, "within", "at least 0"),
        ({"agents": {}}, "", "say agents (or a preset of them), or lengths"),
        ({"grade": {"tool": "test"}}, "grade.tool", "tool 'test' is defined nowhere; did you mean tests?"),
        ({"grade": {"tool": "tests", "clean_sandbox": True}}, "grade.clean_sandbox", "tests runs in no sandbox"),
        ({"grade": None}, "tools.tests", "no agent has this tool"),
        ({"sandbox": {"pool": "box"}}, "sandbox", "agents have sandboxes of their own"),
        ({"tools": INSIDE}, "agents.main.sandbox", "runs in a sandbox, but the agent has none"),
        ({"agents": {"main": MAIN | {"task": None}}}, "agents.main", "missing message (or task)"),
        ({"client": {"timeout": "1s"}}, "client", "leave it out"),
        ({"preset": "no_such"}, "preset", "unknown preset"),
        ({"turns": 3}, "turns", "unknown key"),
        ({"tools": TOOLS | {"tests": {"model": {"agent": "judge"}}}}, "tools.tests.model.agent", "there is no agent 'judge'"),
    ],
)
def test_bad_options(options, path, words):
    problems = WORKLOADS.check({**GOOD, **options})[1]
    assert [(problem.path, words in problem.message) for problem in problems][:1] == [(path, True)], problems


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"agent": "main"}, "agent", "a sample is one call"),
        ({"grade": {"tool": "tests"}, "tools": {"tests": INSIDE["tests"]}}, "sandbox", "runs in a sandbox, but the agent has none"),
        ({"sandbox": {"pool": "box"}}, "sandbox", "give a tool sandbox: true"),
        ({"lengths": {"kind": "fixed", "input": 0, "output": 1}}, "lengths.input", "at least 1"),
        ({"agents": {"sample": MAIN}}, "agents.sample", "another one"),
    ],
)
def test_bad_options_of_single_calls(options, path, words):
    problems = WORKLOADS.check({**ONE_CALL, **options})[1]
    assert (path, True) in [(problem.path, words in problem.message) for problem in problems], problems


def test_a_judge_may_grade():
    judged = ONE_CALL | {"agents": {"judge": {"task": 30, "output": 2}}, "tools": {"ask": {"model": {"agent": "judge"}}},
                         "grade": {"tool": "ask"}}  # fmt: skip
    world = driven(judged)
    assert len(world.requests) == 24
    assert rows(world, "agents").kind.value_counts().to_dict() == {"sample": 12, "judge": 12}


def test_a_preset_may_be_evaluated_without_its_user():
    checked, problems = WORKLOADS.check({"kind": "evals", "preset": "chat", "tasks": 3})
    assert problems == []
    assert "turns" not in checked


def test_a_pool_that_is_not_there_is_named():
    with pytest.raises(sim.BadInput) as error:
        sim.run(scenario(ONE_CALL | {"sandbox": {"pool": "bix"}, "tools": {"tests": INSIDE["tests"]}, "grade": {"tool": "tests"}}))
    [problem] = error.value.problems
    assert "did you mean box?" in problem.message


def test_turns_are_a_sessions():
    with pytest.raises(BadInput, match=r"agents\.main\.turns: not used here: nobody comes back"):
        loads(scenario(GOOD | {"agents": {"main": MAIN | {"turns": 2}}}))
    for preset in ("coding_assistant", "chat"):
        [workload] = loads({"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": [{"gpu": "l4"}]},
                            "workloads": [{"kind": "evals", "tasks": 2, "preset": preset}]}).workloads  # fmt: skip
        assert all(kind.turns is None for kind in workload["agents"].values())
