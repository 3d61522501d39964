"""Attention of one layer on one GPU: decoders, prompt chunks, or both in one step, flash or naive.

`decode` and `prefill` are the pure kernels; `Attention` binds them to heads, fits and window for a step model, which tabulates decode steps
(`decode`, arrays) and asks for mixed ones one by one (`mixed_seconds`, plain Python, microseconds). In a mixed step an engine calls either
one kernel for all rows (vLLM with FlashAttention: give `mixed_fit`) or one for each kind (FlashInfer, TensorRT-LLM: the times add up).

A window limits the keys that count. The mean length of decoders stands for their lengths: decode attention depends on the sum of KV tokens
(1.7-2.6 % median error over mixed lengths).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.physics import attention_decode
from sim.physics.attention_decode import Shape
from sim.physics.attention_mixed import Mixed
from sim.physics.attention_prefill import ENDLESS, Prefill
from sim.physics.base import Cost
from sim.physics.naive import Naive
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu

NOTHING = Cost(0.0, 0.0, 0.0, 0.0, 0.0)
Chunks = Sequence[tuple[int, int]]


class Heads(NamedTuple):
    """Heads on one GPU, after tensor parallelism. `queries`: new tokens of each decoder."""

    query: int
    kv: int
    dim: int
    queries: int = 1

    @property
    def shape(self) -> Shape:
        return Shape(self.query, self.kv, self.dim, 2.0 * self.dim, 4.0 * self.dim, 2.0 * self.dim, self.queries)


def explained(seconds: Any, compute: Any, memory: Any, fixed: Any) -> Cost:
    """A Cost: what the kernel takes beyond its fixed part counts as arithmetic or as traffic, whichever is larger."""
    busy = seconds - fixed
    if isinstance(seconds, float):
        return Cost(seconds, busy, 0.0, 0.0, fixed) if compute > memory else Cost(seconds, 0.0, busy, 0.0, fixed)
    bound = compute > memory
    return Cost(seconds, np.where(bound, busy, 0.0), np.where(bound, 0.0, busy), np.zeros_like(seconds), fixed)  # type: ignore[arg-type]


def decode(
    gpu: Gpu, fit: Fit, heads: Heads, kv_bytes: float, batch: Any, context: Any, *, window: int = 0, warm: bool = False
) -> Cost:  # fmt: skip
    """One layer's attention of `batch` sequences with a mean of `context` KV tokens each, the new one included. Arrays broadcast."""
    return _decode(gpu, fit, heads.shape, kv_bytes, batch, context, window, warm)


def _decode(gpu: Gpu, fit: Fit, shape: Shape, kv_bytes: float, batch: Any, context: Any, window: int, warm: bool = False) -> Cost:
    keys = np.minimum(context, window or ENDLESS)
    found = attention_decode.time(gpu, fit.parameters, shape, kv_bytes, batch, keys, window, warm)
    cost = explained(found.seconds, np.maximum(found.tiles, found.compute), found.memory, found.fixed)
    return Cost(*(float(part) for part in cost)) if np.ndim(found.seconds) == 0 else cost


def prefill(gpu: Gpu, fit: Fit, heads: Heads, kv_bytes: float, chunks: Chunks, window: int = 0) -> Cost:
    """One layer's attention of `chunks`, (new tokens, tokens before) each, in one variable-length call."""
    return _prefill(Prefill(gpu, fit.parameters, heads.shape, kv_bytes, window), chunks)


def _prefill(bound: Prefill, chunks: Chunks) -> Cost:
    if not chunks:
        return NOTHING
    work = bound.work(chunks)
    core, memory, fixed = bound.terms(work)
    return explained(bound.seconds(work), core, memory, fixed)


class Attention:
    """One kind of layer: `heads` per GPU, KV elements of `kv_bytes`, `window` keys (0: all). `mixed_fit` None: separate kernels.

    `flash` False: unfused attention that writes all scores to memory (sim.physics.naive).
    """

    naive: Naive | None = None

    def __init__(
        self, gpu: Gpu, decode_fit: Fit, prefill_fit: Fit, mixed_fit: Fit | None, heads: Heads, kv_bytes: float, window: int = 0,
        flash: bool = True,
    ):  # fmt: skip
        self._bind(gpu, (decode_fit, prefill_fit, mixed_fit), (heads.shape, heads.shape), kv_bytes, window)
        if not flash:
            self.naive = Naive(gpu, decode_fit, prefill_fit, heads.shape, kv_bytes)

    def _bind(self, gpu: Gpu, fits: tuple[Fit, Fit, Fit | None], shapes: tuple[Shape, Shape], kv_bytes: float, window: int) -> None:
        self.gpu, self.decode_fit, self.kv_bytes, self.window = gpu, fits[0], kv_bytes, window
        self.limit = window or ENDLESS
        self.shape = shapes[0]
        self.chunks = Prefill(gpu, fits[1].parameters, shapes[1], kv_bytes, window)
        self.varlen = Mixed(gpu, fits[2].parameters, shapes[1], kv_bytes, window) if fits[2] else None

    @property
    def together(self) -> bool:
        """Whether decoders and prompt chunks of a step are one kernel."""
        return self.varlen is not None and self.naive is None

    def decode(self, batch: Any, context: Any) -> Cost:
        """Decoders alone: `batch` >= 1 of them with a mean of `context` KV tokens, the new ones included. Arrays broadcast."""
        if self.naive:
            return self.naive.decode(batch, np.minimum(context, self.limit))
        return _decode(self.gpu, self.decode_fit, self.shape, self.kv_bytes, batch, context, self.window)

    def mixed(self, decoders: int, held: int, chunks: Chunks) -> Cost:
        """A step of both, plainly. `held`: KV tokens of the decoders, their new ones included, before the window's limit."""
        if not chunks:
            return self.decode(decoders, held / decoders) if decoders else NOTHING
        if self.varlen is None or self.naive or not decoders:
            first = self.naive.prefill(chunks) if self.naive else _prefill(self.chunks, chunks)
            second = self.decode(decoders, held / decoders) if decoders else NOTHING
            return Cost(*(a + b for a, b in zip(first, second, strict=True)))
        keys = min(held, decoders * self.limit)
        core, memory, fixed, _ = self.varlen.terms(decoders, keys, chunks)
        return explained(self.varlen.seconds(decoders, keys, chunks), core, memory, fixed)

    def beside(self, decoders: int, held: int, n: int, before: int) -> float:
        """`mixed_seconds` of one chunk of `n` tokens after `before` others beside decoders, where the two are one kernel."""
        return self.mixed_seconds(decoders, 0.0, held, ((n, before),))

    def mixed_seconds(self, decoders: int, decode_seconds: float, held: int, chunks: Chunks) -> float:
        """`mixed(...).seconds`, quickly, for at least one chunk. `decode_seconds`: what `decode` says of these decoders alone."""
        if self.naive:
            return self.naive.prefill_seconds(chunks) + (decode_seconds if decoders else 0.0)
        if self.varlen is None or not decoders:
            seconds = self.chunks.seconds(self.chunks.work(chunks))
            return seconds + decode_seconds if decoders else seconds
        return self.varlen.seconds(decoders, min(held, decoders * self.limit), chunks)
