"""Attention: never faster than the datasheet allows, never shorter for more work, and its quick form equal to its plain one."""
from __future__ import annotations

import timeit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.physics import attention_decode
from sim.physics.attention import Attention, Heads, decode, prefill
from sim.physics.attention_mixed import packed
from sim.physics.attention_prefill import ENDLESS, pairs
from sim.physics.mla import Latent, MlaAttention
from sim.spec.fit import PARAMETERS, Fit
from sim.spec.hardware import gpu

H100 = gpu("h100_sxm")
# As fitted to published rows of H100 (vLLM 0.24, FlashAttention 3) and of RTX PRO 6000 (mixed, vLLM 0.19, FlashAttention 2).
DECODE = {
    "t0": 7.4e-6, "tau0": 4.3e-6, "b_sm": 4.7e10, "e_m": 0.94, "t_m": 7e-6, "p": 3.6, "q": 1.0, "rho": 0.82, "t_comb": 1.3e-6, "t_s": 7e-9,
    "l2cap": 0.82, "gamma": 20.0, "hit": 2.0, "e_c": 0.9, "d": 0.2, "u": 0.5, "v": 1.9, "t_q": 5e-8, "t_fold": 1e-9, "least": 1.0,
    "most": 1e6,
}  # fmt: skip
PREFILL = {
    "t0": 1.15e-5, "e": 0.95, "soft": 3.1e-11, "o": 166.0, "c": 0.78, "pl": 3.4, "p": 1.11, "e_m": 0.95, "t_q": 1.4e-7, "t_kv": 6.2e-8,
}  # fmt: skip
MIXED = {
    "t0": 1.6e-6, "e": 0.7, "soft": 6.6e-11, "o": 200.0, "od": 174.0, "c": 0.93, "pl": 1.76, "p": 3.7, "e_m": 0.83, "t_x": 3.5e-7,
    "t_kv": 8.6e-8, "l2cap": 4.0, "gamma": 1.3, "tile": 64.0,
}  # fmt: skip
LLAMA = Heads(32, 8, 128)


def fit(op: str, values: dict[str, float], dtype: str = "bf16") -> Fit:
    assert set(values) == set(PARAMETERS[op])
    return Fit(op, dtype, "vllm", values, "h100_sxm", "fitted", "a test")


D, P, M = fit("attn_decode", DECODE), fit("attn_prefill", PREFILL), fit("attn_mixed", MIXED)
SECOND = fit("attn_decode", DECODE | {"least": 2.0, "t_fold": 3e-6})  # as FlashAttention 2
LATENT_DECODE = fit("mla_decode", {name: DECODE[name] for name in PARAMETERS["mla_decode"]})
LATENT_PREFILL = fit("mla_prefill", PREFILL)

heads = st.sampled_from([LLAMA, Heads(8, 1, 128), Heads(4, 4, 64), Heads(64, 1, 128), Heads(16, 2, 256)])
fits = st.sampled_from([D, SECOND])


@settings(max_examples=60, deadline=None)
@given(heads=heads, fit=fits, kv_bytes=st.sampled_from([1.0, 2.0]), batch=st.integers(1, 256), context=st.integers(1, 130_000))
def test_decode_is_never_below_the_roofline_and_its_parts_add_up(heads, fit, kv_bytes, batch, context):
    cost = decode(H100, fit, heads, kv_bytes, batch, context)
    assert cost.seconds == pytest.approx(sum(cost[1:]), rel=1e-12)
    assert cost.seconds > 2 * heads.kv * heads.dim * kv_bytes * batch * context / H100.bandwidth
    assert cost.seconds > 4 * heads.query * heads.dim * batch * context / H100.flops["bf16"]


