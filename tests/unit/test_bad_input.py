"""The real command line against hostile and naive input: exit code 2, one clear message a problem, no traceback, and nothing written."""
from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from click.testing import CliRunner
from scenarios import written

import sim
from sim.cli import main
from sim.report.page import render

GOOD = """\
name: chat
seed: 1
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: serve
      gpu: h100_sxm
      replicas: 2
      parallel: {tp: 1}
      precision: bf16
      engine:
        max_num_seqs: 128
  router: {kind: round_robin}
workloads:
  - kind: poisson
    rate: 4
    num_requests: 20
    lengths: {kind: fixed, input: 1000, output: 10}
slo: {ttft_p99: 500ms}
"""
MODEL, LENGTHS = "meta-llama/Llama-3.1-8B", "{kind: fixed, input: 1000, output: 10}"
SEQS, REPLICAS = "max_num_seqs: 128", "replicas: 2"
HEADER = "arrival_s,input_tokens,output_tokens\n"
ROWS = "".join(f"{second},100,10\n" for second in range(20))


def burstsim(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def refused(tmp_path, path, *args):
    """The messages of a run that has to be refused, leaving no trace."""
    before = sorted(tmp_path.rglob("*"))
    done = burstsim("run", path, "-o", tmp_path / "out", *args)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr or repr(done.exception)
    assert sorted(tmp_path.rglob("*")) == before
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines)
    return done.stderr


def engine(line):
    return SEQS, f"{SEQS}\n        {line}"


def pool(line):
    return REPLICAS, f"{REPLICAS}\n      {line}"


