"""The command line: what it prints where, what it writes, and how it leaves."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import types

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from scenarios import GOOD, written

from sim.cli import main
from sim.core.errors import BadInput
from sim.core.registry import FAMILIES
from sim.report.progress import progress
from sim.report.text import block
from sim.spec.load import dump, loads
from sim.spec.yaml_marks import parse

TIMES = {"mean": 0.1, "p50": 0.09, "p90": 0.2, "p95": 0.25, "p99": 0.3}
SUMMARY = {
    "verdict": "stable",
    "verdict_reason": "queues stay short",
    "requests": {"arrived": 10, "completed": 9, "rejected": 1, "failed": 0, "unfinished": 0},
    "ttft_s": TIMES, "tpot_s": TIMES, "itl_s": None, "e2e_s": TIMES, "queue_s": TIMES,
    "throughput": {"requests_per_s": 1.5, "output_tokens_per_s": 150.0, "total_tokens_per_s": 1500.0, "output_tokens_per_s_per_gpu": 75.0},
    "slo": {"attainment": None, "goodput_requests_per_s": None, "target": None, "limits": [], "met": None},
    "gpu": {"count": 2, "busy_fraction": 0.5, "mfu": 0.1, "mbu": 0.2},
    "kv": {"peak_fraction": 0.25, "mean_fraction": 0.1, "preemptions": 0, "prefix_hit_rate": None},
    "cost": {"usd_per_hour": 6.0, "usd_per_million_output_tokens": None},
    "energy": {"kwh": 0.5, "joules_per_output_token": 2.0},
    "provenance": {"worst": "datasheet", "extrapolated": False, "extrapolations": []},
    "audit": {"I1": {"ok": True, "checked": 9, "detail": "holds"}},
    "run": {"seed": 1, "sim_s": 6.0, "cpu_s": 0.1, "events": 100, "version": "0.1.0", "digest": "00"},
}
MISSED = {"attainment": 0.5, "goodput_requests_per_s": 0.7, "target": 0.99, "met": False,
          "limits": [{"limit": "ttft_p99", "limit_s": 0.2, "measured_s": 0.3, "ok": False}]}
MET = MISSED | {"attainment": 1.0, "met": True, "limits": []}
BROKEN = {"I1": {"ok": True, "checked": 9, "detail": "holds"}, "I3": {"ok": False, "checked": 9, "detail": "last before first: 1 rows"}}


class Simulator:
    """Stands in for study/run.py: remembers what it was asked and gives a result of the summary wanted."""

    def __init__(self):
        self.summary = SUMMARY
        self.error = None
        self.calls = []

    def run(self, scenario, *, watch=None):
        self.calls.append((scenario, watch))
        if self.error:
            raise self.error
        return self

    def save(self, folder, force=False, pages=None, files=None):
        folder.mkdir()
        (folder / "saved").write_text(f"{force} {sorted(pages)}")


@pytest.fixture
def simulator(monkeypatch):
    fake = Simulator()
    monkeypatch.setitem(sys.modules, "sim.study.run", types.SimpleNamespace(run=fake.run))
    return fake


@pytest.fixture
def scenario(tmp_path):
    return written(tmp_path, GOOD)


def burstsim(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_prints_the_block_and_writes_nothing(simulator, scenario, tmp_path):
    done = burstsim("run", scenario)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == block(SUMMARY) + "\n"
    assert list(tmp_path.iterdir()) == [scenario]


def test_writes_and_says_where(simulator, scenario, tmp_path):
    done = burstsim("run", scenario, "-o", tmp_path / "out", "--no-report", "--seed", 7, "--set", "cluster.pools.0.replicas=3")
    assert done.exit_code == 0
    assert done.stderr == f"written to {tmp_path / 'out'}\n"
    assert (tmp_path / "out" / "saved").read_text() == "False []"
    asked = simulator.calls[0][0]
    assert (asked.seed, asked.cluster.pools[0].replicas) == (7, 3)


def test_json_and_quiet(simulator, scenario, tmp_path):
    assert json.loads(burstsim("run", scenario, "--json").stdout) == SUMMARY
    quiet = burstsim("run", scenario, "-q", "-o", tmp_path / "out")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert simulator.calls[-1][1] is None


@pytest.mark.parametrize(("change", "code"), [
    ({}, 0), ({"slo": MET}, 0), ({"slo": MISSED}, 1), ({"audit": BROKEN}, 1), ({"verdict": "overloaded"}, 0),
    ({"verdict": "overloaded", "slo": MISSED}, 1),
])
def test_exit_codes(simulator, scenario, tmp_path, change, code):
    simulator.summary = SUMMARY | change
    done = burstsim("run", scenario, "-o", tmp_path / "out")
    assert done.exit_code == code
    assert (tmp_path / "out").is_dir()


def test_bad_scenario(simulator, tmp_path):
    path = written(tmp_path, GOOD.replace("seed: 1", "sed: 1").replace("replicas: 2", "replicas: 0"))
    done = burstsim("run", path, "-o", tmp_path / "out")
    assert (done.exit_code, done.stdout, simulator.calls) == (2, "", [])
    assert [line.split(": ")[1:3] for line in done.stderr.splitlines()] == [[f"{path}:2", "sed"], [f"{path}:9", "cluster.pools.0.replicas"]]
    assert not (tmp_path / "out").exists()


def test_bad_input_while_running(simulator, scenario):
    simulator.error = BadInput("no such trace")
    done = burstsim("run", scenario)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "error: no such trace\n")


@pytest.mark.parametrize("args", [
    [], ["--nothing"], ["--trace"], ["--replications", "x"], ["--seed", "x"], ["--seed", "-1"], ["--set"], ["--set", "x"],
    ["--set", "a.b.c=1"],
])
def test_bad_flags(simulator, scenario, args):
    done = burstsim("run", *([scenario] if args else []), *args)
    assert done.exit_code == 2
    assert done.stderr
    assert not simulator.calls


@pytest.mark.parametrize("kind", ["file", "filled", "filled_forced", "under_a_file", "working", "parent"])
def test_a_folder_that_cannot_be_written(simulator, scenario, tmp_path, monkeypatch, kind):
    """Said before the run, and nothing that is not a result is ever replaced."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "thesis.txt").write_text("mine")
    target = {"under_a_file": "file/out", "working": ".", "parent": "..", "filled_forced": "filled"}.get(kind, kind)
    done = burstsim("run", scenario, "-o", target, *(["--force"] if kind not in ("file", "filled") else []))
    assert (done.exit_code, simulator.calls) == (2, [])
    assert (tmp_path / "filled" / "thesis.txt").read_text() == "mine"


