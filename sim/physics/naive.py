"""Attention without fusion: every score goes to memory and back, several times. What FlashAttention was made to avoid.

Three kernels: Q K^T writes a score per query and key of the whole rectangle (a mask hides the future, but its scores are computed), the
softmax with its mask reads and writes them twice, P V reads the probabilities: six passes of 16 bits. Efficiencies are those of the fused
kernel's arithmetic and of decode's traffic, so that the difference shows the method, not the tuning. Judgement; not measured.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.physics.attention_decode import Shape
from sim.physics.attention_prefill import peak
from sim.physics.base import Cost
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu

KERNELS = 3
SCORE_BYTES = 6 * 2.0
Chunks = Sequence[tuple[int, int]]


class Naive:
    """Bound to a GPU, the fits of the fused kernels, and heads."""

    def __init__(self, gpu: Gpu, decode_fit: Fit, prefill_fit: Fit, shape: Shape, kv_bytes: float):
        self.shape, self.kv_bytes, self.queries = shape, kv_bytes, shape.queries
        self.fixed = KERNELS * min(decode_fit["t0"], prefill_fit["t0"])
        self.flops = min(prefill_fit["e"] * peak(gpu, kv_bytes), gpu.flops["bf16"])
        self.bandwidth = decode_fit["e_m"] * gpu.bandwidth

    def _terms(self, rows: Any, keys: Any, held: Any) -> tuple[Any, Any]:
        """Seconds of (arithmetic, traffic): `rows` queries x `keys` each give rows * keys scores a head; `held` KV tokens are read."""
        s = self.shape
        scores = rows * keys * s.query
        moved = scores * SCORE_BYTES + held * s.kv * s.per_key * self.kv_bytes + 2.0 * rows * s.query * s.per_row
        return s.per_pair * scores / self.flops, moved / self.bandwidth

    def decode(self, batch: Any, context: Any) -> Cost:
        """As of Attention. The kernels follow one another, so that their times add up."""
        compute, memory = self._terms(batch * self.queries, np.asarray(context, float), batch * context)
        parts = (self.fixed + compute + memory, compute, memory, np.zeros_like(memory), np.full_like(memory, self.fixed))
        return Cost(*(float(part) for part in parts)) if np.ndim(memory) == 0 else Cost(*parts)

    def prefill(self, chunks: Chunks) -> Cost:
        terms = [self._terms(n, before + n, before + n) for n, before in chunks]
        compute, memory = sum(term[0] for term in terms), sum(term[1] for term in terms)
        return Cost(self.prefill_seconds(chunks), compute, memory, 0.0, self.fixed)

    def prefill_seconds(self, chunks: Chunks) -> float:
        seconds = self.fixed
        for n, before in chunks:
            compute, memory = self._terms(n, before + n, before + n)
            seconds += compute + memory
        return float(seconds)
