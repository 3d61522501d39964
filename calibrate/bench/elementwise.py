"""The small kernels between the products: norms, activations, position encoding with the cache write, quantising, lookup, sampling.

Engines run each as one kernel; so does this, by torch.compile on a GPU where it works (`kernel` = `inductor`), else by torch's own
operators one after another (`eager`: several passes over memory, slower than an engine's). All operands rotate beyond the cache, which is
the worst case: in an engine, what the kernel before wrote may still be there. Calls into compiled functions cost the host some tens of
microseconds each, which eager stacks and replays contain; graphs do not.
"""
from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from calibrate.bench.device import BF16, FP8, Bench
from calibrate.bench.grid import HEAD_DIM, Point
from calibrate.bench.timing import Task

EPSILON = 1e-5
KV_HEADS = 8  # beside the query heads whose positions are encoded
VOCABULARY = 128256
TOP_K = 50
TEMPERATURE = 0.8
FP8_MAX = 448.0
ROPE_BASE = 500_000.0
SHAPES = 64  # variants of one function that may be compiled
SLOTS = 1 << 16  # tokens of the cache that new KV is scattered over

Function = Callable[..., Any]


def rmsnorm_residual(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total = x + residual
    wide = total.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)).to(x.dtype) * weight, total


def silu_mul(both: torch.Tensor) -> torch.Tensor:
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def rope_kvwrite(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
    k_cache: torch.Tensor, v_cache: torch.Tensor, slots: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """q, k, v: (tokens, heads, D). cos, sin: (tokens, 1, D / 2). k and v go to `slots` of the caches (slot, KV heads, D)."""
    k_cache[slots] = _turned(k, cos, sin)
    v_cache[slots] = v
    return _turned(q, cos, sin)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def fp8_quant(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token by its own scale."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-6) / FP8_MAX
    return (x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, table)


def topk_sample(logits: torch.Tensor) -> torch.Tensor:
    """One of the most likely, drawn by exponential races: no trip to the host."""
    best, which = (logits.float() / TEMPERATURE).topk(min(TOP_K, logits.shape[-1]), -1)
    race = best.softmax(-1) / torch.empty_like(best).exponential_(1.0)
    return which.gather(-1, race.argmax(-1, keepdim=True))


def positions(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of rotary encoding for token positions: bf16 (tokens, 1, D / 2)."""
    turns = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2, device=tokens.device).float() / HEAD_DIM)
    angles = tokens.float()[:, None, None] * turns
    return angles.cos().to(BF16), angles.sin().to(BF16)


COMPILED: dict[Function, Function] = {}


def fused(function: Function, bench: Bench) -> Function:
    """The function as one kernel where that can be had. Compilers fail at the first call, if at all: `settled` looks."""
    if not bench.cuda or importlib.util.find_spec("triton") is None or function is topk_sample:
        return function
    if function not in COMPILED:
        for limit in ("recompile_limit", "cache_size_limit"):  # of two generations of torch: beyond it, functions run unfused
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, SHAPES)
        COMPILED[function] = torch.compile(function, dynamic=True)
    return COMPILED[function]


def settled(function: Function, bench: Bench, *args: Any) -> tuple[Function, str]:
    """What to call for `function` after a trial on `args`, and its name in the table."""
    try:
        with torch.no_grad():
            found = fused(function, bench)
            found(*args)
    except Exception as error:  # torch.compile raises what its compilers raise
        bench.settle()
        bench.refused[f"torch.compile {function.__name__}"] = str(error).splitlines()[0] if str(error) else type(error).__name__
        COMPILED[function] = found = function
    return found, "eager" if found is function else "inductor"


def task(point: Point, bench: Bench) -> Task:
    m, n, op = point.m, point.n, point.family
    function, size = globals()[op], _bytes(op, m, n)
    copies = bench.copies(size)
    args = _operands(op, m, n, copies, bench)
    call, kernel = settled(function, bench, *args(0))
    row = {"op": op, "dtype": "bfloat16", "kernel": kernel, "m": m, "hidden": n, "num_tokens": m}
    return Task(lambda i: call(*args(i)), row, size, copies, bench.cold(size, copies))


def _bytes(op: str, m: int, n: int) -> int:
    """Read and written by one fused kernel."""
    each = m * n * BF16.itemsize
    kv = m * KV_HEADS * HEAD_DIM * BF16.itemsize
    return {
        "rmsnorm_residual": 4 * each, "silu_mul": 3 * each, "rope_kvwrite": 2 * each + 4 * kv, "fp8_quant": each + m * n,
        "embedding": 2 * each, "topk_sample": each,
    }[op]  # fmt: skip


def _operands(op: str, m: int, n: int, copies: int, bench: Bench) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """The arguments of launch i."""
    if op == "rmsnorm_residual":
        x, residual, weight = bench.carve([(copies, m, n), (copies, m, n), (n,)])
        return lambda i: (x[i], residual[i], weight)
    if op == "silu_mul":
        (both,) = bench.carve([(copies, m, 2 * n)])
        return lambda i: (both[i],)
    if op == "embedding":
        rows = max(16, round(VOCABULARY * bench.scale))
        (table,) = bench.carve([(rows, n)])
        ids = torch.randint(rows, (copies, m), device=bench.device)
        return lambda i: (ids[i], table)
    if op == "rope_kvwrite":
        slots = max(m, round(SLOTS * bench.scale))
        heads, cache = n // HEAD_DIM, (slots, KV_HEADS, HEAD_DIM)
        q, k, v, k_cache, v_cache = bench.carve(
            [(copies, m, heads, HEAD_DIM), (copies, m, KV_HEADS, HEAD_DIM), (copies, m, KV_HEADS, HEAD_DIM), cache, cache]
        )
        where = torch.stack([torch.randperm(slots, device=bench.device)[:m] for _ in range(min(copies, 8))])
        cos, sin = positions(torch.arange(m, device=bench.device))
        return lambda i: (q[i], k[i], v[i], cos, sin, k_cache, v_cache, where[i % len(where)])
    (x,) = bench.carve([(copies, m, n)])
    return lambda i: (x[i],)
