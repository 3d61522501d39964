"""GEMM tables sorted into groups, and fits of them: on made-up rows whose parameters are known, and on published ones."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibrate.fitting import errors, fit, held_out
from calibrate.ops.gemm import groups, parameters
from sim.core.errors import BadInput
from sim.spec.dtype import DTYPES
from sim.spec.fit import wanted
from sim.spec.hardware import gpu

DATA = Path(__file__).parents[3] / "shared" / "data" / "kernels"
H100 = gpu("h100_sxm")


def rows(*entries):
    """(source, dtype, kernel, m, n, k, latency_us)"""
    names = ("source", "dtype", "kernel", "m", "n", "k", "latency_us")
    return pd.DataFrame([{"op": "gemm", **dict(zip(names, entry, strict=True))} for entry in entries])


def lattice(source, dtype, kernel="k"):
    ms = (1, 17, 33, 64, 129, 257, 513, 1025, 1537, 2561, 4096, 9000)
    sizes = [(m, n, k) for m in ms for n in (512, 1536, 5120, 16384) for k in (640, 2048, 7168, 16384)]
    return rows(*((source, dtype, kernel, m, n, k, 1.0) for m, n, k in sizes))


def test_dtypes_and_frameworks_of_tables():
    point = ("k", 64, 4096, 4096, 20.0)
    table = rows(
        ("aic:vllm/0.24.0", "bfloat16", *point), ("aic:trtllm/1.0.0", "sq", *point), ("aic:trtllm/1.0.0", "int8_wo", *point),
        ("aic:trtllm/1.0.0", "int4_wo", *point), ("aic:sglang/0.5", "fp8_block", *point), ("burstsim:torch/2.9.0", "fp8", *point),
        ("vidur", "float16", *point), ("aic:vllm/0.24.0", "nvfp4", *point), ("aic:vllm/0.24.0", "fp3", *point),
    )  # fmt: skip
    table = pd.concat([table, pd.DataFrame([{"op": "moe", "dtype": "bfloat16", "latency_us": 1.0}])], ignore_index=True)
    found = {(group.dtype, group.framework): group for group in groups(table, H100)}
    assert set(found) == {
        ("bf16", "vllm"), ("int8", "trtllm"), ("int8_weights", "trtllm"), ("int4", "trtllm"), ("fp8_block", "sglang"), ("fp8", "any"),
        ("bf16", "any"), ("nvfp4", "vllm"),
    }  # fmt: skip
    assert found["bf16", "vllm"].library == "vllm/0.24.0 k"
    assert all(len(group.rows) == 1 and group.op == "gemm" for group in found.values())


def test_newest_version_and_its_most_measured_kernel():
    table = rows(
        ("aic:vllm/0.9.1", "bfloat16", "old", 1, 512, 512, 9.0),
        ("aic:vllm/0.24.0", "bfloat16", "rare", 1, 512, 512, 8.0),
        ("aic:vllm/0.24.0", "bfloat16", "usual", 1, 512, 512, 7.0),
        ("aic:vllm/0.24.0", "bfloat16", "usual", 2, 512, 512, 7.0),
        ("aic:vllm/0.24.0", "bfloat16", "usual", 2, 256, 512, 7.0),  # thinner than the form covers
    )
    (group,) = groups(table, H100)
    assert group.library == "vllm/0.24.0 usual"
    assert list(group.hull["m"]) == [1, 2]
    assert list(group.shapes) == ["m1", "m2"]  # with so few weight shapes, token counts are held out


def test_weight_shapes_are_held_out_where_there_are_enough():
    table = rows(*(("aic:vllm/0.24.0", "bfloat16", "usual", 1, 512 * i, 512, 7.0 * i) for i in range(1, 14)))
    (group,) = groups(table, H100)
    assert list(group.shapes) == [f"{512 * i}x512" for i in range(1, 14)]


def test_a_table_without_gemms_or_without_optional_columns():
    assert groups(pd.DataFrame([{"op": "moe", "latency_us": 1.0}]), H100) == []
    (group,) = groups(pd.DataFrame([{"op": "gemm", "dtype": "bf16", "m": 1, "n": 512, "k": 512, "latency_us": 3.0}]), H100)
    assert (group.framework, group.library) == ("any", "")


@pytest.mark.parametrize("m", [np.nan, 0, "many"])
def test_rows_without_sizes_are_refused(m):
    table = rows(("vidur", "bf16", "k", m, 4096, 4096, 20.0)).assign(file="t.csv", line=2)
    with pytest.raises(BadInput, match=r"op gemm: 1 rows without sizes.*m, n and k of at least 1 are wanted"):
        groups(table, H100)


def test_parameters_are_those_a_profile_wants():
    for dtype in DTYPES.values():
        assert {p.name for p in parameters(dtype)} == set(wanted("gemm", dtype.name))
        assert all(p.low < p.start < p.high for p in parameters(dtype))


def test_small_weights_stay_in_cache_in_published_tables_only():
    published, own = groups(lattice("aic:vllm/0.24.0", "bfloat16"), H100)[0], groups(lattice("burstsim:torch/2.9.0", "bfloat16"), H100)[0]
    start = {p.name: p.start for p in published.parameters}
    warm, cold = published.predict(H100, start), own.predict(H100, start)
    small = (published.hull["n"] * published.hull["k"] < 1e6) & (published.hull["m"] == 1)
    large = published.hull["n"] * published.hull["k"] > 1e8
    assert small.any()
    assert (warm[small] < cold[small]).all()
    assert warm[large] == pytest.approx(cold[large], rel=1e-3)
    assert own.cold.all()
    assert published.cold[large].all()
    assert not published.cold[small].any()
    assert (published.floor(H100) <= warm).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_round_trip_recovers_the_times_of_unseen_shapes(dtype):
    (group,) = groups(lattice("aic:trtllm/1.3.0rc20", dtype), H100)
    shifts = {"t0": 1.3, "pro": 0.7, "b_sm": 0.8, "b_l2": 1.2, "q": 1.8, "thr": 0.7, "sk": 1.4, "e_m": 0.95, "a_tile": 1.2}
    truth = {p.name: p.start * shifts.get(p.name, 1.0) for p in group.parameters}
    seconds, seen = group.predict(H100, truth), ~held_out(group.shapes)
    found = fit(lambda values: group.predict(H100, values)[seen], seconds[seen], group.parameters)
    apart = np.abs(group.predict(H100, found) / seconds - 1.0)
    assert np.quantile(apart[~seen], 0.95) < 0.02


@pytest.mark.skipif(not DATA.is_dir(), reason="the measured tables (shared/data/kernels) are not here")
@pytest.mark.parametrize(("dtype", "median", "p95"), [("bf16", 0.045, 0.16), ("fp8", 0.035, 0.12)])
def test_unseen_shapes_of_an_h100(dtype, median, p95):
    """The goals on the library they were set with (TensorRT-LLM 1.3.0rc20)."""
    table = pd.read_csv(DATA / "aic_h100_sxm_gemm.csv")
    group = next(g for g in groups(table, H100) if (g.dtype, g.framework) == (dtype, "trtllm"))
    unseen = held_out(group.shapes)
    found = fit(lambda values: group.predict(H100, values)[~unseen], group.seconds[~unseen], group.parameters)
    shown = errors(group.predict(H100, found)[unseen], group.seconds[unseen])
    assert shown.points > 40
    assert shown.median < median
    assert shown.p95 < p95
