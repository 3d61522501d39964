"""What is wrong with agents is said before the clock starts: where, what was found, what would be right; and programs in Python."""
from __future__ import annotations

import pytest
from driven import driven
from scenarios import problems_of, written

import sim
from sim.core.registry import WORKLOADS
from sim.spec.load import dump, loads
from workloads.programs import presets

MAIN = {"message": 10, "calls": 2, "output": 5, "tools": {"bash": 1}}
TOOLS = {"bash": {"time": "1s", "observation": 20}}
GOOD = {"kind": "agents", "rate": 1, "num_sessions": 2, "agents": {"main": MAIN}, "tools": TOOLS}
SWARM = {"task": 10, "calls": 2, "output": 5, "spawns": [{"agent": "b", "share": 0.5}]}
BACK = SWARM | {"spawns": [{"agent": "a", "share": 0.5}]}


def with_main(**changes):
    return {"agents": {"main": MAIN | changes}}


def with_tool(**changes):
    return {"tools": {"bash": TOOLS["bash"] | changes}}


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"num_sessions": None}, "", "would never end"),
        ({"concurrency": 2}, "", "found both of rate"),
        ({"client": {"timeout": "1s"}}, "client", "say retries, and a budget of time, in each agent"),
        ({"shared_prefix": 5}, "shared_prefix", "write system in each agent"),
        ({"agents": {}, "tools": {}}, "agents", "say what agents do, or take a preset"),
        ({"preset": "chatt"}, "preset", "unknown preset 'chatt'; did you mean chat?"),
        ({"agent": "mian"}, "agent", "there is no agent 'mian'; did you mean main?"),
        (with_main(tools={"bash": 1, "bahs": 1}), "agents.main.tools.bahs", "tool 'bahs' is defined nowhere; did you mean bash?"),
        (with_main(tools={"bash": 0}), "agents.main.tools", "all shares are 0"),
        (with_main(tools={"bash": -1}), "agents.main.tools.bash", "at least 0"),
        (with_main(message=None), "agents.main", "missing message (or task)"),
        (with_main(output=None), "agents.main.output", "a number or a distribution is wanted"),
        (with_main(colour=3), "agents.main.colour", "unknown key of agents.main"),
        (with_main(contxt={}), "agents.main.contxt", "did you mean context?"),
        (with_main(calls=-1), "agents.main.calls", "nothing here is below 0"),
        (with_main(context={"compact_at": 0.8, "summary": 10}), "agents.main.context.max", "missing"),
        (with_main(context={"max": 1000, "compact_at": 0.8}), "agents.main.context.summary", "missing"),
        (with_main(context={"max": 1000}, system=1000), "agents.main.system", "no room for it"),
        (with_main(context={"max": 1000, "compact_at": 0.5, "summary": 600}), "agents.main.context.summary", "not below 500"),
        (with_main(spawns=[{"agent": "mian", "share": 0.1}]), "agents.main.spawns.0.agent", "did you mean main?"),
        (with_main(budget={"depth": -1}), "agents.main.budget.depth", "at least 0"),
        (with_main(budget={"time": "0s"}), "agents.main.budget.time", "above 0"),
        ({"think_time": "-5s"}, "think_time", "nothing here is below 0"),
        ({"agents": {"main": MAIN, "sub": {"task": 1, "output": 1}}}, "agents.sub", "nobody begins an agent of this kind"),
        (with_tool(hang=0.1), "tools.bash.timeout", "a tool that hangs would never end"),
        (with_tool(time="-1s"), "tools.bash.time", "nothing here is below 0"),
        (with_tool(fail=1.5), "tools.bash.fail", "at most 1"),
        (with_tool(api="web"), "tools.bash.api", "service 'web' is defined nowhere"),
        (with_tool(cores=4), "tools.bash.cores", "does not run in a sandbox"),
        (with_tool(retries=2), "tools.bash.retries", "nothing fails"),
        (with_tool(sandbox=True), "agents.main.sandbox", "runs in a sandbox, but the agent has none"),
        (with_tool(observation=None), "tools.bash.observation", "missing"),
        (with_tool(model={"agent": "jugde"}, time=0), "tools.bash.model.agent", "there is no agent 'jugde'"),
        (with_main(sandbox={"pool": "x"}), "agents.main.sandbox", "runs in a sandbox; give a tool sandbox: true"),
        ({"tools": TOOLS | {"read": TOOLS["bash"]}}, "tools.read", "no agent has this tool"),
        ({"apis": {"web": {"rate": "5 per fortnight"}}}, "apis.web.rate", "a rate is wanted, such as 10 per second"),
        ({"apis": {"web": {"rate": 5}}}, "apis.web", "no tool goes through this service"),
        ({"options": {"a": 1}}, "options", "there is no program"),
        (with_main(system=True), "agents.main.system", "found true; a number is wanted"),
        ({"agents": {"a": SWARM, "b": BACK}, "tools": {}}, "agents.a", "a -> b -> a: agents begin agents without end; give one of them"),
        ({"agents": {"main": MAIN | {"tools": {"ask": 1}, "budget": {"depth": 2}}},
          "tools": {"ask": {"model": {"agent": "main"}}}}, "agents.main.tools", "only spawns heed a budget of depth"),
        (with_main(tools={}, calls=3) | {"tools": {}}, "agents.main.calls", "nothing happens between them"),
        (with_main(spawns=[{"agent": "main", "calls": [1], "count": 2, "join": 3}], budget={"depth": 1}), "agents.main.spawns.0.join",
         "found 3, but there are 2"),
        (with_main(spawns=[{"agent": "main"}], budget={"depth": 1}), "agents.main.spawns.0", "say either share"),
    ],
)  # fmt: skip
def test_bad_options(options, path, words):
    [problem] = WORKLOADS.check({**GOOD, **options})[1]
    assert problem.path == path
    assert words in problem.message