@settings(max_examples=40, deadline=None)
@given(heads=heads, fit=fits, window=st.sampled_from([0, 1024]), fixed=st.integers(1, 60_000))
def test_decode_never_shortens_with_context_or_batch(heads, fit, window, fixed):
    by_context = decode(H100, fit, heads, 2.0, min(fixed, 256), np.arange(1, 40_000, 37), window=window).seconds
    by_batch = decode(H100, fit, heads, 2.0, np.arange(1, 1025), fixed, window=window).seconds
    assert (np.diff(by_context) >= -1e-15).all()
    assert (np.diff(by_batch) >= -1e-15).all()


def test_arrays_broadcast_and_agree_with_single_points():
    batch, context = np.arange(1, 5)[:, None], np.array([10.0, 500.5, 70_000.0])
    grid = decode(H100, D, LLAMA, 2.0, batch, context)
    assert grid.seconds.shape == (4, 3)
    assert grid.seconds[2, 1] == decode(H100, D, LLAMA, 2.0, 3, 500.5).seconds


def test_whole_waves_stay_whole_in_floating_point():
    # As many tiles as SMs, and a hair more by rounding, are one wave.
    shape = Heads(16, 16, 128).shape
    slow = DECODE | {"least": 1.0, "rho": 1.0}
    third = H100.sms / 3.0
    one = attention_decode.time(H100, slow, shape._replace(query=third, kv=third), 2.0, 3.0000000001, 64.0)
    two = attention_decode.time(H100, slow, shape._replace(query=third, kv=third), 2.0, 3.001, 64.0)
    assert one.tiles < 1.2 * slow["tau0"]
    assert two.tiles > 1.9 * slow["tau0"]


def test_eight_bit_keys_do_not_halve_the_time():
    eight = fit("attn_decode", DECODE | {"t0": 8.1e-6, "tau0": 5.3e-6, "b_sm": 2.4e10, "p": 2.3, "rho": 0.7, "u": 0.56, "v": 3.0}, "fp8")
    for batch, context in ((64, 8192), (128, 16384), (8, 131_072)):
        ratio = decode(H100, eight, LLAMA, 1.0, batch, context).seconds / decode(H100, D, LLAMA, 2.0, batch, context).seconds
        assert 0.5 < ratio < 0.95


def test_a_warm_cache_helps_small_keys_only():
    small, large = (decode(H100, D, LLAMA, 2.0, 8, context) for context in (1024, 65_536))
    assert decode(H100, D, LLAMA, 2.0, 8, 1024, warm=True).seconds < small.seconds
    assert decode(H100, D, LLAMA, 2.0, 8, 65_536, warm=True).seconds == pytest.approx(large.seconds, rel=1e-3)


def test_a_window_saturates_decode():
    layer = Attention(H100, D, P, None, LLAMA, 2.0, window=1024)
    full = Attention(H100, D, P, None, LLAMA, 2.0)
    assert layer.decode(16, 1024).seconds == layer.decode(16, 50_000).seconds == full.decode(16, 1024).seconds
    assert layer.mixed(16, 16 * 50_000, []).seconds == layer.decode(16, 1024).seconds
    assert full.decode(16, 50_000).seconds > 2 * layer.decode(16, 50_000).seconds


@settings(max_examples=60, deadline=None)
@given(heads=heads, n=st.integers(1, 8192), before=st.integers(0, 60_000), window=st.sampled_from([0, 128, 4096]))
def test_prefill_grows_with_tokens_and_prefix_and_respects_the_roofline(heads, n, before, window):
    def seconds(n, before):
        return prefill(H100, P, heads, 2.0, [(n, before)], window).seconds

    assert seconds(n, before) <= seconds(n + 1, before) * (1 + 1e-12)
    assert seconds(n, before) <= seconds(n, before + 64) * (1 + 1e-12)
    count = pairs(n, before, window or ENDLESS)
    assert seconds(n, before) >= 4 * heads.query * heads.dim * count / H100.flops["bf16"]