def test_interrupted(simulator, scenario, tmp_path):
    simulator.error = KeyboardInterrupt(12.34)
    done = burstsim("run", scenario, "-o", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (130, "")
    assert "12.3 s of simulated time" in done.stderr
    assert not (tmp_path / "out").exists()


# A shell that starts a job in the background has it ignore the signal; this one must not. How long a start takes depends on the machine.
SAYS_WHEN = """
import importlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
run = importlib.import_module("sim.study.run")
simulate = run._simulate
run._simulate = lambda *given: print("the clock starts", file=sys.stderr, flush=True) or simulate(*given)
from sim.cli import main
main()
"""


def test_control_c(tmp_path):
    path = written(tmp_path, GOOD.replace("num_requests: 1e3", "num_requests: 1e9").replace("duration: 30m", "duration: 30000d"))
    command = [sys.executable, "-c", SAYS_WHEN, "run", str(path), "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "the clock starts\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "s of simulated time; nothing was written" in err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("tty", "patience", "looks"), [(False, 0.0, False), (True, 60.0, False), (True, 0.0, True)])
def test_progress_looks_on_only_when_someone_watches(monkeypatch, tty, patience, looks):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    polled = threading.Event()

    def poll():
        polled.set()
        return 3, None, 1.5

    with progress(poll, patience):
        assert polled.wait(2.0 if looks else 0.1) == looks


def test_the_reader_goes_away():
    process = subprocess.Popen([sys.executable, "-m", "sim.cli", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_kinds():
    done = burstsim("kinds", "router")
    assert "router least_loaded: " in done.stdout
    assert "workload" not in done.stdout
    rows = json.loads(burstsim("kinds", "--json").stdout)
    assert [(row["family"], row["kind"]) for row in rows] == [(home.name, kind) for home in FAMILIES.values() for kind in home.names()]
    assert all(row["doc"] for row in rows)
    assert "did you mean router?" in burstsim("kinds", "routers").stderr


def test_schema(tmp_path):
    schema = json.loads(burstsim("schema").stdout)
    definitions = schema["$defs"]
    assert {"$ref": "#/$defs/router.least_loaded"} in definitions["Cluster"]["properties"]["router"]["oneOf"]
    assert {"$ref": "#/$defs/workload.poisson"} in schema["properties"]["workloads"]["items"]["oneOf"]
    assert {"$ref": "#/$defs/lengths.fixed"} in definitions["workload.poisson"]["properties"]["lengths"]["oneOf"]
    assert definitions["router.least_loaded"]["properties"]["kind"] == {"const": "least_loaded"}
    references = {part.split('"')[0] for part in json.dumps(schema).split('"#/$defs/')[1:]}
    assert references <= set(definitions)
    validator = jsonschema.Draft202012Validator(schema)
    document = parse(GOOD, "", tmp_path).data
    assert list(validator.iter_errors(document)) == []
    assert list(validator.iter_errors(yaml.safe_load(dump(loads(document))))) == []
    document["workloads"][0]["rat"] = 3
    assert not validator.is_valid(document)


def test_report_of_nothing(tmp_path):
    done = burstsim("report", tmp_path)
    assert done.exit_code == 2
    assert "holds no result" in done.stderr


def test_the_duration_is_that_of_the_rates():
    """As in vLLM's benchmark, requests over it are the throughput; the clock began before the first arrival."""
    assert "Benchmark duration (s):                  6.00" in block(SUMMARY)
    later = SUMMARY | {"run": SUMMARY["run"] | {"sim_s": 160.0}}
    assert "Benchmark duration (s):                  6.00" in block(later)


def test_the_block():
    provenance = {"extrapolated": True, "extrapolations": ["serve: tp 16"]}
    lines = block(SUMMARY | {"slo": MISSED, "audit": BROKEN, "provenance": provenance}).splitlines()
    assert lines[:6] == [
        "Verdict: stable: queues stay short",
        "SLO: NOT met: 50.00% of 99.00% wanted of requests within the limits",
        "  ttft_p99: 300.00 ms, limit 200.00 ms",
        "Extrapolated: beyond what was calibrated: serve: tp 16",
        "AUDIT FAILED, do not trust these figures:",
        "  I3: last before first: 1 rows",
    ]
    assert "============ Serving Benchmark Result ============" in lines
    assert "Successful requests:                     9" in lines
    assert "Rejected requests:                       1" in lines
    assert "Mean TTFT (ms):                          100.00" in lines
    assert "Median TPOT (ms):                        90.00" in lines
    assert "P99 ITL (ms):                            -" in lines
    assert not any(line.startswith("Cost ($ per 1M") for line in lines)


def test_help_says_the_exit_codes():
    assert "Leaves with 1 when" in burstsim("run", "--help").stdout
    assert burstsim("--version").stdout.startswith("burstsim 0.")
