"""Mixture-of-experts tables: how their rows were dealt, which rows make a group, and how far off unseen shapes are."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibrate.fitting import errors, fit, held_out
from calibrate.ops import moe
from calibrate.ops.moe import _dealt, _loads
from sim.core.errors import BadInput
from sim.spec.fit import PARAMETERS
from sim.spec.hardware import gpu

TABLES = Path(__file__).parents[3] / "shared" / "data" / "kernels"
H100 = gpu("h100_sxm")
FIT = {
    "t0": 27e-6, "t_e": 0.14e-6, "move": 2.0, "away": 0.5, "e_c": 0.8, "a_tile": 8.0, "q": 0.6, "e_m": 0.85, "b_sm": 72e9, "p": 1.6,
    "l2cap": 0.6, "hit": 3.0,
}  # fmt: skip
SHAPES = [(4096, 14336, 8, 2), (2048, 768, 128, 8), (7168, 2048, 256, 8), (5120, 8192, 16, 1)]


def table(**changed: object) -> pd.DataFrame:
    rows = [
        {
            "op": "moe", "source": "aic:vllm/0.24.0", "dtype": "bfloat16", "kernel": "triton", "num_tokens": m, "hidden": hidden,
            "inter": inter, "n_experts": experts, "topk": topk, "moe_tp": tp, "moe_ep": ep, "distribution": how, "latency_us": 1000.0,
        }
        for hidden, inter, experts, topk in SHAPES for tp, ep in ((1, 1), (4, 1), (1, 8))
        for m, how in ((1, "balanced"), (12, "power_law_1.2"), (200, "power_law_1.01"), (3000, "balanced"), (16384, "power_law_1.2"))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


@pytest.mark.parametrize(("tokens", "experts", "active"), [(1, 8, 2), (3, 128, 8), (16, 128, 8), (17, 128, 8), (700, 16, 1), (900, 256, 8)])
@pytest.mark.parametrize("exponent", [1.0, 1.01, 1.2])
def test_loads_add_up_and_no_token_visits_an_expert_twice(tokens: int, experts: int, active: int, exponent: float) -> None:
    loads = _loads(tokens, experts, active, exponent)
    assert loads.sum() == tokens * active
    assert (loads >= 0).all()
    assert (loads <= tokens).all()


def test_rows_as_they_were_dealt() -> None:
    assert _dealt(1, 128, 8, 1, "balanced") == (8.0, 8.0)
    assert _dealt(64, 128, 8, 8, "balanced") == (16.0, 64.0)
    assert _dealt(1, 128, 8, 64, "balanced") == (1.0, 1.0)
    few, all_of_them = _dealt(8, 128, 8, 1, "power_law_1.2"), _dealt(4096, 128, 8, 1, "power_law_1.01")
    assert 8 < few[0] < 64
    assert few[1] == 64
    assert all_of_them == (128.0, 4096 * 8)
    busiest = _dealt(4096, 128, 8, 8, "power_law_1.01")
    assert busiest[1] > 1.3 * 4096
    assert busiest[0] == 16


def test_a_fit_finds_what_made_the_rows() -> None:
    (group,) = moe.groups(table(), H100)
    seconds = group.predict(H100, FIT)
    found = fit(lambda values: group.predict(H100, values), seconds, group.parameters)
    np.testing.assert_allclose(group.predict(H100, found), seconds, rtol=0.05)
    assert set(found) == set(PARAMETERS["moe"])
    assert (seconds >= group.floor(H100)).all()


def test_groups_keep_the_newest_library_and_the_kernel_most_measured() -> None:
    older = table(source="aic:vllm/0.9.1")
    other = table(kernel="cutlass").iloc[:20]
    trt, unknown = table(source="aic:trtllm/1.3.0rc20", dtype="fp8"), table(dtype="w4a8_fp4")
    deepep = table(op="moe_deepep_decode")
    found = moe.groups(pd.concat([older, table(), other, trt, unknown, deepep], ignore_index=True), H100)
    assert {(group.dtype, group.framework, group.library, len(group.rows)) for group in found} == {
        ("bf16", "vllm", "vllm/0.24.0 triton", 60), ("fp8", "trtllm", "trtllm/1.3.0rc20 triton", 60),
    }  # fmt: skip
    assert moe.groups(table(op="gemm"), H100) == []


def test_a_kernel_without_a_gate_reads_two_matrices() -> None:
    (gated,), (plain,) = (moe.groups(table(kernel=name, num_tokens=4096), H100) for name in ("flow", "flow_nongated"))
    np.testing.assert_allclose(plain.floor(H100) / gated.floor(H100), 2 / 3, rtol=0.1)


def test_cold_rows_are_those_no_cache_could_hold() -> None:
    (group,) = moe.groups(table(), H100)
    alone = group.rows["num_tokens"].eq(1) & group.rows["hidden"].eq(2048)
    assert not group.cold[alone].any()
    assert group.cold[group.rows["num_tokens"].eq(16384) & group.rows["hidden"].eq(7168) & group.rows["moe_ep"].eq(1)].all()


@pytest.mark.parametrize(
    "changed", [{"topk": 0}, {"hidden": np.nan}, {"moe_ep": 3}, {"distribution": "zipf"}, {"topk": 300}, {"num_tokens": 1.5}],
)  # fmt: skip
def test_rows_that_cannot_be_read_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="op moe: 60 rows that cannot be read") as refused:
        moe.groups(table(file="t.csv", line=2, **changed), H100)
    assert refused.value.problems[0].file == "t.csv"


def test_unseen_shapes_of_measured_kernels() -> None:
    path = TABLES / "aic_h100_sxm_moe.csv"
    if not path.is_file():
        pytest.skip("no kernel tables at ../shared/data/kernels")
    measured = pd.read_csv(path, low_memory=False)
    measured = measured[measured["source"].eq("aic:vllm/0.24.0") & measured["dtype"].isin(["bfloat16", "fp8_block"])]
    for group in moe.groups(measured, H100):
        held = held_out(group.shapes)
        found = fit(lambda values, g=group, k=~held: g.predict(H100, values)[k], group.seconds[~held], group.parameters)  # type: ignore[misc]
        shown = errors(group.predict(H100, found)[held], group.seconds[held])
        assert shown.median < 0.09, (group.dtype, shown)
        assert shown.mape < 0.13, (group.dtype, shown)
        assert (group.seconds < group.floor(H100)).mean() < 0.01
