"""Small kernels: a fixed time and bytes, fewer of them from memory while operands fit in L2; and what a table of them is read as."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibrate.fitting import errors, fit, held_out
from calibrate.ops.elementwise import groups
from sim.core.errors import BadInput
from sim.physics.elementwise import elementwise, floor, gated_activation, lookup, norm, rope, sample
from sim.spec.fit import PARAMETERS
from sim.spec.hardware import gpu

TABLES = Path(__file__).parents[3] / "shared" / "data" / "kernels"
H100, RTX = gpu("h100_sxm"), gpu("rtx_pro_6000")
FIT = {"t0": 2.5e-6, "e_m": 0.9, "hit": 4.0}
MOVED = np.geomspace(1, 1e10, 400)


@pytest.mark.parametrize("cold", [False, True])
def test_more_bytes_take_longer_and_never_less_than_the_datasheet_says(cold: bool) -> None:
    cost = elementwise(H100, FIT, MOVED, cold=cold)
    assert (np.diff(cost.seconds) > 0).all()
    assert (cost.seconds >= floor(H100, MOVED, cold)).all()
    np.testing.assert_allclose(cost.memory + cost.host, cost.seconds)


def test_cold_operands_come_at_the_bandwidth_of_memory() -> None:
    warm, cold = (elementwise(H100, FIT, [1e6, 1e10], cold=cold).memory for cold in (False, True))
    np.testing.assert_allclose(cold, np.array([1e6, 1e10]) / (0.9 * H100.bandwidth))
    assert warm[0] == pytest.approx(cold[0] / 4, rel=0.01)
    assert warm[1] == pytest.approx(cold[1], rel=0.01)


def test_operations_move_their_own_bytes() -> None:
    for cost, size in (
        (norm(H100, FIT, 512, 4096), 8 * 512 * 4096), (rope(H100, FIT, 512, 6144), 4 * 512 * 6144),
        (lookup(H100, FIT, 512, 4096), 4 * 512 * 4096),
        (gated_activation(H100, FIT, 512, 14336), 6 * 512 * 14336),
    ):  # fmt: skip
        assert cost == elementwise(H100, FIT, size)
    few, many = (sample(RTX, FIT, rows, 128_256) for rows in (1, 256))
    assert few.seconds == pytest.approx(25e-6, rel=0.1)  # as vLLM 0.19 measured on this GPU: 25 and 164 us
    assert many.seconds == pytest.approx(164e-6, rel=0.25)


def small_table(**changed: object) -> pd.DataFrame:
    names, source = ("layernorm", "rotary_emb", "act_fn", "embedding", "sampler(per_sequence)"), "llmservingsim:vllm/0.19.0"
    rows = [
        {"source": source, "model": "meta-llama/Llama-3.1-8B", "tp": tp, "layer": name, "tokens": tokens, "latency_us": 5.0}
        for tp in (1, 2) for name in names for tokens in (1, 64, 700, 9000)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


def test_a_fit_finds_what_made_the_rows() -> None:
    for group in groups(small_table(), RTX):
        assert set(PARAMETERS[group.op]) == {parameter.name for parameter in group.parameters} == set(FIT)
        seconds = group.predict(RTX, FIT)
        assert (seconds > group.floor(RTX)).all()
        found = fit(lambda values, group=group: group.predict(RTX, values), seconds, group.parameters)  # type: ignore[misc]
        np.testing.assert_allclose(group.predict(RTX, found), seconds, rtol=0.01)


def test_rows_find_their_kind_and_width() -> None:
    found = {group.op: group for group in groups(small_table(), RTX)}
    assert set(found) == {"norm", "rope", "activation", "embedding", "sampling", "elementwise"}
    assert {group.framework for group in found.values()} == {"vllm"}
    assert len(found["elementwise"].rows) == 4 * len(found["norm"].rows)
    assert found["activation"].hull["bytes"].max() == 6 * 9000 * 14336
    assert found["rope"].hull["bytes"].max() == 4 * 9000 * (32 + 16) * 128
    assert found["rope"].hull["bytes"].min() == 4 * (32 + 16) * 128 / 2


def test_rows_of_our_own_grid_are_cold_and_say_their_width() -> None:
    rows = pd.DataFrame({
        "source": "burstsim:torch/2.6", "op": ["silu_mul", "rmsnorm_residual", "gemm", "rope_kvwrite"], "m": 64, "hidden": 4096,
        "cold": True, "latency_us": 9.0,
    })  # fmt: skip
    found = {group.op: group for group in groups(rows, H100)}
    assert found["activation"].hull["bytes"].tolist() == [6 * 64 * 4096]
    cold = elementwise(H100, FIT, 6 * 64 * 4096, cold=True).seconds
    assert found["activation"].predict(H100, FIT) == pytest.approx(cold)
    assert len(found["elementwise"].rows) == 3


def test_a_model_that_nobody_knows_is_left_out_and_nonsense_refused() -> None:
    assert {group.op for group in groups(small_table(model="acme/none", hidden=4096), RTX)} == {"norm", "embedding", "elementwise"}
    assert groups(pd.DataFrame({"op": ["gemm"], "latency_us": [1.0]}), RTX) == []
    with pytest.raises(BadInput, match="rows without sizes"):
        groups(small_table(tokens=0), RTX)


def test_unseen_sizes_of_measured_kernels() -> None:
    path = TABLES / "llmservingsim_dense_layers.csv"
    if not path.is_file():
        pytest.skip("no kernel tables at ../shared/data/kernels")
    table = pd.read_csv(path)
    for group in groups(table[table["gpu"] == "RTX-PRO-6000"], RTX):
        held = held_out(group.shapes)
        found = fit(lambda values, g=group, k=~held: g.predict(RTX, values)[k], group.seconds[~held], group.parameters)  # type: ignore[misc]
        assert errors(group.predict(RTX, found)[held], group.seconds[held]).mape < 0.22, group.op
