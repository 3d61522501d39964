"""Attention as an engine calls it: decode, decode of unequal lengths, prompts, prompt pieces after a prefix, and both in one call.

Decode, pieces and mixed calls read a paged cache (paged.py); whole prompts go through scaled_dot_product_attention, on a GPU by the same
FlashAttention (`kernel` names it, `layout` how the KV lies). The KV rotates beyond the cache. A decode batch of unequal lengths is a row of
its own (`attn_decode_hetero`, `seqlen_kv` the mean, `kv_tokens` the sum), so that nothing fitted on `attn_decode` has seen it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from calibrate.bench.device import BF16, FP8, Bench
from calibrate.bench.grid import HEAD_DIM, SEED, Point
from calibrate.bench.paged import Sequences, choose
from calibrate.bench.timing import Task
from sim.core.rng import stream

SHAPE_8B = (32, 8)


def task(point: Point, bench: Bench) -> Task:
    h, kv, b, s = point.H, point.K, point.B, point.S
    if point.kind == "attn_prefill":
        return _prompts(point, bench)
    if point.kind == "attn_chunk":
        row = {"op": "attn_prefill", "batch": 1, "seqlen_q": s, "seqlen_kv": point.prefix + s}
        return _over_cache(bench, [s], [point.prefix + s], h, kv, BF16, row)
    if point.kind == "attn_mixed":
        row = {"op": "attn_mixed", "batch": 1 + b, "prefill_chunk": s, "kv_prefill": point.prefix, "n_decode": b, "kv_decode": point.L}
        if (h, kv) == SHAPE_8B:
            row |= {"model": "meta-llama/Llama-3.1-8B", "tp": 1}  # published tables of mixed calls name heads so
        return _over_cache(bench, [s] + [1] * b, [point.prefix + s] + [point.L] * b, h, kv, BF16, row)
    held = lengths(point.mix, b, point.L)
    row = {"op": point.kind, "batch": b, "seqlen_q": 1, "seqlen_kv": round(sum(held) / b)}
    if point.mix:
        row["mix"] = point.mix
    return _over_cache(bench, [1] * b, held, h, kv, FP8 if point.family == "fp8kv" else BF16, row)


def lengths(mix: str, batch: int, mean: int) -> list[int]:
    """KV tokens of each request of a batch, `mean` on average (but for rounding), at least 1."""
    if mix.startswith("lognormal_s"):
        sigma = float(mix.removeprefix("lognormal_s"))
        weights = [float(w) for w in stream(SEED, f"calibration {mix} {batch}").lognormal(0.0, sigma, batch)]
    elif mix == "one_x16":
        weights = [16.0] + [1.0] * (batch - 1)
    elif mix == "half_x4":
        weights = [4.0] * (batch // 2) + [1.0] * (batch - batch // 2)
    else:
        weights = [1.0] * batch
    unit = mean * batch / sum(weights)
    return [max(1, round(unit * weight)) for weight in weights]


def _heads(h: int, kv: int) -> dict[str, Any]:
    return {"dtype": "bfloat16", "kv_dtype": "bfloat16", "n_heads": h, "n_kv_heads": kv, "head_dim": HEAD_DIM, "window": 0}


def _over_cache(
    bench: Bench, queries: Sequence[int], held: Sequence[int], h: int, kv: int, dtype: torch.dtype, row: dict[str, Any]
) -> Task:  # fmt: skip
    kernel = choose(bench, dtype)
    cache = 2 * sum(held) * kv * HEAD_DIM * dtype.itemsize
    copies = bench.copies(cache)
    there = Sequences(bench, kernel, queries, held, kv, copies, dtype, [(sum(queries), h, HEAD_DIM)])
    q = there.beside[0].to(dtype)
    about = _heads(h, kv) | {"kernel": kernel.name, "layout": kernel.layout, "kv_tokens": sum(held)} | row
    about["kv_dtype"] = "fp8" if dtype == FP8 else "bfloat16"
    size = cache + 2 * q.numel() * q.itemsize
    return Task(lambda i: there.attend(q, i), about, size, copies, bench.cold(cache, copies))


def _prompts(point: Point, bench: Bench) -> Task:
    b, s, h, kv = point.B, point.S, point.H, point.K
    cache = 2 * b * s * kv * HEAD_DIM * BF16.itemsize
    copies = bench.copies(cache)
    shape = (copies, b, s, kv, HEAD_DIM)
    q, k, v = (x.transpose(-2, -3) for x in bench.carve([(b, s, h, HEAD_DIM), shape, shape]))
    backends = [SDPBackend.FLASH_ATTENTION] if bench.cuda else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]

    def call(i: int) -> torch.Tensor:
        with sdpa_kernel(backends):
            return F.scaled_dot_product_attention(q, k[i], v[i], is_causal=True, enable_gqa=h != kv)

    row = _heads(h, kv) | {"op": "attn_prefill", "kernel": choose(bench).name, "layout": "dense", "batch": b}
    size = cache + 2 * q.numel() * q.itemsize
    return Task(call, row | {"seqlen_q": s, "seqlen_kv": s}, size, copies, bench.cold(cache, copies))
