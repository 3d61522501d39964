"""Decode attention: one new query per sequence against its cached keys and values.

A kernel cuts the work into tiles: one per sequence and KV head (the query heads that share a KV head are packed into one tile of up to 64
rows), and each tile's keys over S workers when there are fewer tiles than SMs. Time is the largest of waves of tiles, memory traffic and
arithmetic, softened where they meet:

    w     = waves of W S tiles over the SMs, the later ones overlapping by `rho`
    tile  = tau0 (D/128)^d + keys per worker x bytes per key / b_sm, bytes growing with D as (1-u) (D/128)^v + u
    mem   = m (1 + t_m / (m + t_m)),  m = bytes / (e_m BW)                  # the memory system takes t_m to come up to speed
    t     = t0 + t_fold [packed] + t_q B H/SM + min over S of ( (w tile)^p + mem^p + comp^p )^(1/p) + [S > 1] (t_comb + t_s S B H/SM)

Beyond a plain split-KV form: `t_m` (0.5-0.7 of the bandwidth at 100 MB of KV, 0.9 at 1 GB: three points of the median), `rho`, `u`, `v`
(head dims other than 128), and the best S in place of a continuous one, which keeps time monotone in batch and context, as it is for any S.
FlashAttention 2 packs, and splits, only groups of two query heads or more (`least`) and only without a window; TensorRT-LLM's kernels pack
up to 32 (`most`); what is not packed takes a tile per query head, and all of its keys.

A sequence whose drafted tokens are verified brings several queries: they are further rows of the same tiles, over keys read once. Nobody
has published a measurement of it; its rows are priced as those of a group are.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.spec.hardware import Gpu

SPLITS = np.array([1.0, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32])  # engines allow 32 workers per sequence inside a CUDA graph
CHUNK = 128.0  # keys; no worker takes less
ROWS = 64.0  # query rows of one tile
MMA = 16.0  # rows that the tensor cores multiply at least
NEUTRAL = {"d": 0.0, "u": 0.0, "v": 1.0, "t_fold": 0.0, "t_q": 0.0, "least": 1.0, "most": 1e9}
NUDGE = 1.0 - 1e-9  # 128 x 1.03125 / 132 must count as one wave


class Shape(NamedTuple):
    """What a kernel sees of the heads on one GPU. Each field is a number, or an array with one entry per point.

    `query` and `kv` heads; `dim` for what depends on the head's width; elements read per key and KV head (`per_key`); FLOP per pair of
    query and key and query head (`per_pair`); elements of query and output per query head (`per_row`). `queries`: new tokens of a sequence.
    """

    query: Any
    kv: Any
    dim: Any
    per_key: Any
    per_pair: Any
    per_row: Any
    queries: Any = 1.0


class Time(NamedTuple):
    """Seconds, and the terms they come from: waves of tiles, memory traffic, arithmetic, and fixed parts; `splits` is the best S."""

    seconds: np.ndarray
    tiles: np.ndarray
    memory: np.ndarray
    compute: np.ndarray
    fixed: np.ndarray
    splits: np.ndarray


def floor(gpu: Gpu, shape: Shape, kv_bytes: Any, batch: Any, context: Any) -> tuple[Any, Any]:
    """The least seconds by the datasheet: (arithmetic at the dense 16-bit peak, compulsory traffic at the full bandwidth)."""
    flops = shape.per_pair * shape.query * shape.queries * batch * context
    return flops / gpu.flops["bf16"], traffic(shape, kv_bytes, batch, context) / gpu.bandwidth


def traffic(shape: Shape, kv_bytes: Any, batch: Any, context: Any) -> Any:
    """Bytes of keys and values, once each, and of queries and output in 16 bits."""
    return batch * (context * shape.kv * shape.per_key * kv_bytes + 2.0 * shape.query * shape.queries * shape.per_row)


def time(
    gpu: Gpu, parameters: Mapping[str, float], shape: Shape, kv_bytes: Any, batch: Any, context: Any, window: Any = 0, warm: bool = False
) -> Time:  # fmt: skip
    """Decode attention of `batch` sequences with `context` keys each (arrays broadcast; the new token included, the window applied).

    `kv_bytes` per element. `warm`: as in a benchmark that repeats one call, what fits in the L2 cache stays there. Serving never sees that.
    """
    p = {**NEUTRAL, **parameters}
    arrays = (batch, context, window, kv_bytes, *shape)
    b, keys, window, kv_bytes, *fields = (array[..., None] for array in np.broadcast_arrays(*(np.asarray(a, float) for a in arrays)))
    s = Shape(*fields)
    group = s.query / s.kv
    packed = (group > p["least"] - 0.5) & (group < p["most"] + 0.5) & ((p["least"] < 1.5) | (window == 0))
    per_head = np.where(packed, np.ceil(group * s.queries / ROWS), group * np.ceil(s.queries / ROWS))
    splits = np.where(packed, SPLITS, 1.0)

    wide = s.dim / 128.0
    x = b * s.kv * per_head * splits / gpu.sms
    waves = (1.0 - p["q"]) * np.maximum(x, 1.0) + p["q"] * np.maximum(np.ceil(x * NUDGE), 1.0)
    each = np.where(splits > 1, np.maximum(keys / splits, CHUNK), keys)
    streamed = s.per_key / s.dim * 128.0 * kv_bytes * ((1.0 - p["u"]) * wide ** p["v"] + p["u"])
    tiles = (1.0 + p["rho"] * (waves - 1.0)) * (p["tau0"] * wide ** p["d"] + each * streamed / p["b_sm"])

    moved = traffic(s, kv_bytes, b, keys)
    missed: Any = 1.0
    if warm:
        missed = 1.0 / (1.0 + (p["l2cap"] * gpu.l2 / moved) ** p["gamma"])
        missed = missed + (1.0 - missed) / p["hit"]
    memory = moved * missed / (p["e_m"] * gpu.bandwidth)
    memory = memory * (1.0 + p["t_m"] / (memory + p["t_m"]))
    rows = np.where(packed, np.ceil(group * s.queries / MMA * NUDGE) * MMA, group * np.ceil(s.queries / MMA) * MMA)
    compute = s.per_pair * b * s.kv * keys * rows / (p["e_c"] * gpu.flops["bf16"])

    most = np.maximum(np.maximum(tiles, memory), compute)
    norm = (tiles / most) ** p["p"] + (memory / most) ** p["p"] + (compute / most) ** p["p"]
    combined = p["t_comb"] + p["t_s"] * splits * b * s.query * s.queries * wide / gpu.sms
    busy = most * norm ** (1.0 / p["p"]) + np.where(splits > 1, combined, 0.0)
    best = busy.argmin(-1)[..., None]
    fixed = (p["t0"] + p["t_fold"] * (packed & (group > 1)) + p["t_q"] * b * s.query * s.queries * wide / gpu.sms)[..., 0]
    seconds = fixed + np.take_along_axis(busy, best, -1)[..., 0]
    if not warm:
        seconds = np.maximum(seconds, np.maximum(*floor(gpu, s, kv_bytes, b, keys))[..., 0])
    chosen = np.take_along_axis(np.broadcast_to(splits, busy.shape), best, -1)[..., 0]
    return Time(seconds, np.take_along_axis(tiles, best, -1)[..., 0], memory[..., 0], compute[..., 0], fixed, chosen)
