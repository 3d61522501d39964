"""Trace files: each format, the arithmetic of windows and scales, and real traces."""
from __future__ import annotations

import gzip
import json
from pathlib import Path

import driven
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_samples import AZURE_2023, BAILIAN, BURSTGPT, BURSTGPT_12, CSV, GUIDELLM, MOONCAKE, RESULT, SAMPLES, VLLM, complaint

from sim.core.errors import BadInput
from sim.core.registry import FORMATS, WORKLOADS
from workloads.formats._source import open_source
from workloads.formats.base import load, recognised
from workloads.trace import Trace, spread_ticks

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"


class World(driven.World):
    """Writes down what is sent."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def submit(self, request):
        super().submit(request)
        self.sent.append((self.env.now, request.prompt, request.output, request.session))


@pytest.fixture
def file(tmp_path):
    def write(content, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def sent(**options):
    checked, problems = WORKLOADS.check({"kind": "trace", **options})
    assert problems == []
    trace, world = WORKLOADS.make(checked), World()
    trace.prepare()
    assert trace.expected() > 0
    world.env.process(trace.drive(world))
    world.env.run()
    assert trace.expected() == len(world.sent)
    return world.sent


def times(**options):
    return [at for at, *_ in sent(**options)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sample", SAMPLES)
def test_formats_are_recognised_and_read(file, sample, packed):
    text, form, arrival = SAMPLES[sample]
    path = file(gzip.compress(text.encode()) if packed else text, "trace.txt")
    assert recognised(open_source(path)) == [form]
    for name in ("auto", form):
        rows = load(path, name)
        assert rows.remarks == []
        if arrival is None:
            assert rows.arrival is None
        else:
            np.testing.assert_allclose(rows.arrival, arrival, atol=1e-9)
        assert rows.prompt.dtype == rows.output.dtype == rows.session.dtype == np.int64


def test_lengths_are_read_whole(file):
    assert sent(path=file(AZURE_2023))[2][1:] == (879, 55, -1)
    assert [row[1:3] for row in sent(path=file(SAMPLES["splitwise"][0]))] == [(9, 8), (7, 6)]
    assert [row[1:3] for row in sent(path=file(SAMPLES["other_columns_and_case"][0]))] == [(2, 1), (4, 3)]
    assert [row[1:3] for row in sent(path=file(MOONCAKE))] == [(1758, 500), (1322, 490), (512, 40)]


def test_sessions_are_numbered_in_order_of_appearance(file):
    assert [row[3] for row in sent(path=file(BURSTGPT_12))] == [0, 1, 0, -1]
    assert [row[3] for row in sent(path=file("arrival_s,input_tokens,output_tokens,session_id\n0,1,1,b\n1,1,1,a\n2,1,1,b\n"))] == [0, 1, 0]
    assert [row[3] for row in sent(path=file(BAILIAN))] == [0, 1]


def test_a_wall_clock_is_counted_from_its_earliest_with_a_remark(file):
    rows = load(file("arrival_s,input_tokens,output_tokens\n1700000000,1,1\n1700000005,1,1\n"))
    assert rows.arrival.tolist() == [0.0, 5.0]
    assert "wall clock" in rows.remarks[0]


def test_parquet_with_gaps(tmp_path):
    path = str(tmp_path / "trace.bin")
    pq.write_table(pa.table({"arrival_s": [0.0, 1.0], "input_tokens": [5, 6], "output_tokens": [7, 8], "text": ["a", "b"]}), path)
    assert sent(path=path) == [(0.0, 5, 7, -1), (1.0, 6, 8, -1)]
    pq.write_table(pa.table({"arrival_s": [0.0, 1.0], "input_tokens": [5, None], "output_tokens": [7, 8]}), path)
    [problem] = complaint(path)
    assert problem.message == "row 2: input_tokens is empty; a number is wanted"
    assert problem.line == 0
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:-20])
    assert "damaged or incomplete" in complaint(path)[0].message


def test_mooncake_and_guidellm_lines_are_not_guessed_apart(file):
    path = file(GUIDELLM)
    [problem] = complaint(path)
    assert "this may be jsonl or mooncake" in problem.message
    assert times(path=path, format="jsonl") == [0.0, 0.5]
    assert times(path=path, format="mooncake") == [1234.5, 1234.5005]


def test_formats_without_times_need_a_rate(file):
    path = file(VLLM)
    [problem] = complaint(path)
    assert problem.path == "rate"
    assert [row[1:3] for row in sent(path=path, rate=2)] == [(9, 10), (2, 4)]
    assert times(path=path, rate=2, start=5) == [5 + at for at in times(path=path, rate=2)]
    assert [problem.path for problem in complaint(path, rate=2.0, sort=True, window=(0.0, 1.0))] == ["sort", "window"]
    assert [problem.path for problem in complaint(file(CSV), rate=2.0)] == ["rate"]


def test_prompts_of_text_are_refused_with_the_reason(file):
    [problem] = complaint(file('{"prompt": "What?", "output_tokens": 10}\n'), rate=1.0)
    assert "tokenizer" in problem.message
    assert "prompt_len" in problem.message
    counted = file('{"prompt": "What?", "prompt_token_ids": [5, 6, 7], "output_tokens": 10}\n')
    assert sent(path=counted, rate=1)[0][1:3] == (3, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"input_lens": [1]}, "differ in length"), ({"output_lens": None}, "output_lens is missing"), ({"input_lens": ["x", 1, 2]}, "row 1")],
)
def test_bad_benchmark_results(file, change, words):
    assert words in complaint(file(json.dumps({**RESULT, **change})), rate=1.0)[0].message


def test_window_limit_scale_and_start(file):
    path = file("arrival_s,input_tokens,output_tokens\n" + "".join(f"{at},{at + 1},1\n" for at in range(10)))
    assert times(path=path, window=["3s", "6s"]) == [0, 1, 2]
    assert [row[1] for row in sent(path=path, window=[3, 6])] == [4, 5, 6]
    assert times(path=path, window=[2.5, 6]) == [0.5, 1.5, 2.5]
    assert times(path=path, limit=2, start=100) == [100, 101]
    assert times(path=path, window=[4, 8], rate_scale=2, start=1) == [1, 1.5, 2, 2.5]
    assert times(path=path, window=[4, 8], time_scale=2) == [0, 2, 4, 6]
    [problem] = complaint(path, window=(50.0, 60.0))
    assert problem.path == "window"
    assert "runs from 0 to 9 s" in problem.message


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=50),
    st.floats(0.01, 100),
    st.tuples(st.floats(0, 1e5), st.floats(1e-3, 1e5)),
    st.integers(1, 60),
)
def test_windows_and_scales_commute_with_selection(tmp_path_factory, at, scale, window, limit):
    at = np.sort(np.array(at))
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{x!r},{i + 1},1\n" for i, x in enumerate(at.tolist())))
    begin, end = window[0], window[0] + window[1]
    inside = at[(at >= begin) & (at < end)]
    trace = Trace(path=str(path), window=(begin, end), rate_scale=scale, limit=limit)
    if not len(inside):
        with pytest.raises(BadInput):
            trace.prepare()
        return
    trace.prepare()
    rows = trace._rows
    np.testing.assert_allclose(rows.arrival, (inside[:limit] - begin) / scale, rtol=1e-12)
    assert trace.expected() == min(limit, len(inside))
    # Requests are those of the file, whatever happened to their times.
    first = int(np.searchsorted(at, begin))
    assert rows.prompt.tolist() == list(range(first + 1, first + 1 + trace.expected()))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0.1, 10))
def test_spread_keeps_order_and_stays_within_the_tick(ticks, tick):
    at = np.sort(np.array(ticks, dtype=float))
    spread = spread_ticks(at, tick)
    assert (np.diff(spread) >= 0).all()
    assert ((spread >= at) & (spread < at + tick)).all()
    for stamp in np.unique(at):
        assert spread[at == stamp][0] == stamp


def test_spread_of_mooncake_ticks(file):
    assert times(path=file(MOONCAKE), spread="3s") == [0.0, 1.5, 3.0]


def test_sorting_is_stable_and_asked_for(file):
    path = file("arrival_s,input_tokens,output_tokens\n5,1,1\n1,2,1\n5,3,1\n1,4,1\n")
    [problem] = complaint(path)
    assert problem.line == 3
    assert "2 rows have a time before that of the row above (lines 3, 5)" in problem.message
    assert "`sort: true`" in problem.message
    assert [row[:2] for row in sent(path=path, sort=True)] == [(1, 2), (1, 4), (5, 1), (5, 3)]


def test_rows_without_tokens(file):
    path = file(BURSTGPT.replace(",230,", ",0,"))
    [problem] = complaint(path)
    assert (problem.line, problem.file) == (3, path)
    assert "1 row has no input or no output tokens (line 3); `zero_tokens: skip`" in problem.message
    trace = Trace(path=path, zero_tokens="skip")
    [remark] = trace.prepare()
    assert "left out 1 of 2 rows" in remark
    assert trace.expected() == 1
    assert "no row of it is usable" in complaint(file("arrival_s,input_tokens,output_tokens\n0,0,0\n"), zero_tokens="skip")[0].message


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"format": "azur"}, "format", "did you mean azure?"),
        ({"rate_scale": 2, "time_scale": 2}, "time_scale", "one of them is enough"),
        ({"rate_scale": 0}, "rate_scale", "found 0"),
        ({"window": [5, 5]}, "window", "must end after it begins"),
        ({"zero_tokens": "drop"}, "zero_tokens", "found 'drop'"),
    ],
)
def test_bad_options(options, path, words):
    [problem] = WORKLOADS.check({"kind": "trace", "path": "x.csv", **options})[1]
    assert problem.path == path
    assert words in problem.message


def test_drive_before_prepare_is_a_mistake():
    with pytest.raises(RuntimeError, match="prepare"):
        Trace(path="x").expected()


@pytest.mark.parametrize(
    ("name", "form", "count", "options"),
    [
        ("azure2023_conv.csv.gz", "csv", 19_366, {}),
        ("azure2023_code_t0-1800.csv.gz", "csv", 5_740, {}),
        ("mooncake_conversation_t0-2400.parquet", "parquet", 7_851, {"spread": 3}),
        ("cc_weka_requests_A.parquet", "parquet", 30_277, {"sort": True, "zero_tokens": "skip"}),
    ],
)
def test_real_traces(name, form, count, options):
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"the trace is not at {path}")
    assert recognised(open_source(str(path))) == [form]
    rows = sent(path=str(path), **options)
    assert len(rows) == count
    at = np.array([row[0] for row in rows])
    assert (np.diff(at) >= 0).all()
    assert sent(path=str(path), **options) == rows
    if name == "azure2023_conv.csv.gz":
        assert (rows[0][:3], rows[-1][0]) == ((0.0, 374, 44), pytest.approx(3501.7219))
        assert np.mean([row[1] for row in rows]) == pytest.approx(1154.6974, abs=1e-4)


def test_real_trace_rows_without_tokens_are_found():
    path = TRACES / "cc_weka_requests_A.parquet"
    if not path.exists():
        pytest.skip(f"the trace is not at {path}")
    found = complaint(str(path))
    assert "15 rows have no input or no output tokens (rows " in found[0].message
    assert "a time before that of the row above" in found[1].message


def test_every_format_has_a_sample():
    assert {form for _, form, _ in SAMPLES.values()} | {"parquet"} == set(FORMATS.names())
