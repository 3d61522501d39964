"""Measuring kernels: the grid is the one designed, timings are real (on the CPU), and no point already measured is ever lost."""
from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import calibrate.measure as measuring
from calibrate.bench import grid
from calibrate.bench.grid import Point
from sim.core.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]

# Points per block and role, 1,849 in all.
COUNTS = {
    ("gemm", "bf16", "fit"): 528, ("gemm", "fp8", "fit"): 376, ("gemm", "bf16", "holdout"): 100,
    ("attn_decode", "bf16kv", "fit"): 276, ("attn_decode", "fp8kv", "fit"): 82, ("attn_decode_hetero", "bf16kv", "holdout"): 72,
    ("attn_prefill", "bf16", "fit"): 42, ("attn_chunk", "bf16", "fit"): 60, ("attn_mixed", "bf16", "fit"): 108,
    ("elementwise", "", "fit"): 84, ("memcpy", "", "fit"): 14, ("launch", "", "fit"): 5, ("layer_stack", "", "holdout"): 21,
    ("throttle", "", "fit"): 1, ("repeat", "", "repeat"): 80,
}  # fmt: skip
FAMILIES = {"gemm", "attn_decode", "attn_decode_hetero", "attn_prefill", "attn_chunk", "attn_mixed"}

# One of each kind, small: a rehearsal of everything within a second or two. Stacks are tiny on a CPU whatever they are called.
SMALL = [
    Point("gemm", "bf16", m=64, n=256, k=256), Point("gemm", "bf16", m=1, n=256, k=256), Point("gemm", "bf16", m=512, n=1024, k=1024),
    Point("gemm", "fp8", m=16, n=256, k=256), Point("gemm", "bf16", "holdout", m=33, n=320, k=192),
    Point("attn_decode", "bf16kv", H=4, K=1, B=2, L=100), Point("attn_decode", "fp8kv", H=4, K=1, B=2, L=100),
    Point("attn_decode_hetero", "bf16kv", "holdout", H=4, K=1, B=4, L=64, mix="half_x4"),
    Point("attn_prefill", "bf16", H=4, K=1, B=2, S=32), Point("attn_chunk", "bf16", H=4, K=1, B=1, S=16, prefix=50),
    Point("attn_mixed", "bf16", H=32, K=8, B=3, L=40, S=16, prefix=8),
    *(Point("elementwise", op, m=8, n=256) for op in grid.ELEMENTWISE),
    Point("memcpy", "read+write", m=100_000), *(Point("launch", family) for family in grid.LAUNCHES),
    Point("layer_stack", grid.GRAPH_STACK, "holdout", B=2, L=40), Point("layer_stack", grid.PREFILL_STACK, "holdout", S=24),
    Point("throttle", "bf16", m=128, n=128, k=128), Point("gemm", "bf16", "repeat", m=64, n=256, k=256),
]  # fmt: skip


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed, and only measuring needs it")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "grid.csv"
    grid.write(path, SMALL)
    return path


def test_the_grid_has_its_points():
    every = grid.points()
    found = collections.Counter(
        ("repeat", "", "repeat") if p.role == "repeat" else (p.kind, p.family if p.kind in FAMILIES else "", p.role) for p in every
    )
    assert found == COUNTS
    assert len(every) == 1849
    assert collections.Counter(p.family for p in every if p.kind == "elementwise") == dict.fromkeys(grid.ELEMENTWISE, 14)


def test_the_grid_does_not_alias_and_stays_in_bounds():
    every = grid.points()
    fitted = {p.m for p in every if (p.kind, p.role) == ("gemm", "fit")}
    assert {17, 129, 193, 513, 1537, 2561} < fitted
    assert all(p.m <= 1024 for p in every if p.n > 100_000)
    assert max(2 * p.B * p.L * p.K * 128 * (1 if p.family == "fp8kv" else 2) for p in every if p.kind == "attn_decode") <= 40e9
    held = [p for p in every if (p.kind, p.role) == ("gemm", "holdout")]
    assert all(p.n % 64 == 0 == p.k % 64 and min(p.n, p.k) >= 512 and max(p.n, p.k) <= 28672 and 1 <= p.m <= 16384 for p in held)
    fits = {p[3:] for p in every if p.role == "fit"}
    assert all(p[3:] in fits for p in every if p.role == "repeat")


