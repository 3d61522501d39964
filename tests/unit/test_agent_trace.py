"""Recorded sessions of agents replayed: closed loop, what prompts share, how sessions begin and end, and what is noted of them."""
from __future__ import annotations

import math

import pytest
from agent_samples import CALLS, DAG, MOONCAKE, SAMPLES, WEKA
from driven import World, common, driven, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.content import Content
from sim.core.errors import BadInput
from sim.core.registry import WORKLOADS
from sim.study.audit import audit
from sim.study.run import run
from workloads.programs.contents import Contents, plan
from workloads.programs.script import Shares

TEN = "\n".join(f"{session},{turn},{100 * (turn + 1)},10,1" for session in "abcde" for turn in range(2))
TABLE = f"session_id,arrival_s,input_tokens,output_tokens,api_time_s\n{TEN}\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="recording.jsonl"):
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return write


def replayed(path, service=lambda request: 2.0, refuse=lambda request: False, **options):
    return driven({"kind": "agent_trace", "path": path, **options}, service=service, refuse=refuse)


def sent(world):
    return [(request.arrival, request.prompt, request.session) for request in world.requests]


def table(world, name, *columns):
    """Rows of a table as tuples, labels in words."""
    found = world.tables[name]
    return [row for page in found.pages() for row in zip(*(
        [found.labels[column][code] for code in page[column]] if column in found.labels else page[column].tolist() for column in columns
    ), strict=True)]  # fmt: skip


def test_a_call_follows_the_answers_it_waited_for_and_its_wait(file):
    path = file(CALLS)
    assert sent(replayed(path)) == [
        (0.0, 1000, 0), (5.0, 800, 2), (10.0, 700, 2), (11.0, 400, 1), (14.0, 600, 1), (16.0, 1300, 0), (22.0, 1500, 0), (92.0, 1700, 0),
    ]  # fmt: skip
    slow = replayed(path, service=lambda request: 100.0)
    assert [at for at, prompt, _ in sent(slow) if prompt in (400, 600, 1300)] == [109.0, 210.0, 310.0]


def test_sub_agents_run_side_by_side_and_are_joined(file):
    world = replayed(file(DAG), service=lambda request: {40: 50.0}.get(request.prompt, 1.0))
    assert sent(world) == [(0.0, 100, 0), (1.0, 40, 1), (1.0, 50, 2), (1.5, 130, 0), (2.25, 58, 2), (2.5, 137, 3), (51.0, 165, 0)]
    assert [request.program for request in world.requests] == [0] * 7
    assert [request.ahead for request in world.requests] == [23.0, 19.0, 14.0, 9.0, 8.0, 5.0, 0.0]


def test_prompts_share_what_was_recorded(file):
    main, _, _, _, _, _, third, fourth = (world := replayed(file(CALLS))).requests
    assert shared(third, fourth) == 1500
    assert shared(main, fourth) == 1000
    # A conversation that goes on is one key.
    assert len(fourth.content.keys) == 1
    by_prompt = {request.prompt: request for request in world.requests}
    assert shared(by_prompt[400], by_prompt[600]) == 400
    assert by_prompt[400].content.keys[0] != main.content.keys[0]
    forked = {request.prompt: request for request in replayed(file(DAG)).requests}
    assert shared(forked[130], forked[137]) == 130
    assert forked[137].content.keys[-1] == forked[130].reply
    assert forked[137].content.ends[-1] == 135


def test_ids_of_all_sessions_are_shared_and_a_second_pass_is_afresh(file):
    path = file(MOONCAKE)
    first, second, _ = replayed(path).requests
    assert (second.arrival, shared(first, second)) == (2.0, 512)
    twice = replayed(path, concurrency=1, num_sessions=4).requests
    assert [request.prompt for request in twice] == [1000, 1600, 1024] * 2
    assert shared(twice[0], twice[3]) == 0
    assert shared(twice[3], twice[5]) == 512


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "tracelab"])
def test_every_format_is_replayed_in_the_same_way_twice(file, name):
    worlds = [replayed(file(SAMPLES[name]), concurrency=2) for _ in range(2)]
    runs = [[(*row, request.content, request.reply) for row, request in zip(sent(world), world.requests, strict=True)] for world in worlds]
    assert runs[0] == runs[1]


def test_waits_are_scaled_and_cut(file):
    path = file(CALLS)
    main = [at for at, _, session in sent(replayed(path, tool_scale=0)) if session == 0]
    assert main == [0.0, 6.0, 8.0, 78.0]
    assert [at for at, _, session in sent(replayed(path, tool_scale=0, think_scale=0.5)) if session == 0][-1] == 44.0
    assert [at for at, _, session in sent(replayed(path, max_wait=1)) if session == 0] == [0.0, 8.0, 11.0, 14.0]