# Changed text, its line, and what the message must say.
SCENARIOS = [
    # too large to simulate
    (REPLICAS, "replicas: 1e9", 8, "replicas: found 1000000000.0; a value of at most 100000 is wanted, the most that is simulated"),
    (REPLICAS, f"replicas: {10**30}", 8, "at most 100000"),
    (REPLICAS, "replicas: 1e400", 8, "a finite number is wanted"),
    ("num_requests: 20", "num_requests: 1e18", 17, "at most 1000000000"),
    (SEQS, "max_num_seqs: 1000000000", 12, "at most 65536"),
    (*engine("max_num_batched_tokens: 10000000000"), 13, "at most 10000000"),
    (*engine("block_size: 1000000000000"), 13, "at most 1024"),
    (*engine("num_gpu_blocks_override: 1000000000000000"), 13, "at most 2147483647"),
    (*engine("max_model_len: 1000000000000"), 13, "at most 2147483647"),
    (*engine("cudagraph_capture_sizes: [1, 100000000000]"), 13, "cudagraph_capture_sizes.1: found 100000000000"),
    (*engine("host_overhead: 1e300"), 13, "at most 100 years"),
    (*pool("gpu_memory: 1e300"), 9, "a value of at most 4e+12"),
    ("rate: 4", "rate: 1e300", 16, "at most 1e+09"),
    ("rate: 4", "rate: 1e-300", 16, "20 requests take more than 100 years"),
    ("rate: 4", "rate: 4\n    start: 1e300", 17, "at most 100 years"),
    ("seed: 1", "duration: 1e300", 2, "at most 100 years"),
    ("kind: poisson", "kind: gamma\n    cv: 1e-200", 16, "a value of at least 0.01"),
    ("kind: poisson\n    rate: 4", "kind: closed\n    concurrency: 1e12", 16, "at most 1000000"),
    ("input: 1000", "input: 1e12", 18, "at most 2147483647"),
    (LENGTHS, "{kind: uniform, input: [1, 1e15], output: [1, 5]}", 18, "lengths.input.1: found 1000000000000000.0"),
    (LENGTHS, "{kind: empirical, input: [[0, 1], [1, 1e300]], output: [[0, 1], [1, 2]]}", 18, "at most 2.14748e+09"),
    (LENGTHS, "{kind: lognormal, input: {mean: 1e300, sigma: 1}, output: {mean: 9, sigma: 1}}", 18, "input.mean: found 1e+300; at most"),
    (LENGTHS, "{kind: lognormal, input: {mean: 9, sigma: 99}, output: {mean: 9, sigma: 1}}", 18, "input.sigma: found 99; at most 10"),
    # no kind, no value
    (LENGTHS, "{input: 1000, output: 10}", 18, "lengths: no 'kind' given; did you mean kind: fixed?"),
    (LENGTHS, "null", 18, "lengths: found null; a mapping with a key 'kind' is wanted"),
    ("{kind: round_robin}", "{kind: }", 13, "router.kind: found null; the name of a kind is wanted: cache_aware"),
    # what does not fit
    (MODEL, "meta-llama/Llama-3.1-70B", 6, "GB too little for even one KV block. It would fit with parallel: {tp: 2}"),
    ("tp: 1", "tp: 3", 9, "do not split 3 ways; sizes that work: 1, 2, 4, 8"),
    ("tp: 1", "tp: 16", 9, "does not divide up node hgx_h100: 8 GPUs"),
    ("tp: 1", "ep: 2", 9, "ep (2) must divide tp x dp (1 x 1)"),
    ("tp: 1", "pp: 90", 9, "pp 90 is more than the 32 layers of meta-llama/Llama-3.1-8B"),
    # names as people know them
    ("h100_sxm", "H100", 7, "unknown GPU 'H100'; did you mean h100_sxm?"),
    ("h100_sxm", "A100", 7, "did you mean a100_sxm_80gb or a100_sxm_40gb?"),
    ("h100_sxm", "NVIDIA H100 80GB HBM3", 7, "did you mean h100_sxm?"),
    ("h100_sxm", "B200", 7, "did you mean b200?"),
    (MODEL, "llama3.1-8b", 3, "did you mean llama-3.1-8b"),
    (MODEL, "./nowhere", 3, "no such file"),
    (*pool("gpu_memory: 80"), 9, "found 80 bytes; a GPU has more: write the unit, such as 80GB"),
    (*pool("tensor_parallel_size: 2"), 9, "unknown key of cluster.pools.0; write `parallel: {tp: ...}` in the pool"),
    (*engine("tensor-parallel-size: 2"), 13, "write `parallel: {tp: ...}` in the pool"),
    (*engine("max-num-batched-tokens: 4096"), 13, "did you mean max_num_batched_tokens?"),
    (*engine("kv_cache_dtype: fp8"), 13, "write `precision: {kv: fp8}` in the pool"),
    (*pool("dtype: bfloat16"), 9, "write `precision: bf16` in the pool"),
    (*engine("quantization: awq"), 13, "write `precision: fp8`"),
    (*engine("speculative_config: {method: eagle}"), 13, "num_speculative_tokens: missing; "),
    (*pool("num_gpus: 8"), 9, "give `replicas` in the pool"),
    ("precision: bf16", "precision: float16", 10, "did you mean fp16?"),
    ("precision: bf16", "precision: AWQ", 10, "did you mean int4?"),
    ("kind: poisson", "kind: Poisson", 15, "did you mean poisson?"),
    ("kind: poisson", "kind: sharegpt", 15, "did you mean trace?"),
    (LENGTHS, "{kind: preset, name: azure}", 18, "did you mean azure_conv_2023 or azure_code_2023?"),
    (LENGTHS, "{kind: fixed, isl: 1000, osl: 10}", 18, "burstsim's word for it is `input`"),
    ("rate: 4", "rate: 10/s", 16, "found '10/s'; a number is wanted, such as 10"),
    ("rate: 4", "request_rate: 4", 16, "`rate`, requests per second"),
    ("seed: 1", "rate: 4", 2, "`rate`, requests per second, belongs to a workload"),
    ("num_requests: 20", "num_requests: 1k", 17, "an integer is wanted, such as 1000"),
    ("num_requests: 20", "num_requests: '1,000'", 17, "an integer is wanted, such as 1000"),
    ("ttft_p99: 500ms", "ttft_ms: 500", 19, "such as `ttft_p99: 500ms`"),
]


