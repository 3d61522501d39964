"""Recordings of agents become scripts: who waits for whom and for how long, what prompts share, and what is wrong with bad files."""
from __future__ import annotations

import json
import math
import re

import pytest
from agent_samples import CALLS, DAG, MOONCAKE, OTEL, SAMPLES, SPANS, TRACELAB, WEKA, span

from sim.core.errors import BadInput
from sim.core.registry import AGENT_FORMATS
from workloads.formats._source import Findings, Source
from workloads.programs.readers.base import Reading, load
from workloads.programs.script import cycle


@pytest.fixture
def read(tmp_path):
    def of(text, format="auto", **how):
        path = tmp_path / "recording.jsonl"
        path.write_text(text)
        return load([str(path)], format, Reading(**how))

    return of


def graph(found):
    """(agent, prompt, output, after, wait, cause) of each call."""
    return [(call.agent, call.prompt, call.output, call.after, round(call.wait, 6), call.cause) for call in found.calls]


@pytest.mark.parametrize("name", AGENT_FORMATS.names())
def test_only_the_right_reader_takes_a_file(name):
    taken = [known for known in AGENT_FORMATS.names()
             if AGENT_FORMATS.find(known)().sniff(Source("x", SAMPLES[name].encode(), Findings("x")))]  # fmt: skip
    assert taken == [name]
    for data in (b"hello", b"a,b\n1,2\n", b"{}\n", b"[1, 2]\n"):
        assert AGENT_FORMATS.find(name)().sniff(Source("x", data, Findings("x"))) is False


def test_a_table_of_calls(read):
    found = read(CALLS)
    assert graph(found) == [
        (0, 1000, 100, (), 0.0, "user"),
        (0, 1300, 100, (0, 5), 0.0, "subagent"),
        (0, 1500, 100, (1,), 4.0, "tool"),
        (0, 1700, 100, (2,), 68.0, "user"),
        (1, 400, 50, (0,), 9.0, "spawn"),
        (1, 600, 60, (4,), 1.0, "tool"),
        (0, 800, 10, (), 0.0, "user"),
        (0, 700, 10, (6,), 3.0, "tool"),
    ]
    assert [(script.name, script.start, script.agents) for script in found.sessions] == [("a", 0, ("main", "sub")), ("b", 5, ("main",))]
    assert found.shares.ref == [-1, -1, 1, 0, 3, 4, -1, 6]
    assert found.shares.shared == [0, 0, 400, 1000, 1300, 1500, 0, 500]
    assert [tool.name for call in found.calls for tool in call.tools] == ["Task", "Bash"]


def test_weka_sub_agents_ran_before_the_time_written(read):
    found = read(WEKA)
    # 12 s less its 10 s is the end of the call before; its last answer is there at 11 s, and the next call was sent at 13.
    assert graph(found) == [
        (0, 200, 10, (), 0.0, "user"),
        (0, 330, 10, (0, 3), 2.0, "subagent"),
        (1, 128, 5, (0,), 0.0, "spawn"),
        (1, 192, 5, (2,), 7.0, "tool"),
    ]
    assert found.sessions[0].agents == ("main", "Explore")
    assert found.sessions[0].system == (128, 64)
    assert math.isnan(found.sessions[0].start)
    assert found.shares.shared == [0, 0, 128, 192]
    assert found.shares.ref == [-1, -1, 1, 0]


def test_a_folder_of_sessions(tmp_path):
    for number in range(3):
        (tmp_path / f"trace_{number}.json").write_text(WEKA.replace("trace_1", f"trace_{number}"))
    found = load([str(tmp_path)])
    assert [script.name for script in found.sessions] == ["trace_0", "trace_1", "trace_2"]
    assert [(script.first, script.size) for script in found.sessions] == [(0, 4), (4, 4), (8, 4)]
    assert found.calls[9].after == (8, 11)
    assert found.shares.ref[7] == 4
    assert not found.across


def test_mooncake_ids_reach_across_sessions(read):
    found = read(MOONCAKE)
    assert graph(found) == [(0, 1000, 100, (), 0.0, "user"), (0, 1600, 20, (0,), 0.25, "tool"), (0, 1024, 10, (), 0.0, "user")]
    assert [script.start for script in found.sessions] == [0.0, 2.0]
    assert (found.shares.ref, found.shares.shared, found.across) == ([-1, 0, 0], [0, 512, 1000], True)


