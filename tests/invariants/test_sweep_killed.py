"""A sweep killed at any moment: no finished point is lost, none is recorded twice, no file is broken, and the end is as if nothing was."""
from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import sim
from sim.study.journal import NAME, read

SCENARIO = """\
name: tiny
model: meta-llama/Llama-3.1-8B
cluster:
  pools: [{{gpu: h100_sxm}}]
workloads:
  - {{kind: poisson, rate: 20, num_requests: 5, lengths: {{kind: fixed, input: 200, output: 20}}}}
sweep:
  figures: [ttft_s.p99, e2e_s.mean, throughput.output_tokens_per_s]
  space:
    workloads.0.rate: {{range: {{min: 1, max: {rates}, step: 1}}}}
    cluster.pools.0.parallel.tp: [1, 2, 3, 4]
"""
COMMAND = [sys.executable, "-m", "sim.cli", "sweep"]


def start(file, folder, *options):
    # A group of its own, so that nothing that it started outlives the test.
    return subprocess.Popen([*COMMAND, str(file), "-o", str(folder), "-q", "--no-report", *options], start_new_session=True)


def end(process):
    for kill in (process.kill, lambda: os.killpg(process.pid, signal.SIGKILL)):
        with contextlib.suppress(ProcessLookupError):
            kill()
    process.wait()


def rows_of(folder):
    return read(folder)[1] if (folder / NAME).is_file() else []


def killed_and_resumed(tmp_path, rates, kills, wait):
    """Kill a sweep of 4 x `rates` points `kills` times, each after `wait(folder, process)`, then let it end; and run it undisturbed."""
    file, folder, calm = tmp_path / "x.yaml", tmp_path / "o", tmp_path / "calm"
    file.write_text(SCENARIO.format(rates=rates))
    before, progress = [], []
    for _ in range(kills):
        process = start(file, folder, "--jobs", "2")
        try:
            wait(folder, process)
        finally:
            end(process)
        rows = rows_of(folder)
        assert rows[: len(before)] == before  # nothing that was finished is lost, or has changed
        before, _ = rows, progress.append(len(rows))
    for place in (folder, calm):
        sim.sweep(file, folder=place, crew=1)
    rows = rows_of(folder)
    assert rows[: len(before)] == before
    # A second row of a point would have been refused on reading.
    assert sorted(row["point"] for row in rows) == list(range(4 * rates))
    tables = [pd.read_parquet(place / "points.parquet").drop(columns="seconds") for place in (folder, calm)]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["error"].notna().sum() == rates
    assert sorted(path.name for path in folder.iterdir()) == [".lock", NAME, "points.parquet", "scenario.yaml"]
    return progress


def test_killed_once_it_goes_on_where_it_was(tmp_path):
    def some_rows(folder, process):
        while len(rows_of(folder)) < 2:
            assert process.poll() is None
            time.sleep(0.01)

    assert killed_and_resumed(tmp_path, 3, 1, some_rows)[0] >= 2


@pytest.mark.study
def test_200_points_killed_20_times_at_random_moments(tmp_path):
    luck = random.Random(os.urandom(8))

    def some_time(folder, process):
        """Most times within the next 15 points, else at any moment from the very start on."""
        if luck.random() < 0.75:
            wanted = len(rows_of(folder)) + luck.randrange(15)
            while len(rows_of(folder)) < wanted and process.poll() is None:
                time.sleep(0.005)
            time.sleep(luck.uniform(0, 0.1))
        else:
            time.sleep(luck.uniform(0, 3))

    progress = killed_and_resumed(tmp_path, 50, 20, some_time)
    print(f"rows after each kill: {progress}")
    assert len(progress) == 20
    assert 20 < progress[-1] < 200