@pytest.mark.parametrize(("old", "new", "line", "fragment"), SCENARIOS, ids=[new.splitlines()[-1].strip() for _, new, *_ in SCENARIOS])
def test_scenarios(tmp_path, old, new, line, fragment):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    message = refused(tmp_path, path)
    assert fragment in message
    assert f"{path}:{line}: " in message


@pytest.mark.parametrize(("change", "fragment"), [
    ("cluster.pools[0].replicas=4", "dots lead to the items of a list: cluster.pools.0.replicas=4"),
    ("cluster.pools.1={gpu: l4}", "an index from 0 to 0 is wanted; to add an item, set the whole list"),
    ("cluster.pools.-1.replicas=1", "has no item '-1'"),
    ("cluster.pools.0.replicas", "KEY=VALUE is wanted"),
    ("cluster.pools=[]", "at least 1 is wanted"),
    ("cluster.pools.0.engine.tensor_parallel_size=2", "write `parallel: {tp: ...}` in the pool"),
    ("extends=other.yaml", "unknown key of the scenario"),
])
def test_sets(tmp_path, change, fragment):
    message = refused(tmp_path, written(tmp_path, GOOD), "--set", change)
    assert fragment in message
    assert message.startswith("error: --set: ")


def test_a_base_that_is_not_there(tmp_path):
    path = written(tmp_path, GOOD + "extends: bas.yaml\n")
    written(tmp_path, GOOD, "base.yaml")
    assert f"{path}:20: extends: {tmp_path / 'bas.yaml'}: no such file; did you mean {tmp_path / 'base.yaml'}" in refused(tmp_path, path)


def traced(tmp_path, content, options=""):
    start, end = GOOD.index("  - kind: poisson"), GOOD.index("slo:")
    if content is not None:
        written(tmp_path, content, "t.csv")
    return written(tmp_path, GOOD[:start] + f"  - {{kind: trace, path: t.csv{options}}}\n" + GOOD[end:])


TRACES = [
    ("a column is missing", "arrival_s,input_tokens\n1,2\n", "", "plain csv wants a first line with the columns arrival_s"),
    ("a column is there twice", "arrival_s,input_tokens,output_tokens,input_tokens\n1,2,3,4\n", "", "t.csv:1: workloads.0: the column"),
    ("unsorted", HEADER + "3,1,1\n1,1,1\n", "", "1 row has a time before that of the row above (line 3); `sort: true`"),
    ("negative time", HEADER + "-3,1,1\n", "", "1 row has negative times (line 2)"),
    ("zero tokens", HEADER + "0,0,1\n1,1,0\n", "", "2 rows have no input or no output tokens (lines 2, 3); `zero_tokens: skip`"),
    ("only zero tokens", HEADER + "0,0,1\n", ", zero_tokens: skip", "no row of it is usable"),
    ("far times", HEADER + "0,1,1\n1e300,1,1\n", "", "1 row has times beyond 100 years (line 3); is the column in seconds?"),
    ("stretched too far", HEADER + ROWS, ", time_scale: 1e9", "takes more than 100 years"),
    ("scale without end", HEADER + ROWS, ", rate_scale: 1e-300", "rate_scale: found 1e-300; a value of at least 1e-09"),
    ("empty", "", "", "the file is empty"),
    ("header only", HEADER, "", "t.csv:1: workloads.0: there is a header but no row below it"),
    ("truncated gzip", gzip.compress((HEADER + ROWS).encode())[:-9], "", "the gzip file ends too early"),
    ("truncated JSON", '{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [1]}\n{"time', "", "t.csv:2: workloads.0"),
    ("a JSON list", '[{"timestamp": 0}', "", "one object on each line is wanted"),
    ("garbage", bytes(range(256)) * 9, "", "this is a binary file"),
    ("Latin-1", (HEADER + "0,1,1\nä,1,1\n").encode("latin-1"), "", "t.csv:3: workloads.0: the table cannot be read"),
    ("carriage returns", (HEADER + ROWS).replace("\n", "\r"), "", "its lines end in bare carriage returns"),
    ("not there", None, "", "no such file"),
]