def test_mooncake_inputs_may_be_what_is_new(read):
    plain = re.sub(r', "hash_ids": \[[0-9, ]*\]', "", MOONCAKE)
    found = read(plain, whole=False)
    assert [call.prompt for call in found.calls] == [1000, 2700, 1024]
    assert found.shares.shared == [0, 0, 1100]
    assert read(plain).shares.shared == [0, 0, 1100]


def test_tracelab(read):
    found = read(TRACELAB)
    assert graph(found) == [(0, 2318, 200, (), 0.0, "user"), (0, 2866, 131, (0,), 0.3, "tool"), (0, 720, 7, (), 0.0, "user")]
    assert found.shares.shared == [0, 2518, 0]
    assert [(script.start, script.system) for script in found.sessions] == [(0.0, (0,)), (3.0, (700,))]


def test_a_dag_of_spawns_forks_and_joins(read):
    found = read(DAG)
    assert graph(found) == [
        (0, 100, 10, (), 0.0, "user"),
        (0, 130, 5, (0,), 0.5, "tool"),
        (0, 165, 5, (1, 3, 5), 0.0, "subagent"),
        (1, 40, 4, (0,), 0.0, "spawn"),
        (2, 50, 5, (0,), 0.0, "spawn"),
        (2, 58, 1, (4,), 0.25, "tool"),
        # It goes on after turn 1 of the root: 130 + 5 tokens and two of its own.
        (3, 137, 3, (1,), 0.0, "spawn"),
    ]
    assert found.shares.ref == [-1, 0, 1, -1, -1, 4, 1]
    assert found.shares.shared == [0, 110, 135, 0, 0, 55, 135]
    assert found.sessions[0].agents == ("main", "x", "y", "f")
    assert "characters" in found.remarks[0]


def test_spans_of_a_trace(read):
    found = read(OTEL)
    assert graph(found) == [
        (0, 100, 10, (), 0.0, "user"),
        (0, 150, 10, (0, 3), 1.0, "subagent"),
        (1, 50, 5, (0,), 1.0, "spawn"),
        (1, 80, 5, (2,), 2.0, "tool"),
    ]
    assert found.sessions[0].agents == ("main", "scout")
    assert found.calls[1].tools == (("search", 1.0, 6.0),)
    assert sorted(found.shares.shared) == [0, 0, 55, 110]


def test_calls_that_overlap_run_side_by_side(read):
    spans = [span("a", None, "chat", 0, 2, input=9, output=1), span("b", None, "chat", 3, 9, input=9, output=1),
             span("c", None, "chat", 4, 6, input=9, output=1), span("d", None, "chat", 12, 13, input=9, output=1)]  # fmt: skip
    found = read(json.dumps({"spans": spans}))
    assert [(call.after, round(call.wait, 6)) for call in found.calls] == [((), 0.0), ((0,), 1.0), ((0,), 2.0), ((1, 2), 3.0)]


def test_calls_without_tokens(read):
    text = CALLS.replace("a,main,14,1300,100", "a,main,14,1300,0")
    with pytest.raises(BadInput) as error:
        read(text)
    assert "zero_tokens: skip" in str(error.value)
    assert ".jsonl:5:" in str(error.value)
    one, left = read(text, zero_tokens="one"), read(text, zero_tokens="skip")
    assert one.calls[1].output == 1
    assert "took 1 token for 0 in 1 of 8 calls" in one.remarks[0]
    # Who waited for it waits for what it waited for, and as much longer.
    assert [(call.prompt, call.after, call.wait) for call in left.calls][1:4] == [(1500, (0, 4), 4.0), (1700, (1,), 68.0), (400, (0,), 9.0)]
    assert [(script.first, script.size) for script in left.sessions] == [(0, 5), (5, 2)]


def changed(text, **keys):
    """The first line of JSON lines with some keys changed."""
    first, rest = text.split("\n", 1)
    return json.dumps(json.loads(first) | keys) + "\n" + rest


