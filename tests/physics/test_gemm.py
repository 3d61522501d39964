"""The GEMM form: bounds that hold for any parameters, and closed forms where one term alone remains."""
from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.physics.gemm import gemm, gemm_table, peak, quantise, roofline, transfer, utilisation
from sim.spec.dtype import DTYPES
from sim.spec.hardware import gpu

GPUS = {name: gpu(name) for name in ("a100_sxm_80gb", "h100_sxm", "b200", "rtx_pro_6000", "l40s", "mi300x")}
# Fitted to published tables: H100 and A100 bf16, H100 fp8.
H100 = {
    "t0": 1.87e-6, "e_c": 0.98, "a_tile": 4.9, "pro": 1.33e-6, "e_m": 0.84, "b_sm": 61e9, "b_l2": 4.7, "sk": 1.65e-6, "p": 3.7, "q": 0.19,
    "thr": 0.043, "hit": 3.1, "l2cap": 0.79,
}  # fmt: skip
A100 = {
    "t0": 2.42e-6, "e_c": 0.98, "a_tile": 5.1, "pro": 3.17e-6, "e_m": 0.77, "b_sm": 32e9, "b_l2": 2.2, "sk": 1.36e-6, "p": 4.2, "q": 0.76,
    "thr": 0.017, "hit": 2.8, "l2cap": 0.66,
}  # fmt: skip
FP8 = {
    "t0": 7.41e-6, "e_c": 0.92, "a_tile": 5.4, "pro": 1.88e-6, "e_m": 0.84, "b_sm": 53e9, "b_l2": 4.7, "sk": 1.48e-6, "p": 4.2, "q": 0.37,
    "thr": 0.033, "hit": 2.7, "l2cap": 0.78, "tq": 3.5e-6, "cb": 8.2, "h": 0.42,
}  # fmt: skip
# As good as nothing but arithmetic at the peak and memory at its bandwidth, in a sharp maximum.
IDEAL = {
    "t0": 0.0, "e_c": 0.95, "a_tile": 1e-9, "pro": 0.0, "e_m": 0.95, "b_sm": 1e15, "b_l2": 1e9, "sk": 1e3, "p": 64.0, "q": 0.0, "thr": 0.0,
    "hit": 1.0, "l2cap": 0.8,
}  # fmt: skip
BF16 = DTYPES["bf16"]
CHIPS, FITS, FORMATS = st.sampled_from(list(GPUS.values())), st.sampled_from([H100, A100, FP8]), st.sampled_from(list(DTYPES.values()))
SIZE = st.integers(1, 32768)


@given(CHIPS, FITS, FORMATS, SIZE, st.integers(64, 65536), st.integers(64, 65536))
@settings(max_examples=150, deadline=None)
def test_never_below_the_roofline_and_parts_add_up(chip, fit, dtype, m, n, k):
    cost = gemm(chip, fit, dtype, m, n, k)
    assert cost.seconds >= roofline(chip, dtype, m, n, k)
    assert cost.seconds >= n * k * dtype.weight / chip.bandwidth
    assert cost.compute + cost.memory + cost.network + cost.host == pytest.approx(float(cost.seconds), rel=1e-12)
    assert min(cost.compute, cost.memory, cost.host) >= 0


@given(CHIPS, FITS, FORMATS, SIZE, st.integers(64, 65536), st.lists(st.integers(1, 65536), min_size=8, max_size=32))
@settings(max_examples=150, deadline=None)
def test_time_never_falls_as_k_grows(chip, fit, dtype, m, n, ks):
    k = np.sort(np.array([*ks, 127, 128, 255, 256, 511, 512, 1023, 1024, 2047, 2048]))
    seconds = np.asarray(gemm(chip, fit, dtype, m, n, k).seconds)
    assert (np.diff(seconds) >= -1e-12 * seconds[1:]).all()


@given(CHIPS, FITS, FORMATS, st.integers(64, 65536), st.integers(64, 65536))
@settings(max_examples=60, deadline=None)
def test_a_table_never_falls_as_m_grows_and_keeps_its_parts(chip, fit, dtype, n, k):
    ms = np.unique(np.geomspace(1, 32768, 200).astype(int))
    table, plain = gemm_table(chip, fit, dtype, ms, n, k), gemm(chip, fit, dtype, ms, n, k)
    seconds = np.asarray(table.seconds)
    assert (np.diff(seconds) >= 0).all()
    assert np.array_equal(seconds, np.maximum.accumulate(np.asarray(plain.seconds)))
    assert np.allclose(table.compute + table.memory + table.host, seconds, rtol=1e-12)


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("fit", [H100, A100, {**H100, "a_tile": 3.0, "thr": 0.001, "q": 0.02}], ids=["H100", "A100", "limits"])
def test_large_shapes_stay_below_95_percent_of_the_peaks(name, fit):
    chip = GPUS[name]
    for size in (8192, 16384, 65536):
        seconds = float(gemm(chip, fit, BF16, size, size, size).seconds)
        assert 2 * size**3 / seconds / peak(chip, BF16) < 0.95
        assert 2 * size * size / float(gemm(chip, fit, BF16, 1, size, size).seconds) / chip.bandwidth < 0.95
    assert utilisation(fit) < 0.95


