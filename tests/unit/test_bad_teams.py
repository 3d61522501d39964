"""Agents, tools, sandboxes, gates and recordings as nobody can mean them: each slip is answered with its file and line, what was found and
what would be right. What one workload's options tell by themselves is in tests/unit/test_bad_agents.py, programs in test_bad_programs.py.
"""
from __future__ import annotations

import json

import pytest
from agent_samples import CALLS, DAG, OTEL, SPANS
from scenarios import problems_of, written
from team import TEAM, refused

import sim

LINES = TEAM.splitlines()
SPAWN = "{agent: scout, share: 0.1, count: 3, join: 2, task: 100, result: 50}"
NODES = "nodes: 4"


def scaled(options):
    return NODES, f"autoscale: {{{options}}}"


def spawn(options):
    return SPAWN, f"{{agent: scout, {options}}}"


# Changed text, the line it is on (0: that of the text), and what the message must say.
BAD = [
    # how agents begin
    ("rate: 0.5", "rate: 30/min", 0, "found '30/min'; a number is wanted"),
    ("num_sessions: 4", "num_requests: 4", 0, "unknown key of kind 'agents'"),
    ("turns: 2", "turns: 0", 0, "found 0; at least 1 is wanted"),
    ("turns: 2", "turns: 2.5", 0, "a whole number is wanted, or a law with this mean, such as {dist: geometric, mean: 2.5}"),
    ("turns: 2", "turns: {mean: 2, sd: 1}", 0, "found mean and sd; say of which law, such as dist: normal or negbinom"),
    ("    turns: 2\n", "", 30, "not used here: a session has one turn; say turns, or leave it out"),
    ("think_time: {median: 5s, sigma: 1}", "think_time: {median: -5s, sigma: 1}", 0, "median is -5; nothing here is below 0"),
    ("think_time: {median: 5s, sigma: 1}", "think_time: {median: 5s, sigma: 9}", 0, "at most 1e+15 is simulated: write a max"),
    ("think_time: {median: 5s, sigma: 1}", "cv: 2", 0, "it belongs to agents.turns or agents.turns.mixture or agents.message or"),
    # calls and contexts
    ("calls: 3", "calls: 1", 38, "not used here: with one call in a turn no tool is asked for; give more calls, or shares of 0"),
    ("calls: 3", "calls: 1", 39, "not used here: with one call in a turn nobody is begun"),
    ("calls: 3", "calls: 0", 0, "found 0; at least 1 is wanted"),
    ("output: 50\n", "output: 0\n", 0, "found 0; at least 1 is wanted"),
    ("output: 50\n", "output: 1e30\n", 0, "at most 1e+15 is simulated"),
    ("output: 50\n", "output: 40000\n", 40, "found 32000; a first call takes at least 43000 tokens of prompt and answer"),
    ("output: 50\n", "output: 50\n        parallel_tools: 0\n", 38, "found 0; at least 1 is wanted"),
    ("summary: 800", "summary: 0", 0, "found 0; at least 1 is wanted"),
    ("summary: 800", "summary: 800, kept: 30000", 0, "it is 33800 tokens, not below 25600: compacted without end"),
    ("tokens: 1000000", "tokens: 100", 0, "found 100; a first call takes at least 3050 tokens"),
    ("calls: 50", "turns: 50", 0, "unknown key of agents.lead.budget"),
    ("calls: 50", "calls: 0", 0, "at least 1 is wanted"),
    ("time: 30m", "time: 0", 0, "a value above 0 is wanted"),
    ("{max: 2, backoff: 1s}", "{backoff: 3s}", 0, "not used here: max is 0"),
    # sub-agents
    (*spawn("share: 0.1, join: first"), 0, "found 'first'; all, or how many results are enough (at least 1), is wanted"),
    (*spawn("share: 0.1, count: {dist: uniform, min: 1, max: 3}, join: 4"), 0, "found 4, but there are at most 3"),
    (*spawn("share: 0.1, count: 0"), 0, "found 0; at least 1 is wanted"),
    (*spawn("calls: []"), 0, "found an empty list; at least 1 is wanted"),
    (*spawn("calls: [3]"), 0, "found 3; a turn has at most 3 calls, of which the last spawns nothing"),
    (*spawn("share: 0"), 44, "nobody begins an agent of this kind; sessions begin with lead"),
    (SPAWN, "{agent: lead, share: 0.1}", 44, "nobody begins an agent of this kind"),
    ("depth: 2, agents: 10}", "usd: 3}", 0, "known: agents, calls, depth, time, tokens"),
    ("scout: {task: 100, ", "scout: {task: 100, message: 5, ", 0, "not used here: a sub-agent gets one message, its task"),
    ("scout: {task: 100, ", "scout: {task: 100, spawns: [{agent: scout, share: 0.1}], ", 0,
     "scout -> scout: agents begin agents without end"),
    ("judge: {task: 50, output: 5}", "judge: {output: 5}", 49, "missing: what agent judge is told"),
    ("judge: {task: 50, output: 5}", "judge: {task: 50, output: 5, tools: {search: 1}}", 0,
     "with one call in a turn no tool is asked for"),
    # tools and services
    ("{bash: 0.7, search: 0.2, ask: 0.1}", "{bash: 0.7, search: 0.2, ask: 0.1, gerp: 1}", 0,
     "known: ask, bash, search; or define it under tools"),
    ("search: 0.2, ask: 0.1}", "search: 20%, ask: 0.1}", 0, "a number is wanted, such as 20"),
    ("time: 1s, observation: 300", "time: 100s, observation: 300", 0, "so that every try ends at the timeout (60 s)"),
    ("time: 1s, observation: 300", "time: 5GB, observation: 300", 0, "'5GB' is a size; a duration is wanted"),
    ("time: 1s, observation: 300", "time: {mixture: []}, observation: 300", 0, "found no figure; a number or a distribution is wanted"),
    ("cores: 2", "cores: 500", 0, "found 500; a node of pool swe has 64 cores"),
    ("sandbox: true", "sandbox: swe", 0, "true or false is wanted"),
    ("fail: 0.05", "fail: 5%", 0, "a number is wanted, such as 5"),
    ("rate: 10 per second", "rate: 1.2.3 per second", 0, "a rate is wanted, such as 10 per second"),
    ("rate: 10 per second", "rate: 0", 0, "a value above 0 is wanted"),
    # sandboxes
    ("pool: swe", "pool: sew", 0, "no pool of sandboxes is named 'sew'; did you mean swe?"),
    ("pool: swe", "pool: serve", 0, "no pool of sandboxes is named 'serve'; known: swe"),
    ("pool: swe, at: start", "pool: swe, at: begin", 0, "'start' or 'first_use' is wanted"),
    (NODES, "replicas: 4", 0, "unknown key of cluster.sandboxes.0"),
    (*scaled("max: 3, policy: {kind: slo, ttft: 500ms}"), 0, "it goes by the times of requests, which sandboxes do not have"),
    (*scaled("min: 1, max: 3, policy: {kind: concurrency, target: 3, scale_to_zero_grace: 60s}"), 0, "with min 1 the last replica stays"),
    (*scaled("max: 3, policy: {kind: scheduled, table: [{at: '08:00', replicas: 40}]}"), 0, "found 40; from min 1 to max 3 of autoscale"),
    ("node: general_64", "node: general_65", 0, "did you mean general_64?"),
    ("node: general_64", "node: hgx_h100", 0, "the name of a CPU node is wanted"),
    ("node: general_64", "node: {preset: general_64, disk: 4}", 0, "found 4 bytes; there is more: write the unit, such as 4GB"),
    ("node: general_64", "node: {cores: 4, memory: 1GB, disk: 100GB}", 12, "a node is smaller than one sandbox"),
    ("name: swe", "name: ''", 0, "a name of at least 1 character is wanted"),
    ("cores: 1\n", "cores: 65\n", 12, "it has 64 cores for sandboxes, and one needs 65"),
    ("burst: 800MB", "burst: 800", 0, "found 800 bytes; there is more: write the unit"),
    ("burst: 800MB", "burst: 3GB", 12, "every command is killed"),
    ("size: 3GB", "size: 3", 0, "found 3 bytes; there is more: write the unit, such as 3GB"),
    ("size: 3GB", "size: 9TB", 0, "larger than any node's disk has room for: images have 5e+11 bytes of it"),
    ("{count: 20, size: 3GB}", "{count: 1, size: 3GB, zipf: 1}", 0, "zipf says which of several images are popular, but there is one"),
    ("boot: 2s", "boot: 70s", 12, "a boot takes at least 70 s, so that each ends at boot_timeout (60 s)"),
    ("quota: {agents: 40}", "quota: {agentz: 40}", 0, "no workload is named 'agentz'; did you mean agents?"),
    ("quota: {agents: 40}", "quota: {agents: 0}", 0, "a value of at least 1 is wanted"),
    ("exec: {slots: 100", "exec: {slots: 0", 0, "a value of at least 1 is wanted"),
    ("snapshot: {restore: 2s}", "snapshot: true", 0, "a mapping is wanted"),
    # the gate, and orders that go by programs
    ("{kind: kv_capacity}", "{kind: kv_capacty}", 0, "did you mean kv_capacity?"),
    ("{kind: kv_capacity}", "{kind: kv_capacity, acting_token_weight: 0, half_life: 3s}", 0, "not used here: acting_token_weight is 0"),
    ("      replicas: 2\n", "      role: prefill\n    - {name: d, gpu: h100_sxm, role: decode}\n", 11, "leave out the gate or the roles"),
    ("      replicas: 2\n", "      engine: {batcher: {kind: vllm_v1, order: {kind: shortest_program}}}\n", 8,
     "agents do not foresee how much a program will still generate"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD, ids=[f"{place}-{message[:30]}" for place, (*_, message) in enumerate(BAD)])
def test_what_the_loader_refuses(tmp_path, old, new, line, message):
    assert TEAM.count(old) == 1
    path = written(tmp_path, TEAM.replace(old, new))
    at = line or next(number for number, text in enumerate(LINES, 1) if old.strip() in text)
    if message.startswith("no workload is named"):
        with pytest.raises(sim.BadInput) as error:
            sim.run(path)
        assert (error.value.problems[0].line, message in str(error.value)) == (at, True)
    else:
        refused(path, at, message)


def test_the_team_itself_runs_and_all_its_problems_are_told_at_once(tmp_path):
    assert sim.run(written(tmp_path, TEAM)).summary["agents"]["tasks"]["begun"] == 4
    text = TEAM.replace("calls: 3\n", "calls: 0\n").replace("pool: swe", "pool: sew").replace("rate: 10 per", "rate: -1 per")
    text = text.replace("boot: 2s", "boot: -2s").replace("kv_capacity", "kv_capacty").replace("neocloud", "neoclod")
    path = written(tmp_path, text)
    assert {problem.line for problem in problems_of(path, lookup=True)} >= {10, 20, 50, 51}


def test_a_pool_that_nobody_asks_for_is_remarked(tmp_path):
    pool = "    - {name: spare, nodes: 1, node: general_64, memory: 1GB, boot: 2s}\nworkloads:\n"
    result = sim.run(written(tmp_path, TEAM.replace("workloads:\n", pool)))
    assert "sandboxes spare: no workload asks for one" in result.meta["remarks"]


# -- recordings ------------------------------------------------------------
TRACE = "model: meta-llama/Llama-3.1-8B\ncluster: {pools: [{gpu: h100_sxm}]}\nworkloads:\n  - {kind: agent_trace, path: %s}\n"
TABLE = "session_id,agent_id,arrival_s,input_tokens,output_tokens,api_time_s,prefix_ref,prefix_tokens\na,main,0,1000,100,2,-1,0\n"
RING = DAG.replace('"input_length": 40, "output_length": 4}', '"input_length": 40, "output_length": 4, "spawns": [{"children": ["root"]}]}')
LOST = json.dumps({"trace_id": "t", "spans": [one | {"parent_span_id": "nobody"} if one["span_id"] == "c2" else one for one in SPANS]})
TURN = json.dumps({"trace_id": "t", "spans": [one | {"parent_span_id": "c4"} if one["span_id"] == "top" else one for one in SPANS]})


@pytest.mark.parametrize(("text", "line", "message"), [
    (TABLE + "a,main,10,1300,100,2,7,1000\n", 3, "prefix_ref is 7; an earlier row of its session, 0 to 0, or -1 is wanted"),
    (TABLE + "a,main,soon,1300,100,2,0,1000\n", 3, "arrival_s is 'soon'; a number is wanted"),
    (TABLE + "a,main,10,1300,0,2,0,1000\n", 3, "1300 input and 0 output tokens; at least 1 of each is wanted"),
    (RING, 1, "sessions spawn each other in a ring"),
    (DAG.replace('["x", "y"]', '["x", "z"]'), 1, "spawns 'z', which has no line"),
    (DAG.replace('"join_at": 2', '"join_at": 9'), 1, "join_at is 9; a turn after 0"),
    (LOST, 0, "its parent nobody is missing"),
    (TURN, 0, "spans of trace t are each other's parents"),
    ("", 0, "the file is empty"),
], ids=range(9))  # fmt: skip
def test_recordings_that_cannot_be(tmp_path, text, line, message):
    file = written(tmp_path, text, "recording")
    with pytest.raises(sim.BadInput) as error:
        sim.run(written(tmp_path, TRACE % "recording"))
    found = [problem for problem in error.value.problems if message in problem.message]
    assert [(problem.file, problem.line) for problem in found] == [(str(file), line)], str(error.value)
    assert "prefix: none" not in str(error.value)


@pytest.mark.parametrize(("more", "message"), [
    ("path: []", "found an empty list"), ("path: recording, sessions: []", "found an empty list; at least 1 is wanted"),
    ("path: recording, format: wekka", "did you mean weka?"),
    ("path: recording, too_long: drop", "without max_context nothing is too long"),
])  # fmt: skip
def test_options_of_recordings(tmp_path, more, message):
    written(tmp_path, CALLS, "recording")
    refused(written(tmp_path, TRACE.replace("path: %s", more)), 4, message)


@pytest.mark.parametrize("more", ["prompts: added", "characters_per_token: 8", "output_tokens: 50"])
def test_what_a_recording_says_itself(tmp_path, more):
    written(tmp_path, CALLS, "recording")
    with pytest.raises(sim.BadInput, match="not used here: a recording of format calls says it itself"):
        sim.run(written(tmp_path, TRACE % f"recording, {more}"))


def test_a_recording_of_spans_is_read(tmp_path):
    written(tmp_path, OTEL, "recording")
    assert sim.run(written(tmp_path, TRACE % "recording")).summary["requests"]["completed"] == 4
