"""Every row that `measure` writes is fitted or named. A table of our own grid, made from forms with noise, gives its parameters back."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from calibrate import table as measured
from calibrate.bench import grid
from calibrate.fit import fit_all
from calibrate.measure import COLUMNS
from calibrate.ops import attention, elementwise, gemm
from sim.core.errors import BadInput
from sim.physics.kernels import Kernels
from sim.spec.hardware import gpu

CHIP = replace(gpu("rtx4090"), name="mine", fits=())  # nothing on loan: a fit starts from the forms' own figures
NOISE = 0.02
SOURCE = {"source": "burstsim:torch/2.8.0", "cold": True, "dtype": "bfloat16"}
QUANTISING = {"tq": 5.2e-6, "cb": 4.1}
SAMPLING = {"t0": 4.4e-6, "e_m": 0.31}
SMALL = {"t0": 2.9e-6, "e_m": 0.82}
MIXED = {"t0": 9e-6, "e": 0.45, "od": 210.0, "t_kv": 2e-8}


def row(point: grid.Point) -> dict[str, object] | None:
    """What `measure` writes of a point, but for its time; None for kinds that no fit takes."""
    heads = {"n_heads": point.H, "n_kv_heads": point.K, "head_dim": grid.HEAD_DIM, "window": 0, "kv_dtype": "bfloat16"}
    if point.kind == "gemm":
        said = {"op": "gemm", "m": point.m, "n": point.n, "k": point.k, "dtype": "bfloat16" if point.family == "bf16" else "fp8"}
    elif point.kind == "elementwise":
        said = {"op": point.family, "m": point.m, "hidden": point.n, "num_tokens": point.m, "kernel": "inductor"}
    elif point.kind == "attn_mixed":
        model = {"model": "meta-llama/Llama-3.1-8B", "tp": 1} if (point.H, point.K) == (32, 8) else {}
        calls = {"prefill_chunk": point.S, "kv_prefill": point.prefix, "n_decode": point.B, "kv_decode": point.L}
        said = {"op": "attn_mixed", "kernel": "torch_flash", "batch": 1 + point.B, **calls, **heads, **model}
    elif point.kind in ("attn_decode_hetero", "memcpy", "launch", "layer_stack", "throttle"):
        said = {"op": point.kind}
    else:
        return None
    return {**SOURCE, **said, "role": point.role, "latency_us": 1e6}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Our grid, without what other tests cover, timed by the forms."""
    points = [p for p in grid.points() if p.kind != "gemm" or (p.family == "fp8" and p.role == "fit" and p.m in (8, 129, 1024, 4096))]
    rows = pd.DataFrame([one for point in points if (one := row(point))], columns=list(COLUMNS))
    rows = rows.assign(file="", line=np.arange(len(rows)))
    noise = np.exp(np.random.default_rng(3).normal(0.0, NOISE, len(rows)))
    truth = {"sampling": SAMPLING, "gemm": QUANTISING, "attn_mixed": MIXED}
    for group in [*gemm.groups(rows, CHIP), *elementwise.groups(rows, CHIP), *attention.groups(rows, CHIP)]:
        if group.op != "elementwise":
            made = {p.name: p.start for p in group.parameters} | truth.get(group.op, SMALL)
            at = group.rows["line"].to_numpy()
            rows.loc[at, "latency_us"] = group.predict(CHIP, made) * 1e6 * noise[at]
    found = tmp_path_factory.mktemp("grid") / "raw.csv"
    rows.drop(columns=["file", "line"]).to_csv(found, index=False)
    return found


@pytest.fixture(scope="module")
def found(path):
    groups, remarks = measured.groups(measured.read([path]), CHIP)
    wanted = [group for group in groups if group.op in ("sampling", "norm", "attn_mixed") or (group.op, group.dtype) == ("gemm", "fp8")]
    return {group.op: group for group in groups}, remarks, {fit.op: fit for fit in fit_all(wanted, CHIP, "a test").fits}