def test_arithmetic_alone():
    chip, n = GPUS["h100_sxm"], 132 * 256  # whole rounds of 128 x 256 tiles
    cost = gemm(chip, IDEAL, BF16, 8192, n, 8192)
    assert float(cost.seconds) == pytest.approx(2 * 8192 * n * 8192 / (0.95 * 989e12), rel=1e-6)
    assert cost.compute == cost.seconds


def test_weights_alone_and_cached():
    chip = GPUS["h100_sxm"]
    cost = gemm(chip, IDEAL, BF16, 1, 8192, 8192)
    moved = 2 * (8192 * 8192 + 8192 + 8192)
    assert float(cost.seconds) == pytest.approx(moved / (0.95 * 3.35e12), rel=1e-6)
    assert cost.memory == cost.seconds
    half = gemm(chip, {**IDEAL, "hit": 4.0}, BF16, 1, 8192, 8192, cached=0.5)
    assert float(half.seconds) == pytest.approx(float(cost.seconds) * (0.5 + 0.5 / 4), rel=1e-3)


def test_too_few_ctas_cannot_saturate_memory_and_splitting_helps():
    chip = GPUS["h100_sxm"]
    slow = float(gemm(chip, {**IDEAL, "b_sm": 20e9}, BF16, 1, 512, 8192).seconds)
    assert slow == pytest.approx(2 * (512 * 8192 + 512 + 8192) / (8 * 20e9), rel=0.01)  # 512 / 64 CTAs
    split = gemm(chip, {**IDEAL, "b_sm": 20e9, "sk": 1e-6}, BF16, 1, 512, 8192)
    assert float(split.seconds) < slow / 5
    assert float(split.host) >= 1e-6


def test_wave_quantisation_follows_q():
    chip = GPUS["a100_sxm_80gb"]
    full, over = 128 * 27, 128 * 27 + 1  # 27 x 4 tiles fill 108 SMs; one row more opens a second wave
    sharp, soft = {**IDEAL, "q": 1.0, "a_tile": 50.0}, {**IDEAL, "a_tile": 50.0}

    def step(fit):
        return float(gemm(chip, fit, BF16, over, 1024, 8192).seconds / gemm(chip, fit, BF16, full, 1024, 8192).seconds)

    assert step(soft) < 1.05 < step(sharp)


def test_a_missing_unit_multiplies_as_bf16():
    chip = GPUS["a100_sxm_80gb"]
    assert peak(chip, DTYPES["fp8"]) == chip.flops["bf16"]
    assert peak(GPUS["h100_sxm"], DTYPES["fp8"]) == pytest.approx(1979e12)


def test_weight_only_int4_is_quicker_for_few_tokens_and_no_quicker_for_many():
    chip = GPUS["h100_sxm"]
    few = [float(gemm(chip, H100, DTYPES[name], 1, 8192, 8192).seconds) for name in ("bf16", "int4")]
    many = [float(gemm(chip, H100, DTYPES[name], 16384, 8192, 8192).seconds) for name in ("bf16", "int4")]
    assert 2.0 < few[0] / few[1] < 4.0
    assert many[1] == pytest.approx(many[0], rel=0.05)


def test_quantising_large_activations_costs_a_pass_and_small_ones_are_discounted():
    chip = GPUS["h100_sxm"]
    large, small = quantise(chip, FP8, 32768, 16384), quantise(chip, FP8, 64, 4096)
    assert float(large.seconds) == pytest.approx(3.5e-6 + 8.2 * 32768 * 16384 / 3.35e12, rel=1e-3)
    assert float(small.memory) == pytest.approx(8.2 * 64 * 4096 / 3.35e12 / 1.42, rel=1e-3)
    assert small.host == pytest.approx(3.5e-6)
    ms = np.unique(np.geomspace(1, 65536, 300).astype(int))
    assert (np.diff(np.asarray(quantise(chip, FP8, ms, 8192).seconds)) >= 0).all()


def test_transfer_is_the_identity_on_one_chip_and_undoes_itself():
    one, other = GPUS["h100_sxm"], GPUS["b200"]
    assert transfer(H100, one, one) == pytest.approx(H100)
    there = transfer(H100, one, other)
    assert there["b_l2"] * other.bandwidth > H100["b_l2"] * one.bandwidth
    assert there["t0"] == H100["t0"]
    assert transfer(there, other, one) == pytest.approx(H100)


def test_broadcasts_and_a_table_is_quick():
    chip = GPUS["h100_sxm"]
    assert np.asarray(gemm(chip, H100, BF16, np.array([1, 64])[:, None], np.array([512, 1024, 2048]), 4096).seconds).shape == (2, 3)
    ms, took = np.arange(1, 161) * 50, []
    for _ in range(7):
        began = time.perf_counter()
        gemm_table(chip, H100, BF16, ms, 6144, 4096)
        took.append(time.perf_counter() - began)
    assert min(took) < 10e-3  # about 1 ms on an idle core