@pytest.mark.parametrize(("content", "options", "fragment"), [case[1:] for case in TRACES], ids=[case[0] for case in TRACES])
def test_traces(tmp_path, content, options, fragment):
    assert fragment in refused(tmp_path, traced(tmp_path, content, options))


@pytest.mark.parametrize(("place", "fragment"), [
    ("folder", "this is a folder; name a file in it"), ("https://example.com/t.csv", "download the file"),
    ("/dev/zero", "this is a device or a pipe"), ("''", "found an empty text; the path of a file is wanted"),
])
def test_what_is_no_trace_file(tmp_path, place, fragment):
    (tmp_path / "folder").mkdir()
    path = traced(tmp_path, None)
    assert fragment in refused(tmp_path, written(tmp_path, path.read_text().replace("t.csv", place)))


@pytest.mark.parametrize("content", [
    (HEADER + ROWS).replace("\n", "\r\n"), b"\xef\xbb\xbf" + (HEADER + ROWS + "\n").replace("\n", "\r\n").encode(),
    gzip.compress((HEADER + ROWS).encode()), (HEADER + ROWS).replace(",", ";"),
], ids=["CRLF", "BOM", "gzip", "semicolons"])
def test_traces_that_work(tmp_path, content):
    done = burstsim("run", traced(tmp_path, content), "--json")
    assert json.loads(done.stdout)["requests"]["completed"] == 20


def test_a_trace_of_requests_that_are_all_too_long(tmp_path):
    path = traced(tmp_path, HEADER + "".join(f"{second},200000,10\n" for second in range(20)))
    burstsim("run", path, "-o", tmp_path / "out", "-q")
    result = sim.Result.open(tmp_path / "out")
    assert result.summary["requests"]["rejected"] == 20
    assert set(result.requests["reason"]) == {"max_model_len"}
    assert (tmp_path / "out" / "report.html").is_file()


# -- Python --------------------------------------------------------------------------------------------------------------------------------
PLAIN: dict[str, Any] = {
    "model": MODEL, "cluster": {"pools": [{"gpu": "h100_sxm"}]},
    "workloads": [{"kind": "poisson", "rate": 4, "num_requests": 20, "lengths": {"kind": "fixed", "input": 100, "output": 10}}],
}