def test_prefill_utilisation_rises_with_length():
    """Published for H100, 32/8 heads: 98 TF/s at 512 tokens, 242 at 1k, 386 at 2k, 520 at 4k, 664 at 16k."""
    for tokens, published in ((512, 98), (1024, 242), (2048, 386), (4096, 520), (16_384, 664)):
        rate = 4 * 32 * 128 * tokens**2 / 2 / prefill(H100, P, LLAMA, 2.0, [(tokens, 0)]).seconds
        assert rate / 1e12 == pytest.approx(published, rel=0.25)


LAYERS = [
    Attention(H100, D, P, None, LLAMA, 2.0),
    Attention(H100, D, P, M, LLAMA, 2.0),
    Attention(H100, D, P, M, LLAMA, 2.0, window=1024),
    Attention(H100, D, P, packed(P, D), LLAMA, 2.0),
    Attention(H100, D, P, M, LLAMA, 2.0, flash=False),
    MlaAttention(H100, LATENT_DECODE, LATENT_PREFILL, Latent(16), 2.0),
    MlaAttention(H100, LATENT_DECODE, LATENT_PREFILL, Latent(16), 1.0, flash=False),
]


@settings(max_examples=120, deadline=None)
@given(
    layer=st.sampled_from(LAYERS), decoders=st.integers(0, 256), each=st.integers(1, 20_000),
    chunks=st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 30_000)), min_size=1, max_size=3),
)  # fmt: skip
def test_the_quick_mixed_step_is_the_plain_one(layer, decoders, each, chunks):
    held = decoders * each
    alone = layer.decode(decoders, each).seconds if decoders else 0.0
    plain = layer.mixed(decoders, held, chunks)
    assert layer.mixed_seconds(decoders, alone, held, chunks) == pytest.approx(plain.seconds, rel=1e-12)
    assert plain.seconds == pytest.approx(sum(plain[1:]), rel=1e-12)
    assert isinstance(plain.seconds, float)


def test_a_mixed_step_is_quick():
    for layer in LAYERS[:3]:
        each = min(timeit.repeat(lambda: layer.mixed_seconds(64, 1e-4, 64 * 2000, [(512, 1024)]), number=2000, repeat=3)) / 2000  # noqa: B023
        assert each < 15e-6  # 3 us on an idle core; a shared one must not fail


def test_unpacked_decoders_in_one_call_cost_more_than_the_sum():
    """Measured on vLLM's FlashAttention 2: 1.5 to 7.6 times the sum with many decoders of long context."""
    one, apart = Attention(H100, D, P, M, LLAMA, 2.0), Attention(H100, D, P, None, LLAMA, 2.0)
    ratio = one.mixed(128, 128 * 16_384, [(128, 0)]).seconds / apart.mixed(128, 128 * 16_384, [(128, 0)]).seconds
    assert 1.5 < ratio < 8
    both = Attention(H100, D, P, packed(P, D), LLAMA, 2.0)
    assert both.mixed(128, 128 * 16_384, [(128, 0)]).seconds < one.mixed(128, 128 * 16_384, [(128, 0)]).seconds


def test_flash_gains_more_the_longer_the_context():
    flash, naive = Attention(H100, D, P, None, LLAMA, 2.0), Attention(H100, D, P, None, LLAMA, 2.0, flash=False)
    gain = [naive.mixed(0, 0, [(tokens, 0)]).seconds / flash.mixed(0, 0, [(tokens, 0)]).seconds for tokens in (512, 2048, 8192, 32_768)]
    assert gain == sorted(gain)
    assert gain[0] > 1.0
    assert gain[-1] > 3.0


def test_latent_decode_reads_each_token_once_for_all_heads():
    few, many = (MlaAttention(H100, LATENT_DECODE, LATENT_PREFILL, Latent(heads), 2.0) for heads in (1, 128))
    assert few.decode(64, 32_768).seconds >= 64 * 32_768 * 576 * 2 / H100.bandwidth
    assert many.decode(64, 32_768).seconds >= 2 * 1088 * 128 * 64 * 32_768 / H100.flops["bf16"]
    assert many.decode(64, 32_768).seconds < 10 * few.decode(64, 32_768).seconds