def test_how_sessions_begin(file):
    path = file(TABLE)
    with pytest.raises(BadInput, match="give rate"):
        replayed(path)
    users = sent(replayed(path, concurrency=2))
    assert [row for row in users if row[1] == 100] == [(0.0, 100, 0), (0.0, 100, 1), (4.0, 100, 2), (4.0, 100, 3), (8.0, 100, 4)]
    many = replayed(path, rate=3, num_sessions=400)
    begins = [at for at, prompt, _ in sent(many) if prompt == 100]
    assert len(begins) == 400
    assert begins[-1] / 400 == pytest.approx(1 / 3, rel=0.25)
    some = sent(replayed(path, rate=3, num_sessions=400, duration=10))
    assert [at for at, prompt, _ in some if prompt == 100] == [at for at in begins if at < 10]
    later = sent(replayed(file(CALLS), rate_scale=2, start=10))
    assert later[:2] == [(10.0, 1000, 0), (12.5, 800, 2)]
    assert [row[1] for row in sent(replayed(file(CALLS), sessions=["b"]))] == [800, 700]
    with pytest.raises(BadInput, match="did you mean"):
        replayed(file(CALLS), sessions=["bb"])
    with pytest.raises(BadInput, match="need rate or concurrency"):
        replayed(file(CALLS), num_sessions=3)


def test_a_session_ends_when_a_call_is_turned_away(file):
    world = replayed(file(DAG), refuse=lambda request: request.prompt == 130)
    # What was under way goes on; nothing more is sent.
    assert [request.prompt for request in world.requests] == [100, 40, 50, 130]
    assert {status for (status,) in table(world, "agents", "status")} == {"failed"}
    away = replayed(file(TABLE), concurrency=1, refuse=lambda request: True)
    assert [request.arrival for request in away.requests] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(("how", "prompts", "said"), [
    ("end", [1000, 800, 700, 400, 600], "1 of 2 sessions reach a call longer than 1300"),
    ("drop", [800, 700], "left out 1 of 2 sessions"),
    ("truncate", [1000, 800, 700, 400, 600, 1200, 1200, 1200], "cut 3 of 8 prompts"),
])  # fmt: skip
def test_contexts_that_are_too_long(file, how, prompts, said):
    world = replayed(file(CALLS), max_context=1300, too_long=how)
    assert [request.prompt for request in world.requests] == prompts
    assert said in " ".join(world.remarks)
    assert all(request.content is None or request.content.ends[-1] <= request.prompt for request in world.requests)
    with pytest.raises(BadInput, match="every session has a call"):
        replayed(file(CALLS), max_context=100, too_long="drop")


def test_system_prompts_may_be_shared_between_sessions(file):
    two = f"[{WEKA}, {WEKA.replace('trace_1', 'trace_2')}]"
    own = replayed(file(two), concurrency=2).requests
    assert shared(own[0], own[1]) == 0
    alike = replayed(file(two), concurrency=2, system="shared").requests
    assert [request.prompt for request in alike[:4]] == [200, 200, 128, 128]
    assert (shared(alike[0], alike[1]), shared(alike[2], alike[3])) == (128, 64)
    assert shared(alike[0], alike[-1]) == 128
    assert shared(alike[-1], own[-1]) == 0
    front = replayed(file(two), concurrency=2, shared_prefix=150).requests
    assert shared(front[0], front[1]) == 150
    with pytest.raises(BadInput, match="does not tell how long its system prompts"):
        replayed(file(CALLS), system="shared")
    with pytest.raises(BadInput, match="the same in all"):
        replayed(file(MOONCAKE), shared_prefix=10)


def test_what_is_noted(file):
    world = replayed(file(CALLS))
    assert table(world, "agents", "agent", "root", "parent", "kind", "start", "end", "status", "calls", "tool_calls") == [
        (2, 2, -1, "main", 5.0, 12.0, "completed", 2, 0),
        (0, 0, -1, "main", 0.0, 94.0, "completed", 4, 2),
        (1, 0, 0, "sub", 11.0, 16.0, "completed", 2, 0),
    ]
    for start, end, *seconds in table(world, "agents", "start", "end", "llm_s", "tool_s", "sandbox_s", "join_s", "think_s"):
        assert sum(seconds) == pytest.approx(end - start)
    assert table(world, "agents", "prompt_tokens", "output_tokens")[1] == (5500, 400)
    uses = table(world, "tool_calls", "agent", "tool", "start", "end", "outcome")
    assert uses == [(0, "Task", 2.0, 10.0, "ok"), (0, "Bash", 18.0, 21.0, "ok")]
    turns = table(world, "turns", "agent", "turn", "cause", "context", "new", "gap")
    assert [row for row in turns if row[0] == 0][1:] == [
        (0, 1, "subagent", 1300, 300, 14.0), (0, 1, "tool", 1500, 200, 4.0), (0, 2, "user", 1700, 200, 68.0),
    ]  # fmt: skip
    assert [row[2] for row in turns if row[0] == 1] == ["task", "tool"]