def test_casts_tell_what_quantising_takes(found):
    groups, _, fits = found
    assert groups["gemm"].rows["op"].value_counts()["fp8_quant"] == 14
    for name, value in QUANTISING.items():
        assert fits["gemm"][name] == pytest.approx(value, rel=0.05), name
    assert fits["gemm"].errors.median < 0.03
    assert fits["gemm"].hull["n"] == (512, 57344)  # casts have no n


def test_the_sampler_is_fitted(found):
    groups, _, fits = found
    assert len(groups["sampling"].rows) == 14
    for name, value in SAMPLING.items():
        assert fits["sampling"][name] == pytest.approx(value, rel=0.05), name
    assert fits["norm"]["e_m"] == pytest.approx(SMALL["e_m"], rel=0.05)
    assert len(groups["elementwise"].rows) == 4 * 14  # neither sampler nor cast


def test_mixed_calls_of_every_head_layout_are_fitted(found):
    groups, _, fits = found
    assert groups["attn_mixed"].rows[["n_heads", "n_kv_heads"]].drop_duplicates().to_numpy().tolist() == [[32, 8], [8, 1]]
    assert len(groups["attn_mixed"].rows) == 108
    assert fits["attn_mixed"].hull["query"] == (8, 32)
    assert fits["attn_mixed"].points + groups["attn_mixed"].held_out.sum() == 108
    assert fits["attn_mixed"].errors.median < 0.03
    made = {p.name: p.start for p in groups["attn_mixed"].parameters} | MIXED
    again = groups["attn_mixed"].predict(CHIP, fits["attn_mixed"].parameters) / groups["attn_mixed"].predict(CHIP, made)
    assert np.abs(again - 1).max() < 0.1
    assert fits["attn_mixed"]["e"] == pytest.approx(MIXED["e"], rel=0.1)


def test_what_no_fit_takes_is_named_with_the_reason(found):
    _, remarks, _ = found
    said = dict(remark.split(": ", 1) for remark in remarks if "not used" in remark)
    assert set(said) == {"attn_decode_hetero", "memcpy", "launch", "layer_stack", "throttle"}
    assert said["memcpy"].startswith("14 of 14 rows")
    assert "sum of the kernels" in said["layer_stack"]


def test_casts_alone_are_named(path, tmp_path):
    rows = pd.read_csv(path)
    rows = rows[rows["op"].isin(["fp8_quant", "silu_mul"])].assign(role=["repeat"] * 2 + ["fit"] * 26)
    rows.to_csv(tmp_path / "few.csv", index=False)
    groups, remarks = measured.groups(measured.read([tmp_path / "few.csv"]), CHIP)
    assert "gemm" not in {group.op for group in groups}
    assert any("fp8_quant" in remark and "there are none" in remark for remark in remarks)
    assert any(remark.startswith("2 repeated points") for remark in remarks)


def test_a_cast_without_sizes_is_refused():
    products = [row(p) for p in grid.points() if p.kind == "gemm" and p.n == 512]
    rows = pd.DataFrame([*products[:20], {**SOURCE, "op": "fp8_quant", "m": 4}])
    with pytest.raises(BadInput, match="op fp8_quant: 1 rows without sizes"):
        gemm.groups(rows, CHIP)


def test_the_tile_of_a_mixed_call_is_its_kernels():
    points = [p for p in grid.points() if p.kind == "attn_mixed"]
    for kernel, tile in (("torch_flash", 64), ("torch_flash3", 128)):
        (group,) = attention.groups(pd.DataFrame([{**row(p), "kernel": kernel} for p in points]), CHIP)
        assert group.parameters[-1].start == tile
        assert group.library == f"torch/2.8.0 {kernel}"
    assert Kernels(gpu("rtx4090")).need("attn_mixed", "bf16")["tile"] == pytest.approx(64, rel=1e-3)
