"""The file of a timeline: its bytes, its memory, the parts it is made of, and the verbs that write it."""
from __future__ import annotations

import gzip
import io
import json
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from perfetto import Timeline
from synthetic import queue
from test_timeline import CHAT

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.core.record import CHUNK
from sim.study.timeline.level import Lanes, Level
from sim.study.timeline.sizes import LEAST
from sim.study.timeline.stream import Trace, evenly, said


@pytest.fixture(scope="module")
def chat():
    return sim.run(CHAT)


# -- the file ----------------------------------------------------------------
def test_the_same_run_gives_the_same_bytes(chat, tmp_path):
    first = chat.trace(tmp_path / "a.json.gz").read_bytes()
    saved = sim.Result.open(chat.save(tmp_path / "out"))
    assert saved.trace(tmp_path / "b.json.gz").read_bytes() == first
    assert first[3:8] == bytes(5), "the header of the archive tells no name and no time"


def test_memory_does_not_grow_with_the_run(tmp_path):
    peaks = []
    for chunks in (4, 24):
        result = queue(0.5, 50)
        table = result.tables["stretches"]
        rows = {c.name: np.resize(table[c.name], CHUNK) for c in table.columns}
        rows["seconds"] = np.full(CHUNK, 0.5e-3)
        assert len(result.tables["replicas"]["end"]) == 1
        table._chunks = [rows | {"start": np.arange(number * CHUNK, (number + 1) * CHUNK) * 1e-3} for number in range(chunks)]
        table._chunked = chunks * CHUNK
        result.meta["sim_s"] = chunks * CHUNK * 1e-3
        result.tables["replicas"]._chunks[0]["end"][:] = result.meta["sim_s"]
        tracemalloc.start()
        timeline = result.trace(tmp_path / "trace.json.gz", events=LEAST)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert json.loads(gzip.decompress(timeline.read_bytes()))["otherData"]["stretches"]["of"] == 24 * CHUNK
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 12 * 2**20


@given(st.lists(st.floats(1e-7, 10.0), min_size=2, max_size=30), st.floats(0.0, 1e5), st.floats(-1e-10, 1e-10))
def test_what_touches_does_not_overlap(lengths, first, noise):
    edges = first + np.cumsum(lengths)
    with Trace(io.BytesIO(), 2e5) as trace:
        begin, until = trace.spans(edges[:-1], edges[1:] + noise)
    assert all(a <= b for a, b in zip(begin, until, strict=True))
    assert all(end <= later for end, later in zip(until, begin[1:], strict=False))


def test_levels_of_few_and_of_many():
    starts, ends = np.array([0.0, 1.0, 2.0, np.nan]), np.array([3.0, 4.0, np.nan, 9.0])
    few, many = Level(10.0, 4, 100), Level(10.0, 400, 11)
    for level in (few, many):
        level.add(starts, ends)
    assert few.series()[0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 10.0]
    assert few.series()[1].tolist() == [1.0, 2.0, 3.0, 2.0, 1.0, 0.0]
    assert many.series()[1].tolist() == pytest.approx([1, 2, 3, 2, 1, 1, 1, 1, 1, 1, 0])


def test_lanes_are_as_few_as_can_be(tmp_path):
    with (tmp_path / "x").open("wb") as file, Trace(file, 10.0) as trace:
        lanes = Lanes(trace, trace.process("agents"), "lane")
        threads = [lanes.place(*span)[1] for span in ((0, 5), (1, 3), (2, 9), (3, 4), (5, 6))]
    assert [thread - threads[0] for thread in threads] == [0, 1, 2, 1, 0]


def test_arguments_leave_out_what_is_not_there():
    assert said(a=None, b=float("nan"), c=0.123456789, d=0, e="x") == '{"c":0.123457,"d":0,"e":"x"}'
    assert [evenly(count, most) for count, most in ((0, 5), (5, 5), (6, 5), (11, 5), (3, 0))] == [1, 1, 2, 3, 3]


# -- the verbs ----------------------------------------------------------------
@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "chat.yaml"
    path.write_text(sim.dump(sim.loads(CHAT)), encoding="utf-8")
    return path


def burstsim(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_run_and_report_write_it(scenario, tmp_path, monkeypatch):
    monkeypatch.setattr("sim.report.page.render", lambda result: "the page")
    done = burstsim("run", scenario, "-o", tmp_path / "out", "--no-report", "--trace", "--trace-requests", 10, "-q")
    assert done.exit_code == 0, done.output
    file = tmp_path / "out" / "trace.json.gz"
    assert Timeline(file).notes["requests"] == {"shown": 10, "of": 300}
    before = file.read_bytes()
    again = burstsim("report", tmp_path / "out", "--trace", "--trace-requests", 10)
    assert (again.exit_code, again.stderr) == (0, f"written to {file}\nwritten to {tmp_path / 'out' / 'report.html'}\n")
    assert file.read_bytes() == before
    assert burstsim("report", tmp_path / "out").exit_code == 0
    assert file.read_bytes() == before


@pytest.mark.parametrize(("args", "said"), [
    (["--trace"], "name one with -o"),
    (["-o", "out", "--trace-limit", "20000"], "--trace-limit says how much of a timeline is written; give --trace as well"),
    (["-o", "out", "--trace", "--trace-limit", "100"], "10000 or more are wanted"),
    (["-o", "out", "--trace", "--trace-requests", "-1"], "0 or more are wanted"),
    (["-o", "out", "--trace", "--replications", "2"], "`burstsim report DIR --trace`"),
])  # fmt: skip
def test_what_cannot_be_traced_is_said_before_the_run(scenario, tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    done = burstsim("run", scenario, *args)
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "what"), [
    ("ladder", "ladder"), ("comparison", "comparison"), ("plan", "plan"), ("capacity", "capacity"), ("pareto", "frontier"),
])  # fmt: skip
def test_a_folder_without_a_run_is_said(tmp_path, name, what):
    (tmp_path / f"{name}.json").write_text("{}")
    done = burstsim("report", tmp_path, "--trace")
    assert (done.exit_code, f"holds a {what}; a timeline is of one run" in done.output) == (2, True)


def test_a_folder_that_is_not_there_is_said(chat, tmp_path):
    with pytest.raises(BadInput, match="cannot write"):
        chat.trace(tmp_path / "nowhere" / "trace.json.gz")
    assert not list(tmp_path.glob(".*"))