def test_what_is_under_way_at_the_end_is_noted_as_unfinished(file):
    world = World(service=lambda request: 2.0)
    made = WORKLOADS.make(WORKLOADS.check({"kind": "agent_trace", "path": file(CALLS)})[0])
    made.prepare()
    world.env.process(made.drive(world))
    world.env.run(until=15)
    world.closed[0]()
    rows = table(world, "agents", "agent", "status", "end", "calls", "llm_s")
    assert [row[:2] for row in rows] == [(2, "completed"), (0, "unfinished"), (1, "unfinished")]
    assert math.isnan(rows[1][2])
    assert rows[2][3:] == (2, 3.0)


@pytest.mark.parametrize(("options", "key"), [
    ({"format": "callz"}, "format"), ({"rate": 1, "concurrency": 1}, "concurrency"), ({"rate": 1, "rate_scale": 2}, "rate_scale"),
    ({"too_long": "drop"}, "too_long"), ({"system": "shared", "shared_prefix": 3}, "system"), ({"tool_scale": -1}, "tool_scale"),
    ({"max_wait": -1}, "max_wait"), ({"colour": 1}, "colour"),
])  # fmt: skip
def test_options_that_contradict_each_other(options, key):
    _, problems = WORKLOADS.check({"kind": "agent_trace", "path": "x", **options})
    assert [problem.path for problem in problems] == [key]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 30), st.integers(1, 300), st.integers(1, 60), st.integers(0, 400)), min_size=1, max_size=25))
def test_contents_share_what_the_references_say(rows):
    """Against keys written out in full: one for each row's own part, and one for its answer."""
    ref, shares, prompts, plain = [], [], [], []
    for row, (before, prompt, _, wanted) in enumerate(rows):
        before = before if before < row else -1
        most = min(prompt, prompts[before] + rows[before][2]) if before >= 0 else 0
        tokens = min(wanted, most)
        ref.append(before if tokens else -1)
        shares.append(tokens)
        prompts.append(prompt)
        past = [] if not tokens else [*plain[before], *[("answer", before)] * rows[before][2]][:tokens]
        plain.append([*past, *[("own", row)] * (prompt - len(past))])
    found = Shares(ref, shares, prompts, True)
    contents, made = Contents(World(), found, plan(found)), {}
    sent = [contents.of(row, Content((), ()), made)[0] for row in range(len(rows))]
    for row, content in enumerate(sent):
        assert content.ends == tuple(sorted(set(content.ends)))
        assert not content.ends or content.ends[-1] <= prompts[row]
        for other in range(row):
            ends = min(len(plain[row]), len(plain[other]))
            alike = next((i for i, (a, b) in enumerate(zip(plain[row], plain[other], strict=False)) if a != b), ends)
            said = common(content, sent[other])
            assert said <= alike
            if ref[row] == other and shares[row] <= prompts[other]:
                assert said == shares[row]


@pytest.mark.parametrize("sample", ["calls", "aiperf_dag", "weka", "otel"])
def test_the_stretch_engine_answers_as_the_oracle_does(file, sample):
    path, times = file(SAMPLES[sample]), []
    for exact in (False, True):
        engine = {"max_num_seqs": 3, "max_num_batched_tokens": 512, "exact_steps": exact, "block_size": 16}
        pool = {"name": "serve", "gpu": "a100_sxm_80gb", "replicas": 1, "engine": {**engine, "enable_prefix_caching": True}}
        load = {"kind": "agent_trace", "path": path, "concurrency": 4, "num_sessions": 12, "max_wait": 0.05}
        result = run({"name": "x", "seed": 3, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [load]})
        times.append({name: [value for page in result.tables["requests"].pages() for value in page[name].tolist()]
                      for name in ("session", "arrival", "first_token", "last_token", "cached_tokens")})  # fmt: skip
    assert times[0]["session"] == times[1]["session"]
    assert times[0]["cached_tokens"] == times[1]["cached_tokens"]
    for name in ("arrival", "first_token", "last_token"):
        assert times[0][name] == pytest.approx(times[1][name], rel=1e-9)


@pytest.mark.parametrize("sample", ["calls", "aiperf_dag", "weka", "otel"])
def test_the_audit_finds_nothing(file, sample):
    pool = {"name": "serve", "gpu": "h100_sxm", "engine": {"enable_prefix_caching": True}}
    load = {"kind": "agent_trace", "path": file(SAMPLES[sample]), "concurrency": 3, "num_sessions": 7}
    result = run({"name": "x", "seed": 3, "model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": [pool]}, "workloads": [load]})
    assert [name for name, found in audit(result).items() if not found["ok"]] == []