LONELY = json.dumps({"spans": [*SPANS, span("z", "gone", "chat", 1, 2, input=1, output=1)]})
RING = json.dumps({"spans": [span("p", "q", "chat", 0, 1, input=1, output=1), span("q", "p", "chat", 0, 1, input=1, output=1)]})
BAD = {
    "a session without a name": (CALLS.replace("b,main,5", ",main,5"), ":8:", "session_id is empty"),
    "a parent that is missing": (CALLS.replace("100,2,3,1300", "100,2,9,1300"), ":6:", "prefix_ref is 9; an earlier row of its session"),
    "a parent that comes later": (CALLS.replace("60,1,1,400", "60,1,3,400"), ":4:", "prefix_ref is 3"),
    "more than there is to share": (CALLS.replace("100,2,0,1000", "100,2,0,1200"), ":5:", "prefix_tokens makes 1200"),
    "a negative answer time": (CALLS.replace("1300,100,2", "1300,100,-2"), ":5:", "api_time_s is -2; a time from 0"),
    "a word for a time": (CALLS.replace("1300,100,2", "1300,100,soon"), ":5:", "api_time_s is 'soon'"),
    "ids that do not fit": (MOONCAKE.replace("[1, 9]", "[1]"), ":2:", "1024 input tokens are 2 blocks of 512"),
    "a negative delay": (MOONCAKE.replace("250", "-250"), ":3:", "delay is -250"),
    "a prefix of nothing": (TRACELAB.replace("1,2518", "1,2519"), ":3:", "prefix_len is 2519; the round before it and its answer have"),
    "a negative wait": (TRACELAB.replace(",300", ",-300"), ":2:", "tool_wait_after_ms is -300"),
    "a child without a line": (DAG.replace('"x", "y"', '"x", "z"'), ":1:", "spawns 'z', which has no line"),
    "a child of two": (DAG.replace('["f"]', '["x"]'), ":1:", "session x is spawned by root and by root"),
    "a ring": (DAG.replace('th": 4}', 'th": 4, "spawns": [{"children": ["root"]}]}'), ":1:", "root -> x -> root"),
    "a join before the spawn": (DAG.replace('"join_at": 2', '"join_at": 0'), ":1:", "join_at is 0; a turn after 0"),
    "no turns": (changed(DAG, turns=[]), ":1:", "has no turns"),
    "no answer length": (DAG.replace(', "max_tokens": 5', ""), ":1:", "no output_length or max_tokens; `output_tokens` says"),
    "rounds": (changed(DAG, rounds=3), ":1:", "rounds are not read"),
    "an empty session": (json.dumps(json.loads(WEKA) | {"requests": []}), "recording", "has no request of its own"),
    "ids of the wrong number": (WEKA.replace("[1, 2, 3]", "[1]"), "row 1", "200 input tokens are 3 or 4 blocks of 64"),
    "a block size of nothing": (WEKA.replace('"block_size": 64', '"block_size": 0'), "recording", "block_size is 0"),
    "a negative time": (WEKA.replace('"t": 13.0', '"t": -1'), "row 4", "t is -1"),
    "a span without usage": (OTEL.replace("gen_ai.usage.input_tokens", "usage", 1), "span 2", "gen_ai.usage.input_tokens is missing"),
    "a span that ends early": (OTEL.replace("10:00:12", "10:00:08"), "span 7", "ends 2 s before it begins"),
    "a span without a parent": (LONELY, "span 8", "its parent gone is missing"),
    "spans in a ring": (RING, "recording", "each other's parents: p -> q -> p"),
    "no call": (json.dumps({"spans": [SPANS[0]]}), "recording", "no span of a call"),
}


@pytest.mark.parametrize(("text", "where", "what"), BAD.values(), ids=BAD)
def test_bad_recordings_are_refused_with_the_place(read, text, where, what):
    with pytest.raises(BadInput) as error:
        read(text)
    assert where in str(error.value)
    assert what in str(error.value)


def test_files_of_no_known_format_and_of_several(tmp_path):
    (tmp_path / "a.csv").write_text("hello\n")
    with pytest.raises(BadInput, match="not recognised"):
        load([str(tmp_path)])
    (tmp_path / "a.csv").write_text(CALLS)
    (tmp_path / "b.csv").write_text(TRACELAB)
    with pytest.raises(BadInput, match="one format for all files"):
        load([str(tmp_path)])
    with pytest.raises(BadInput, match="looks like format calls"):
        load([str(tmp_path / "a.csv")], "tracelab")


def test_a_cycle_is_found_wherever_it_is():
    assert cycle([[], [0], [3], [4], [2]]) == [2, 3, 4]
    assert cycle([[1, 2], [3], [3], []]) == []
