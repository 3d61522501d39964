"""Whole layers of a decoder, random weights and real kernels: does a sum of kernel times make a step?

Each layer is what an engine launches: norm with residual, QKV product, positions with the cache write, attention over the paged cache,
output product, norm, gate and up product, activation, down product. Every layer has weights of its own; their KV shares as few caches as
stay cold, since 32 caches of a large batch fit on no GPU. Embedding and vocabulary are not part of a stack point, and the 70B shard runs
without its all-reduces. On a GPU the whole stack is captured in one CUDA graph, or launched eagerly.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from calibrate.bench.device import BF16, Bench
from calibrate.bench.elementwise import positions, rmsnorm_residual, rope_kvwrite, settled, silu_mul
from calibrate.bench.grid import EAGER_STACK, GRAPH_STACK, HEAD_DIM, PREFILL_STACK, SHARD_STACK, Point
from calibrate.bench.paged import Sequences, choose
from calibrate.bench.timing import Task


class Shape(NamedTuple):
    """One GPU's share of a decoder. `inter`: the width of the MLP. Heads have 128 dimensions."""

    hidden: int
    heads: int
    kv_heads: int
    inter: int
    layers: int
    vocabulary: int

    @property
    def projections(self) -> list[tuple[int, int]]:
        """(n, k) of a layer's four weights."""
        wide = self.heads * HEAD_DIM
        qkv = (self.heads + 2 * self.kv_heads) * HEAD_DIM
        return [(qkv, self.hidden), (self.hidden, wide), (2 * self.inter, self.hidden), (self.hidden, self.inter)]

    @property
    def weights(self) -> int:
        """Elements of a layer's weights."""
        return sum(n * k for n, k in self.projections)


LLAMA_8B = Shape(4096, 32, 8, 14336, 32, 128256)
SHARD_70B = Shape(8192, 8, 1, 3584, 10, 128256)
TINY = Shape(256, 2, 1, 512, 2, 1024)
STACKS = {GRAPH_STACK: LLAMA_8B, EAGER_STACK: LLAMA_8B, PREFILL_STACK: LLAMA_8B, SHARD_STACK: SHARD_70B}

Read = Callable[[torch.Tensor, int], torch.Tensor]


class Layers:
    """`shape.layers` decoder layers. `weights`: the four of every layer, then a norm weight, as `Layers.shapes` lists them."""

    def __init__(self, shape: Shape, bench: Bench, weights: list[torch.Tensor]):
        self.shape = shape
        self.layers = [weights[4 * i : 4 * i + 4] for i in range(shape.layers)]
        self.norm = weights[4 * shape.layers]
        tokens = torch.zeros(2, dtype=torch.int64, device=bench.device)
        x, q = weights[0][:2, : shape.hidden], torch.zeros(2, shape.heads, HEAD_DIM, dtype=BF16, device=bench.device)
        kv = torch.zeros(2, shape.kv_heads, HEAD_DIM, dtype=BF16, device=bench.device)
        self.rmsnorm, kernel = settled(rmsnorm_residual, bench, x, x, self.norm)
        self.silu, _ = settled(silu_mul, bench, torch.zeros(2, 2 * shape.inter, dtype=BF16, device=bench.device))
        spare = torch.zeros(4, shape.kv_heads, HEAD_DIM, dtype=BF16, device=bench.device)
        where = torch.arange(2, device=bench.device)
        self.rope, _ = settled(rope_kvwrite, bench, q, kv, kv, *positions(tokens), spare, spare.clone(), where)
        self.elementwise = kernel

    @staticmethod
    def shapes(shape: Shape) -> list[tuple[int, ...]]:
        return [*(shape.projections * shape.layers), (shape.hidden,)]

    def __call__(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, caches: list[tuple[torch.Tensor, torch.Tensor]],
        slots: list[torch.Tensor], read: Read,
    ) -> torch.Tensor:  # fmt: skip
        """x: (tokens, hidden) to the same, normed. `caches`, `slots`: per layer, the KV as (tokens, heads, D) and where new KV goes.

        `read(q, layer)` is attention over that layer's cache.
        """
        heads, kv = self.shape.heads, self.shape.kv_heads
        residual = torch.zeros_like(x)
        for i, (qkv, out, gate_up, down) in enumerate(self.layers):
            h, residual = self.rmsnorm(x, residual, self.norm)
            q, k, v = torch.split(F.linear(h, qkv).view(-1, heads + 2 * kv, HEAD_DIM), [heads, kv, kv], 1)
            q = self.rope(q, k, v, cos, sin, *caches[i], slots[i])
            x = F.linear(read(q, i).reshape(len(x), -1), out)
            h, residual = self.rmsnorm(x, residual, self.norm)
            x = F.linear(self.silu(F.linear(h, gate_up)), down)
        normed: torch.Tensor = self.rmsnorm(x, residual, self.norm)[0]
        return normed


def task(point: Point, bench: Bench) -> Task:
    shape = STACKS[point.family] if bench.cuda and bench.scale == 1 else TINY
    prompt = point.family == PREFILL_STACK
    queries, held = ([point.S], [point.S]) if prompt else ([1] * point.B, [point.L] * point.B)
    kernel = choose(bench)
    cache = 2 * sum(held) * shape.kv_heads * HEAD_DIM * BF16.itemsize
    copies = min(shape.layers, bench.copies(cache))
    beside = [*Layers.shapes(shape), (sum(queries), shape.hidden)]
    there = Sequences(bench, kernel, queries, held, shape.kv_heads, copies, BF16, beside)
    layers = Layers(shape, bench, there.beside[:-1])
    x = there.beside[-1]
    every_slot = [there.slots(copy) for copy in range(copies)]
    last = torch.tensor([length - 1 for length in held], device=bench.device)
    cos, sin = positions(torch.arange(point.S, device=bench.device) if prompt else last)
    caches, slots = [there.flat()] * shape.layers, [every_slot[i % copies] for i in range(shape.layers)]

    def call(_: int) -> torch.Tensor:
        return layers(x, cos, sin, caches, slots, lambda q, i: there.attend(q, i % copies))

    row: dict[str, Any] = {
        "op": "layer_stack", "dtype": "bfloat16", "kv_dtype": "bfloat16", "batch": len(held), "seqlen_q": queries[0], "seqlen_kv": held[0],
        "n_heads": shape.heads, "n_kv_heads": shape.kv_heads, "head_dim": HEAD_DIM, "window": 0, "hidden": shape.hidden,
        "inter": shape.inter, "layers": shape.layers, "kernel": f"{point.family}/{kernel.name}+{layers.elementwise}",
    }  # fmt: skip
    size = shape.layers * (shape.weights * BF16.itemsize + cache)
    cold = shape.layers * cache >= bench.cache and bench.cold(shape.weights * BF16.itemsize, shape.layers)
    graph = point.family in (GRAPH_STACK, SHARD_STACK)
    return Task(call, row, size, cold=cold, graph=graph)