def test_a_circle_that_ends_is_fine_and_so_is_one_that_never_comes_about():
    for budget in ({"depth": 3}, {"agents": 10}):
        assert WORKLOADS.check({**GOOD, "agents": {"a": SWARM | {"budget": budget}, "b": BACK}, "tools": {}})[1] == []
    never = BACK | {"spawns": [{"agent": "a", "share": 0}]}
    assert WORKLOADS.check({**GOOD, "agents": {"a": SWARM, "b": never}, "tools": {}})[1] == []


TEXT = """\
model: meta-llama/Llama-3.1-8B
cluster: {{pools: [{{gpu: h100_sxm}}]}}
workloads:
  - kind: agents
    rate: 1
    num_sessions: 3
    preset: chat
    agents:
      assistant:
        sytem: 5
        tools: {{serch: 1}}
        calls: {calls}
"""


def test_problems_have_their_lines(tmp_path):
    path = written(tmp_path, TEXT.format(calls=-1))
    found = [(problem.line, problem.path) for problem in problems_of(path)]
    assert found == [(10, "workloads.0.agents.assistant.sytem"), (12, "workloads.0.agents.assistant.calls")]


def scenario(**workload):
    cluster, base = {"pools": [{"gpu": "h100_sxm"}]}, {"kind": "agents", "rate": 5, "num_sessions": 3}
    return {"model": "meta-llama/Llama-3.1-8B", "cluster": cluster, "workloads": [base | workload]}


@pytest.mark.parametrize(
    ("workload", "path", "words"),
    [
        ({"agents": {"main": MAIN | {"model": "gpt"}}, "tools": TOOLS}, "workloads.0.agents.main.model", "no pool serves 'gpt'"),
        ({"agents": {"main": MAIN | {"sandbox": {"pool": "swe"}}}, "tools": {"bash": TOOLS["bash"] | {"sandbox": True}}},
         "workloads.0.agents.main.sandbox.pool", "no pool of sandboxes is named 'swe'; cluster.sandboxes has none"),
    ],
)  # fmt: skip
def test_what_the_cluster_does_not_have(workload, path, words):
    with pytest.raises(sim.BadInput) as error:
        sim.run(scenario(**workload))
    [problem] = error.value.problems
    assert problem.path == path
    assert words in problem.message


def test_no_cascades():
    bad = scenario(agents={"main": MAIN}, tools=TOOLS)
    bad["cluster"]["pools"] = [{"name": name, "gpu": "h100_sxm"} for name in ("small", "large")]
    bad["cluster"]["cascades"] = [{"from": "small", "to": "large", "escalate": 0.2}]
    with pytest.raises(sim.BadInput, match="nobody calls off"):
        sim.run(bad)


# -- presets ------------------------------------------------------------
def test_every_preset_runs_and_is_written_out_in_full():
    for name in presets.names():
        raw, kinds = scenario(preset=name), presets.load(name)["agents"].values()
        box = {"nodes": 1, "node": {"cores": 8, "memory": "8GB", "disk": "1TB"}, "memory": "1GB", "boot": 1}
        pools = sorted({one["sandbox"]["pool"] for one in kinds if "sandbox" in one})
        raw["cluster"]["sandboxes"] = [{"name": pool, **box} for pool in pools]
        whole = loads(raw, lookup=False)
        [workload] = whole.workloads
        assert workload["preset"] is None
        assert workload["agents"]
    whole = loads(scenario(preset="chat", agents={"assistant": {"system": 7, "context": {"max": 9000}}}))
    kind = whole.workloads[0]["agents"]["assistant"]
    assert (kind.system, kind.context.max, kind.context.compact_at, kind.tools) == (7, 9000, 0.9, {"search": 1})
    assert loads(__import__("yaml").safe_load(dump(whole))) == whole
    assert sim.run(whole).summary["agents"]["tasks"]["completed"] == 3


