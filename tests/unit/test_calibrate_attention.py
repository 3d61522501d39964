"""Attention in a table: rows find their group, a fit finds the parameters that made the rows, and measured shapes are met unseen."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibrate.fitting import errors, fit, held_out
from calibrate.ops import attention, mla
from sim.spec.fit import PARAMETERS
from sim.spec.hardware import gpu

TABLES = Path(__file__).parents[2].parent / "shared" / "data" / "kernels"
H100, A100, RTX4090 = gpu("h100_sxm"), gpu("a100_sxm_80gb"), gpu("rtx4090")
GRID = [(b, c, h, k, d) for b in (1, 8, 33, 200) for c in (128, 700, 4096, 30_000) for h, k, d in ((32, 8, 128), (8, 1, 64), (16, 16, 256))]
FITTED = {"t0": 7e-6, "tau0": 4.7e-6, "b_sm": 5.1e10, "e_m": 0.93, "t_m": 1.2e-5, "rho": 0.75, "u": 0.5, "v": 1.6}


def table(op: str = "attn_decode", source: str = "aic:vllm/0.24.0", kernel: str = "vllm_flash_attn_fa3", **changed: object) -> pd.DataFrame:
    decode = op.endswith("decode")
    rows = [
        {
            "op": op, "source": source, "dtype": "bfloat16", "kv_dtype": "bfloat16", "kernel": kernel, "batch": b,
            "seqlen_q": 1 if decode else min(c, 4096), "seqlen_kv": c if decode else min(c, 4096), "n_heads": h, "n_kv_heads": k,
            "head_dim": d, "window": 0, "latency_us": 20.0,
        }
        for b, c, h, k, d in GRID
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


def mixed_table() -> pd.DataFrame:
    rows = [
        {"source": "llmservingsim:vllm/0.19.0", "model": "meta-llama/Llama-3.1-8B", "tp": tp, "prefill_chunk": c, "kv_prefill": p,
         "n_decode": n, "kv_decode": k, "latency_us": 50.0}
        for tp in (1, 2) for c, p in ((0, 0), (64, 0), (512, 2048)) for n, k in ((0, 0), (4, 500), (128, 8000))
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (table(), ("attn_decode", "bf16", "vllm", "vllm/0.24.0 vllm_flash_attn_fa3")),
        (table(kv_dtype="fp8"), ("attn_decode", "fp8", "vllm", "vllm/0.24.0 vllm_flash_attn_fa3")),
        (table(source="burstsim:torch/2.5.0", kernel="sdpa"), ("attn_decode", "bf16", "any", "torch/2.5.0 sdpa")),
        (table("attn_prefill", "aic:trtllm/1.3.0rc20", "torch_flow"), ("attn_prefill", "bf16", "trtllm", "trtllm/1.3.0rc20 torch_flow")),
    ],
)
def test_rows_find_their_group(rows, wanted):
    (group,) = attention.groups(rows, H100)
    assert (group.op, group.dtype, group.framework, group.library) == wanted
    assert {parameter.name for parameter in group.parameters} == set(PARAMETERS[group.op])
    assert len(group.rows) == len(group.shapes) == len(group.cold) == len(group.seconds) == len(GRID)
    assert group.hull["context"].max() == rows["seqlen_kv"].max()


def test_latent_rows_find_their_group_and_eager_ones_do_not():
    for op in ("mla_decode", "mla_prefill"):
        (group,) = mla.groups(table(op, "aic:trtllm/1.3.0rc20", "default"), H100)
        assert (group.op, group.framework, set(group.shapes)) == (op, "trtllm", {"8", "16", "32"})
        assert {parameter.name for parameter in group.parameters} == set(PARAMETERS[op])
        assert (group.predict(H100, {p.name: p.start for p in group.parameters}) > 0).all()
        assert not mla.groups(table(op, "aic:vllm/0.14.0", "vllm_flashmla"), H100)


def test_odd_rows_are_left_out():
    assert not attention.groups(table(source="aic:trtllm/1.0.0", kernel="torch_flow"), A100)  # faster than the memory
    wide = table().assign(head_dim=[512] * 10 + [128] * (len(GRID) - 10))
    other = table().assign(kernel=["vllm_triton_attn"] * 10 + ["vllm_flash_attn_fa3"] * (len(GRID) - 10))
    one_new = table("attn_prefill").assign(seqlen_q=[1] * 10 + [64] * (len(GRID) - 10))
    for rows in (wide, other, one_new):
        (group,) = attention.groups(rows, H100)
        assert len(group.rows) == len(GRID) - 10


def test_flash_attention_2_neither_packs_single_heads_nor_windows():
    (second,) = attention.groups(table(kernel="vllm_flash_attn_fa2"), H100)
    (third,) = attention.groups(table(), H100)
    start = {parameter.name: parameter.start for parameter in second.parameters}
    assert start["least"] == 2
    assert {p.name: p.start for p in third.parameters}["least"] == 1
    (windowed,) = attention.groups(table(kernel="vllm_flash_attn_fa2", window=65_536), H100)
    slower = windowed.predict(H100, start) / second.predict(H100, start)
    grouped = (second.rows["n_heads"] > second.rows["n_kv_heads"]).to_numpy()
    assert np.allclose(slower[~grouped], 1.0)
    assert slower[grouped].max() > 2


def test_what_stays_in_the_cache_is_not_called_cold():
    (group,) = attention.groups(table(), H100)
    keys = 2 * 2 * group.rows["batch"] * group.rows["seqlen_kv"] * group.rows["n_kv_heads"] * group.rows["head_dim"]
    assert group.cold.any()
    assert (keys[group.cold] > 0.9 * H100.l2).all()
    assert (keys[~group.cold] < 1.01 * H100.l2).all()


def test_a_fit_finds_what_made_the_rows():
    (group,) = attention.groups(table(), H100)
    truth = {parameter.name: parameter.start for parameter in group.parameters} | FITTED
    made = group.predict(H100, truth)
    found = fit(lambda values: group.predict(H100, values), made, group.parameters)
    assert errors(group.predict(H100, found), made).p95 < 0.02
    assert found["e_m"] == pytest.approx(truth["e_m"], rel=0.05)


def test_mixed_rows_are_those_with_both_kinds():
    (group,) = attention.groups(mixed_table(), RTX4090)
    assert (group.op, group.dtype, group.framework, len(group.rows)) == ("attn_mixed", "bf16", "vllm", 8)
    assert {parameter.name for parameter in group.parameters} == set(PARAMETERS["attn_mixed"])
    start = {parameter.name: parameter.start for parameter in group.parameters}
    assert (group.predict(RTX4090, start) >= group.floor(RTX4090)).all()


def only(rows: pd.DataFrame, op: str, framework: str):
    found = [*attention.groups(rows, H100), *mla.groups(rows, H100)]
    (group,) = [group for group in found if (group.op, group.dtype, group.framework) == (op, "bf16", framework)]
    return group


@pytest.mark.parametrize(
    ("op", "framework", "median", "p95"),
    [("attn_decode", "vllm", 0.06, 0.24), ("attn_prefill", "vllm", 0.08, 0.27), ("mla_prefill", "trtllm", 0.05, 0.22)],
)
def test_measured_kernels_on_heads_no_fit_has_seen(op, framework, median, p95):
    """H100, cold rows, as serving meets them. Every third of the other rows is fitted, for speed."""
    if not TABLES.is_dir():
        pytest.skip("no kernel tables at ../shared/data/kernels")
    group = only(pd.read_csv(TABLES / "aic_h100_sxm_attention.csv", low_memory=False), op, framework)
    unseen = held_out(group.shapes)
    part = only(group.rows[~unseen].iloc[::3], op, framework)
    learned = fit(lambda values: part.predict(H100, values), part.seconds, part.parameters)
    tested = unseen & group.cold
    off = errors(group.predict(H100, learned)[tested], group.seconds[tested])
    assert off.points >= 25
    assert off.median < median
    assert off.p95 < p95
    assert (group.seconds >= group.floor(H100)).all()