def test_the_shipped_file_is_the_generated_grid(tmp_path):
    assert grid.read(measuring.GRID) == grid.points()
    grid.main([str(tmp_path / "grid.csv")])
    assert (tmp_path / "grid.csv").read_bytes() == measuring.GRID.read_bytes()


def test_names_tell_repeats_apart_and_the_order_is_fair():
    every = grid.points()
    assert len(set(grid.names(every))) == len(every)
    order = grid.shuffled(every)
    assert sorted(order) == list(range(len(every)))
    assert order == grid.shuffled(every)
    assert every[order[-1]].kind == "throttle"
    early = collections.Counter(every[i].kind for i in order[: len(order) // 4])
    whole = collections.Counter(p.kind for p in every)
    for kind in ("gemm", "attn_decode", "attn_mixed", "attn_chunk", "elementwise"):
        assert early[kind] == pytest.approx(whole[kind] / 4, rel=0.5), kind


def test_a_scaled_grid_is_smaller_and_keeps_every_kind():
    every = grid.points()
    small = grid.scaled(every, 1 / 64)
    assert {p.kind for p in small} == {p.kind for p in every}
    assert len(set(small)) == len(small) < len(every)
    assert max(p.L for p in small) == 131072 / 64
    assert grid.scaled(every, 1.0) == every


@pytest.mark.parametrize(
    ("row", "column", "said"),
    [
        ("gem,bf16,fit,1,512,512", "kind", "did you mean gemm"),
        ("gemm,bf17,fit,1,512,512", "family", "bf16"),
        ("gemm,bf16,fit,-1,512,512", "m", "at least 0"),
        ("gemm,bf16,fit,1.5,512,512", "m", "'1.5'"),
        ("gemm,bf16,fit,,512,512", "m", "needs it"),
        ("gemm,bf16,train,1,512,512", "role", "holdout"),
    ],
)
def test_a_bad_grid_names_row_and_column(tmp_path, row, column, said):
    path = tmp_path / "grid.csv"
    path.write_text(f"kind,family,role,m,n,k\ngemm,bf16,fit,1,512,512\n{row}\n")
    with pytest.raises(BadInput, match=said) as caught:
        grid.read(path)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line, problem.path) == (str(path), 3, column)


def test_a_grid_without_columns_or_rows_is_refused(tmp_path):
    for text in ("", "kind,family\n", "shape,m\nx,1\n"):
        (tmp_path / "grid.csv").write_text(text)
        with pytest.raises(BadInput, match="kind"):
            grid.read(tmp_path / "grid.csv")
    with pytest.raises(BadInput, match=r"nowhere\.csv"):
        grid.read(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("mix", grid.MIXES)
def test_mixed_lengths_keep_their_mean(torch, mix):
    from calibrate.bench.attention import lengths

    held = lengths(mix, 32, 2048)
    assert len(held) == 32
    assert sum(held) / 32 == pytest.approx(2048, rel=0.01)
    assert max(held) > 1.5 * min(held)
    assert lengths(mix, 32, 2048) == held


def test_operands_rotate_beyond_the_cache(torch):
    from calibrate.bench.device import BEYOND, MOST_COPIES, Bench

    bench = Bench("cpu")
    for size in (1 << 12, 1 << 20, BEYOND * bench.cache, 1 << 30):
        copies = bench.copies(size)
        assert copies * size >= BEYOND * bench.cache
        assert copies == 1 or (copies - 1) * size < BEYOND * bench.cache
        assert bench.cold(size, copies)
    assert bench.copies(8) == MOST_COPIES
    assert not bench.cold(8, MOST_COPIES)


def test_operands_are_random_and_apart(torch, monkeypatch):
    from calibrate.bench.device import FP8, Bench, TooLarge

    bench = Bench("cpu")
    for dtype in (torch.bfloat16, FP8):
        a, b = bench.carve([(300, 100), (7, 11)], dtype)
        assert float(a.float().std()) == pytest.approx(1.0, abs=0.05)
        assert a.data_ptr() + a.nbytes <= b.data_ptr()
    monkeypatch.setattr(bench, "free", lambda: 1 << 20)
    with pytest.raises(TooLarge, match=r"1\.3 GB"):
        bench.carve([(1 << 16, 10_000)])


def test_points_that_do_not_fit_are_skipped_by_name(torch, tmp_path, monkeypatch):
    from calibrate.bench.device import Bench

    monkeypatch.setattr(Bench, "free", lambda self: 16 << 20)
    grid.write(tmp_path / "grid.csv", [SMALL[0], Point("gemm", "bf16", m=1, n=16384, k=16384)])
    out = measuring.measure("cpu", tmp_path / "grid.csv", tmp_path / "raw.csv", scale=1)
    about = json.loads(measuring.sidecar(out).read_text())
    assert [entry["point"] for entry in about["skipped"]] == ["gemm/bf16 m=1 n=16384 k=16384"]
    assert "0.5 GB" in about["skipped"][0]["why"]
    monkeypatch.setattr(Bench, "free", lambda self: 1 << 10)
    with pytest.raises(BadInput, match="nothing could be measured"):
        measuring.measure("cpu", tmp_path / "grid.csv", tmp_path / "none.csv", scale=1)
    assert not list(tmp_path.glob("none*"))


def test_every_kind_is_measured_for_real(torch, small, tmp_path, monkeypatch):
    from calibrate.bench import gemm

    monkeypatch.setattr(gemm, "SUSTAINED", 0.1)
    out = measuring.measure("cpu", small, tmp_path / "raw.parquet", scale=1)
    table = pd.read_parquet(out)
    about = json.loads(measuring.sidecar(out).read_text())
    assert list(table.columns) == list(measuring.COLUMNS)
    assert about["complete"]
    assert not (tmp_path / "raw.parquet.partial").exists()
    without = {entry["point"].split(" ")[0] for entry in about["skipped"]}
    assert without <= {"attn_decode/fp8kv", "launch/empty_kernel_graph", "launch/graph_chain_200", "gemm/fp8"}
    assert len(table) + len(about["skipped"]) == len(SMALL) == about["points"]
    assert {"gemm", "attn_decode", "attn_decode_hetero", "attn_prefill", "attn_mixed", "layer_stack", "gemm_sustained"} < set(table["op"])
    assert (table["latency_us"] > 0).all()
    assert (table["min_us"] <= table["latency_us"]).all()
    assert table["source"].str.fullmatch(r"burstsim:torch/\S+").all()
    assert set(table["role"]) == {"fit", "holdout", "repeat"}
    gemms = table[(table["op"] == "gemm") & (table["dtype"] == "bfloat16")].set_index("m")
    assert gemms.loc[512, "latency_us"] > 3 * gemms.loc[1, "latency_us"].max()  # 8192 times the arithmetic
    chunk = table[(table["op"] == "attn_prefill") & (table["seqlen_q"] == 16)].iloc[0]
    assert (chunk["seqlen_kv"], chunk["kv_tokens"]) == (66, 66)
    mixed = table[table["op"] == "attn_mixed"].iloc[0]
    assert tuple(mixed[["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"]]) == (16, 8, 3, 40)
    assert about["noise"]["n"] == 1
    assert about["torch"] == torch.__version__


def test_a_killed_run_goes_on_where_it_was(torch, tmp_path):
    many = [Point("gemm", "bf16", m=m, n=512, k=512) for m in range(1, 250)]
    grid.write(tmp_path / "grid.csv", many)
    out, partial = tmp_path / "raw.csv", tmp_path / "raw.csv.partial"
    command = [sys.executable, "-m", "calibrate.measure", "--device", "cpu", "--scale", "1", "--grid", str(tmp_path / "grid.csv")]
    run = subprocess.Popen([*command, "-o", str(out)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while time.monotonic() < until and run.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 5):
        time.sleep(0.02)
    assert run.poll() is None, run.stderr.read()
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    assert not out.exists()
    with partial.open("a") as file:
        file.write('{"row": {"point": "cut o')
    kept = [json.loads(line)["row"] for line in partial.read_text().split("\n")[1:-1]]
    assert 5 <= len(kept) < len(many)

    seen: list[str] = []
    measuring.measure("cpu", tmp_path / "grid.csv", out, scale=1, progress=lambda done, of, name: seen.append(name), limit_s=30)
    assert not {row["point"] for row in kept} & set(seen)
    table = pd.read_csv(out).set_index("point")
    assert len(table) == len(kept) + len(seen) == len(many)
    for row in kept:
        assert table.loc[row["point"], "latency_us"] == pytest.approx(row["latency_us"], rel=1e-5)


def test_what_is_complete_is_not_measured_again_and_nothing_is_mixed(torch, small, tmp_path, monkeypatch):
    grid.write(small, SMALL[:3])
    out = measuring.measure("cpu", small, tmp_path / "raw.csv", scale=1)
    before = out.read_bytes()
    assert measuring.measure("cpu", small, out, scale=1) == out
    assert out.read_bytes() == before
    with pytest.raises(BadInput, match=r"scale 1 there, 0\.5 now"):
        measuring.measure("cpu", small, out, scale=0.5)
    grid.write(small, SMALL[:4])
    with pytest.raises(BadInput, match=r"grid .* there"):
        measuring.measure("cpu", small, out, scale=1)
    assert out.read_bytes() == before
    measuring.measure("cpu", small, out, scale=1, resume=False)
    assert len(pd.read_csv(out)) >= 3

    def slow(done, of, name):
        time.sleep(0.3)

    cut = measuring.measure("cpu", small, tmp_path / "cut.csv", scale=1, limit_s=0.35, progress=slow)
    about = json.loads(measuring.sidecar(cut).read_text())
    assert 1 <= about["measured"] < 4
    assert len(about["left"]) == 4 - about["measured"]
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with pytest.raises(BadInput, match=r"cut\.csv\.partial.*torch .* there, 9\.9\.9 now"):
        measuring.measure("cpu", small, cut, scale=1)


def test_a_stop_or_a_failing_device_keeps_what_was_measured(torch, small, tmp_path, monkeypatch, capsys):
    from calibrate.bench.device import Bench

    real, calls = measuring._timed, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(measuring, "_timed", stopped)
    grid.write(small, SMALL[:5])
    out = tmp_path / "raw.csv"
    command = ["--device", "cpu", "--grid", str(small), "-o", str(out), "--scale", "1"]
    assert measuring.main(command) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert len(pd.read_csv(out)) == 2

    def broken(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(measuring, "_timed", broken)
    with monkeypatch.context() as lost:
        lost.setattr(Bench, "settle", broken)
        assert measuring.main(command) == 2
    said = capsys.readouterr().err
    assert "the 2 points measured before are kept" in said
    assert "illegal memory access" in said
    assert len(pd.read_csv(out)) == 2
    monkeypatch.setattr(measuring, "_timed", real)
    assert measuring.main(command) == 0
    assert "4 of 5 points measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "name", "said"),
    [("cuda", "raw.csv", "no CUDA device"), ("tpu9", "raw.csv", "cuda, cuda:N, cpu"), ("cpu", "raw.xlsx", r"\.csv or \.parquet"),
     ("cpu", "nowhere/raw.csv", "does not exist")],
)  # fmt: skip
def test_bad_requests_are_refused_before_anything_is_measured(torch, small, tmp_path, device, name, said):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BadInput, match=said):
        measuring.measure(device, small, tmp_path / name)
    assert not list(tmp_path.glob("raw*"))


def test_measuring_needs_no_more_than_torch_and_the_basics(torch):
    code = "import calibrate.measure, calibrate.bench.stack, sys; print(*[m for m in ('scipy', 'click', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_noise_is_the_spread_of_repeats():
    rows = [{"point": "a", "role": "fit", "latency_us": 10.0}, {"point": "a #2", "role": "repeat", "latency_us": 11.0}]
    assert measuring.noise(rows) == {"n": 1, "median": pytest.approx(0.1), "p95": pytest.approx(0.1)}
    assert measuring.noise(rows[:1]) == {"n": 0}
    assert np.isfinite(measuring.noise(rows)["p95"])
