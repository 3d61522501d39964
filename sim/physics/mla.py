"""Multi-head latent attention (DeepSeek V2 and V3): the same kernels on other shapes.

Decoding attends to the compressed latent, 512 values and 64 of rotary embedding per token, one KV head shared by all query heads: a group
of all heads, 576-wide keys, 512-wide values, each token read once. A prompt's keys and values are expanded to full heads first (a GEMM,
counted with the weights): 192-wide keys, 128-wide values, no groups. Engines run the two apart: a mixed step is their sum.
Source: DeepSeek-V2 report (arXiv 2405.04434), section 2.1.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.physics.attention import Attention
from sim.physics.attention_decode import Shape
from sim.physics.naive import Naive
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu

UNIT = 128.0  # of head-width terms, which have one value here


class Latent(NamedTuple):
    """Query heads on one GPU, and widths per token: latent, rotary part, and of expanded keys (without rotary part) and values.

    `queries`: new tokens of each decoder.
    """

    query: int
    latent: int = 512
    rope: int = 64
    nope: int = 128
    value: int = 128
    queries: int = 1

    @property
    def decode_shape(self) -> Shape:
        wide = self.latent + self.rope
        return Shape(self.query, 1, UNIT, wide, 2.0 * (wide + self.latent), wide + self.latent, self.queries)

    @property
    def prefill_shape(self) -> Shape:
        wide = self.nope + self.rope + self.value
        return Shape(self.query, self.query, wide / 2.0, wide, 2.0 * wide, wide)


class MlaAttention(Attention):
    """One layer of latent attention, with the interface of Attention. Fits are `mla_decode` and `mla_prefill`."""

    def __init__(self, gpu: Gpu, decode_fit: Fit, prefill_fit: Fit, heads: Latent, kv_bytes: float, flash: bool = True):
        self._bind(gpu, (decode_fit, prefill_fit, None), (heads.decode_shape, heads.prefill_shape), kv_bytes, 0)
        # Expanded keys are 16-bit activations whatever the cache holds; the naive form reads them as they are.
        if not flash:
            self.naive = Naive(gpu, decode_fit, prefill_fit, heads.prefill_shape._replace(queries=heads.queries), kv_bytes)