@pytest.mark.parametrize("bad", [
    "missing.yaml", {}, {"model": 3}, [], None, 3, b"x", PLAIN | {1: 2}, PLAIN | {"cluster": {"pools": [{"gpu": object()}]}},
    PLAIN | {"workloads": ({"kind": "poisson", "rate": 4, "num_requests": 2, "lengths": None},)},
], ids=["no file", "nothing", "a number as model", "a list", "none", "a number", "bytes", "a number as key", "an object as gpu", "a tuple"])
def test_python_raises_its_own_error(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for do in (sim.run, sim.load):
        with pytest.raises(sim.BadInput):
            do(bad)


EDGES = {
    "duration without an end of its own": ({"duration": "20s", "num_requests": None}, {"unfinished": 0}),
    "duration cuts": ({"duration": "2s", "rate": 4, "num_requests": 800}, {"rejected": 0, "failed": 0}),
    "one": ({"num_requests": 1}, {"completed": 1}),
    "all rejected": ({"lengths": {"kind": "fixed", "input": 200000, "output": 1}}, {"completed": 0, "rejected": 20}),
}


@pytest.mark.parametrize(("change", "wanted"), EDGES.values(), ids=EDGES)
def test_edges(tmp_path, change, wanted):
    workload = {key: value for key, value in (PLAIN["workloads"][0] | change).items() if key != "duration"}
    result = sim.run(PLAIN | {"workloads": [workload]} | {key: change[key] for key in change if key == "duration"})
    counts = result.summary["requests"]
    assert wanted.items() <= counts.items()
    assert counts["arrived"] == sum(counts[key] for key in ("completed", "rejected", "failed", "unfinished"))
    assert all(check["ok"] for check in result.summary["audit"].values())
    json.dumps(result.summary, allow_nan=False)
    assert (result.save(tmp_path / "out", pages={"report.html": render}) / "report.html").is_file()


def test_a_duration_beyond_the_traffic_changes_nothing():
    short, long = (sim.run(PLAIN | {"duration": duration}).summary for duration in ("10m", "10h"))
    assert short["run"]["sim_s"] == long["run"]["sim_s"] < 20
    assert short["throughput"] == long["throughput"]


def test_nothing_arrives(tmp_path):
    assert "no request arrived" in refused(tmp_path, written(tmp_path, GOOD), "--set", "duration=1us")


# -- folders and signals -------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return sim.run(PLAIN).save(tmp_path_factory.mktemp("saved") / "result")


DAMAGE = {
    "no meta.json": (lambda folder: (folder / "meta.json").unlink(), "holds no result: meta.json is missing"),
    "half a meta.json": (lambda folder: (folder / "meta.json").write_text("{"), "damaged result"),
    "an old meta.json": (lambda folder: (folder / "meta.json").write_text("{}"), "without tables of meta.json"),
    "no requests": (lambda folder: (folder / "requests.parquet").unlink(), "without requests.parquet; run its scenario.yaml again"),
    "half the requests": (lambda folder: os.truncate(folder / "requests.parquet", 500), "damaged result"),
    "another table": (lambda folder: shutil.copy(folder / "replicas.parquet", folder / "requests.parquet"), "request of requests.parquet"),
    "no scenario": (lambda folder: (folder / "scenario.yaml").unlink(), "scenario.yaml: no such file"),
    "nothing": (shutil.rmtree, "holds no result"),
}


@pytest.mark.parametrize(("spoil", "fragment"), DAMAGE.values(), ids=DAMAGE)
def test_report_of_a_damaged_result(saved, tmp_path, spoil, fragment):
    folder = shutil.copytree(saved, tmp_path / "out")
    spoil(folder)
    done = burstsim("report", folder)
    assert done.exit_code == 2, done.exception
    assert fragment in done.stderr
    assert not (folder / "report.html").exists()


def test_the_folder_is_filled_while_the_run_is_on(saved, tmp_path, monkeypatch):
    """Two runs with one target: the first to end wins, the second says so, and neither leaves anything else behind."""
    result = sim.run(PLAIN)
    target = tmp_path / "new" / "out"
    monkeypatch.setattr(result, "_write", lambda folder, pages, files: shutil.copytree(saved, target), raising=False)
    with pytest.raises(sim.BadInput, match="cannot write"):
        result.save(target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["out"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    result = sim.run(PLAIN)

    def full(folder, pages, files):
        (folder / "scenario.yaml").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result, "_write", full, raising=False)
    with pytest.raises(sim.BadInput, match="No space left on device"):
        result.save(tmp_path / "new" / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_of_any_kind(tmp_path):
    target = tmp_path / "with blanks" / "ü 結果"
    assert burstsim("run", written(tmp_path, GOOD), "-o", target, "-q", "--no-report").exit_code == 0
    assert sim.Result.open(target).summary["requests"]["completed"] == 20


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_request_to_end(tmp_path):
    path = written(tmp_path, GOOD.replace("num_requests: 20", "num_requests: 1e9"))
    command = [sys.executable, "-m", "sim.cli", "run", str(path), "-o", str(tmp_path / "new" / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(3)
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, len(err.splitlines())) == (128 + signal.SIGTERM, "", 1)
    assert "s of simulated time; nothing was written" in err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("row", ["gpu h100_sxm: NVIDIA H100", "node hgx_h100: ", f"model {MODEL}"])
def test_the_catalogue_is_listed(row):
    assert row in burstsim("kinds", row.split()[0]).stdout


def test_unknown_family():
    assert "unknown family 'routes'; did you mean router?" in burstsim("kinds", "routes").stderr