# -- programs in Python ------------------------------------------------------------
PROGRAM = '''
from dataclasses import dataclass
from typing import Annotated
from pydantic import Field
from workloads.programs.base import Over, Role
from workloads.programs.options import Budget


@dataclass
class Reviewer:
    """Reads so many files, has each judged, and writes a report."""

    files: Annotated[int, Field(ge=1)] = 3
    lines: int = 100

    role = Role(name="reviewer", system=500, budget=Budget(calls=50))

    def run(self, agent):
        agent.told(200)
        for number in range(self.files):
            yield from agent.call(20)
            used = yield from agent.use("read", observation=self.lines)
            assert used.outcome == "ok"
            ended = yield from agent.spawn("judge", task=self.lines)
            assert ended[0].status == "completed"
        try:
            for _ in range(100):
                yield from agent.call(1, pause=0.0)
        except Over as over:
            assert over.reason == "calls"
        yield from agent.think(5)


class Plain:
    def run(self, agent):
        yield


@dataclass
class Idle:
    def run(self, agent):
        return 3
'''
WITH = {"kind": "agents", "rate": 1, "num_sessions": 2, "agents": {"judge": {"system": 9, "output": 30}},
        "tools": {"read": {"time": "1s", "observation": 5}}}  # fmt: skip


def test_a_program_in_python(tmp_path):
    path = written(tmp_path, PROGRAM, "reviewer.py")
    world = driven({**WITH, "program": f"{path}:Reviewer", "options": {"files": 2, "lines": 40}})
    first = [request.prompt for request in world.requests if request.session == 0]
    # What was read and what the judge says is added: 20 tokens of the answer, 40 of the file, 30 of the verdict.
    assert first[:3] == [700, 790, 880]
    assert len(first) == 50
    table = world.tables["agents"].to_pandas()
    assert table.kind.value_counts().to_dict() == {"judge": 4, "reviewer": 2}
    assert table.status.astype(str).unique().tolist() == ["completed"]
    assert table.think_s.max() == pytest.approx(5)


@pytest.mark.parametrize(
    ("program", "options", "path", "words"),
    [
        ("reviewer.py", {}, "program", "the path of a Python file and a class in it are wanted"),
        ("nothing.py:Reviewer", {}, "program", "no such file"),
        ("reviewer.py:Reviwer", {}, "program", "did you mean Reviewer?"),
        ("reviewer.py:Plain", {}, "program", "put @dataclass over it"),
        ("reviewer.py:Idle", {}, "program", "has no generator run"),
        ("broken.py:Reviewer", {}, "program", "cannot be loaded: SyntaxError"),
        ("reviewer.py:Reviewer", {"files": 0}, "options.files", "at least 1"),
        ("reviewer.py:Reviewer", {"fils": 1}, "options.fils", "did you mean files?"),
    ],
)
def test_bad_programs(tmp_path, program, options, path, words):
    written(tmp_path, PROGRAM, "reviewer.py")
    written(tmp_path, "class (:", "broken.py")
    [problem] = WORKLOADS.check({**WITH, "program": str(tmp_path / program), "options": options})[1]
    assert problem.path == path
    assert words in problem.message


def test_a_program_says_itself_what_a_session_does(tmp_path):
    path = written(tmp_path, PROGRAM, "reviewer.py")
    [problem] = WORKLOADS.check({**WITH, "program": f"{path}:Reviewer", "turns": 3})[1]
    assert problem.path == "turns"


def test_the_path_of_a_program_is_relative_to_its_scenario(tmp_path):
    written(tmp_path, PROGRAM, "code/reviewer.py")
    text = TEXT.split("    preset")[0] + "    program: code/{}.py:Reviewer\n    tools: {{read: {{time: 1s, observation: 5}}}}\n"
    text += "    agents: {{judge: {{output: 30}}}}\n"
    result = sim.run(written(tmp_path, text.format("reviewer")))
    assert result.summary["agents"]["tasks"]["completed"] == 3
    [problem] = problems_of(written(tmp_path, text.format("missing")))
    assert "no such file" in problem.message
