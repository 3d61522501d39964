"""Sweeps on a Ray and on a Dask cluster, started here on this machine; and what is said of a cluster that is not there."""
from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from scenarios import written
from test_sweep import TINY

import sim
from sim.core.errors import BadInput
from sim.study.workers import Crew

SWEEP = "sweep: {space: {workloads.0.rate: [5, 10, 20, 40], cluster.pools.0.parallel.tp: [1, 3]}, figures: [ttft_s.p99]}\n"
RAY = """
import ray, sys
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
DASK = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
CLUSTERS = {"ray": RAY, "dask": DASK}
LIBRARIES = {"ray": "ray", "dask": "distributed"}


@contextlib.contextmanager
def cluster(backend, tmp_path):
    """A cluster in a process of its own; yields its address."""
    pytest.importorskip(LIBRARIES[backend], reason=f"{backend} is not installed: pip install 'burstsim[{backend}]'")
    script = tmp_path / f"{backend}_cluster.py"
    script.write_text(CLUSTERS[backend])
    # A token would be kept in the home folder of whoever runs the tests.
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def swept(file, *options):
    words = [sys.executable, "-m", "sim.cli", "sweep", str(file), "--json", "-q", "--no-report", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_a_cluster_gives_the_same_rows(backend, tmp_path):
    file = written(tmp_path, TINY + SWEEP)
    with cluster(backend, tmp_path) as address:
        there = swept(file, "--backend", backend, "--address", address, "-o", str(tmp_path / "o"))
    assert there.returncode == 0, there.stderr
    here = sim.sweep(file, crew=1).rows
    rows = [[{key: value for key, value in row.items() if key != "seconds"} for row in some] for some in (json.loads(there.stdout), here)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 8
    assert (tmp_path / "o" / "points.parquet").is_file()


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_an_address_where_nothing_answers_is_said_within_seconds(backend, tmp_path, monkeypatch):
    pytest.importorskip(LIBRARIES[backend], reason=f"{backend} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr("sim.study.workers.PATIENCE", 0.3)
        began = time.monotonic()
        with pytest.raises(BadInput, match=rf"what listens at 127\.0\.0\.1:{port} is no {backend.capitalize()} cluster"):
            Crew(backend, address=f"127.0.0.1:{port}").check()
        assert time.monotonic() - began < 5
    with pytest.raises(BadInput, match=rf"no {backend.capitalize()} cluster can be reached at 127\.0\.0\.1:{port}: connection refused"):
        Crew(backend, address=f"127.0.0.1:{port}").check()
    with pytest.raises(BadInput, match="no-such-host"):
        Crew(backend, address="no-such-host.invalid:80").check()


@pytest.mark.parametrize("backend", ["ray", "dask"])
@pytest.mark.parametrize(
    ("jobs", "address", "said"),
    [(None, None, "needs the address of its"), (2, "h:1", "jobs are processes of this machine"), (None, "head", "HOST:PORT of the"),
     (None, "head:99999", "HOST:PORT of the")],
)  # fmt: skip
def test_what_a_cluster_needs_is_said(backend, jobs, address, said):
    pytest.importorskip(LIBRARIES[backend], reason=f"{backend} is not installed")
    with pytest.raises(BadInput, match=said):
        Crew(backend, jobs, address).check()


def test_a_backend_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"backend ray is not installed; get it with: pip install 'burstsim\[ray\]'"):
        Crew("ray", address="127.0.0.1:1").check()
