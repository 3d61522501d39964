"""The journal of a sweep: what is in it stays, what a kill tears is dropped, and one process writes at a time."""
from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim.study.journal
from sim.core.errors import BadInput
from sim.study.journal import NAME, Journal, differences, read

HEADER = {"version": "1", "scenario": {"seed": 1, "cluster": {"pools": [{"replicas": 2}]}}}
ROWS = [{"point": point, "replication": replication, "figures": {"x": point / 3}} for point in range(3) for replication in range(2)]


def keep(folder, rows, header=HEADER, **options):
    with Journal(folder, header, **options) as journal:
        for row in rows:
            journal.put(row)
    return folder / NAME


def test_examples():
    assert doctest.testmod(sim.study.journal).attempted > 0
    assert doctest.testmod(sim.study.journal).failed == 0


def test_rows_come_back_as_they_were(tmp_path):
    keep(tmp_path / "new" / "folder", ROWS)
    header, rows = read(tmp_path / "new" / "folder")
    assert rows == ROWS
    assert {key: header[key] for key in HEADER} == HEADER


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return keep(tmp_path_factory.mktemp("whole"), ROWS).read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cut_at_any_byte_it_keeps_whole_rows_and_goes_on_to_the_same_end(whole, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    first = whole.index(b"\n") + 1  # the header is put in place whole
    cut = data.draw(st.integers(first, len(whole)))
    (folder / NAME).write_bytes(whole[:cut])
    with Journal(folder, HEADER) as journal:
        assert ROWS[: len(journal.rows)] == journal.rows
        assert len(journal.rows) == whole[:cut].count(b"\n") - 1
        for row in ROWS[len(journal.rows) :]:
            journal.put(row)
    assert (folder / NAME).read_bytes() == whole


def test_a_last_line_of_rubbish_is_dropped_and_one_in_the_middle_is_not(tmp_path):
    path = keep(tmp_path, ROWS[:2])
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0\n")
    assert read(tmp_path)[1] == ROWS[:2]
    path.write_bytes(whole.replace(b'{"point": 0, "replication": 0', b"\0\0", 1))
    with pytest.raises(BadInput, match=rf"{NAME}:2: is damaged; begin the sweep anew with --force"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no journal of a sweep"),
        ('{"some": "json"}\n', "is no journal of a sweep"),
        ('{"format": 99, "version": "7.1"}\n', "was written in format 99; this version of burstsim reads format 1; use the version that"),
        ('{"format": 1}\n{"point": 1}\n', "is no row of a sweep"),
        ('{"format": 1}\n{"point": 1, "replication": 0}\n{"point": 1, "replication": 0}\n', "has point 1, replication 0 a second time"),
    ],
)  # fmt: skip
def test_what_is_no_journal_is_said(tmp_path, text, said):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(BadInput) as error:
        Journal(tmp_path, HEADER)
    assert said in str(error.value)
    assert str(tmp_path / NAME) in str(error.value)


def test_another_sweep_is_refused_with_the_difference_and_replaced_with_force(tmp_path):
    keep(tmp_path, ROWS[:1])
    other = {**HEADER, "scenario": {"seed": 1, "cluster": {"pools": [{"replicas": 3, "name": "a"}]}}}
    with pytest.raises(BadInput) as error:
        Journal(tmp_path, other)
    assert "scenario.cluster.pools.0.replicas: 2 -> 3" in str(error.value)
    assert 'scenario.cluster.pools.0.name: nothing -> "a"' in str(error.value)
    assert read(tmp_path)[1] == ROWS[:1]
    keep(tmp_path, [], other, force=True)
    assert read(tmp_path)[1] == []
    keep(tmp_path, ROWS)  # without rows there is nothing to lose
    assert list(differences(read(tmp_path)[0], {"format": 1, **HEADER})) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(BadInput, match="is not empty and holds no sweep"):
        Journal(tmp_path, HEADER, force=True)
    with pytest.raises(BadInput, match="holds no sweep"):
        read(tmp_path)


def test_a_full_disk_leaves_whole_rows(tmp_path, monkeypatch):
    with Journal(tmp_path, HEADER) as journal:
        journal.put(ROWS[0])

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.put(ROWS[1])
        monkeypatch.undo()
        journal.put(ROWS[2])
    assert read(tmp_path)[1] == [ROWS[0], ROWS[2]]


HOLD = """
import sys
from pathlib import Path
from sim.study.journal import Journal
with Journal(Path(sys.argv[1]), {}) as journal:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_write_and_a_dead_ones_lock_is_none(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match=rf"is being written by process {other.pid}; wait for it"):
            Journal(tmp_path, {})
        other.kill()
    keep(tmp_path, ROWS, {})
    assert json.loads((tmp_path / NAME).read_text().splitlines()[-1]) == ROWS[-1]
    assert Path(tmp_path / ".lock").read_text().strip() == str(os.getpid())
