"""How long the small kernels take, which move bytes and compute next to nothing: norms, rotary embedding, activation, lookup, sampling.

    t = t0 + bytes (1 - z + z/hit) / (e_m BW) ;  z = 1 / (1 + (bytes/L2)^2)

What a kernel reads was written just before by its neighbour, so a share z of small operands never leaves L2, which is `hit` times as fast;
serving engines and in-place profiles meet that, rotated benchmarks (`cold`) do not. The plain form t0 + bytes/(e_m BW)
is the case z = 0. Bytes are those of the fused kernels of today's engines, with 16-bit activations. Fitted in place on vLLM 0.19,
t0 is 2 to 3 us and e_m about 0.9; kernels of 2023 reached 0.3 to 0.6 (norms upcast, lookups masked).
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from sim.physics.base import Cost
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu

# vLLM's sampler is a chain of small kernels over the logits, which it first turns into 32-bit; with these two figures one fit of small
# kernels gives the measured 25 us at one row and 160 us at 256 rows of 128,256 logits (RTX PRO 6000).
SAMPLER_KERNELS = 10
LOGIT_BYTES = 6.0  # read in 16 bits, written in 32; read again from L2

Parameters = Fit | Mapping[str, float]


def elementwise(gpu: Gpu, fit: Parameters, moved: ArrayLike, kernels: int = 1, cold: ArrayLike = False) -> Cost:
    """`kernels` kernels that read and write `moved` bytes in all; arrays over `moved`. `cold` (bool): operands were not in L2 before."""
    moved = np.asarray(moved, float)
    resident = np.where(cold, 0.0, 1.0 / (1.0 + (moved / gpu.l2) ** 2))
    memory = moved * (1.0 - resident + resident / fit["hit"]) / (fit["e_m"] * gpu.bandwidth)
    fixed = np.full_like(memory, kernels * fit["t0"])
    none = np.zeros_like(memory)
    return Cost(*cast("list[float]", [fixed + memory, none, memory, none, fixed]))


def floor(gpu: Gpu, moved: ArrayLike, cold: ArrayLike = False) -> np.ndarray:
    """The least seconds by the datasheet. L2 can give what it held before and keep what is written: its size twice."""
    moved = np.asarray(moved, float)
    return np.asarray(np.maximum(moved - np.where(cold, 1.0, 2.0) * gpu.l2, 0.0) / gpu.bandwidth)


def norm_bytes(tokens: ArrayLike, hidden: ArrayLike) -> np.ndarray:
    """RMSNorm fused with the residual's addition: both read, both written."""
    return _bytes(4, tokens, hidden)


def rope_bytes(tokens: ArrayLike, width: ArrayLike) -> np.ndarray:
    """Rotary embedding and the write into the KV cache: `width` elements of queries, keys and values of one token, read and written."""
    return _bytes(2, tokens, width)


def activation_bytes(tokens: ArrayLike, inner: ArrayLike) -> np.ndarray:
    """Gate and up projections of `inner` elements each read, their product written."""
    return _bytes(3, tokens, inner)


def lookup_bytes(tokens: ArrayLike, hidden: ArrayLike) -> np.ndarray:
    """A row of the embedding table read and written."""
    return _bytes(2, tokens, hidden)


def _bytes(passes: int, tokens: ArrayLike, width: ArrayLike) -> np.ndarray:
    return np.asarray(passes * SIXTEEN_BIT * np.asarray(tokens, float) * np.asarray(width, float))


def norm(gpu: Gpu, fit: Parameters, tokens: ArrayLike, hidden: float) -> Cost:
    """Residual addition and RMSNorm of `tokens` rows of `hidden`."""
    return elementwise(gpu, fit, norm_bytes(tokens, hidden))


def rope(gpu: Gpu, fit: Parameters, tokens: ArrayLike, width: float) -> Cost:
    """Rotary embedding with the cache write; `width` is (query + 2 KV heads) x head size on this GPU."""
    return elementwise(gpu, fit, rope_bytes(tokens, width))


def gated_activation(gpu: Gpu, fit: Parameters, tokens: ArrayLike, inner: float) -> Cost:
    """The gated activation of an MLP with `inner` columns on this GPU."""
    return elementwise(gpu, fit, activation_bytes(tokens, inner))


def lookup(gpu: Gpu, fit: Parameters, tokens: ArrayLike, hidden: float) -> Cost:
    """The embedding of `tokens` tokens."""
    return elementwise(gpu, fit, lookup_bytes(tokens, hidden))


def sample(gpu: Gpu, fit: Parameters, rows: ArrayLike, vocab: float) -> Cost:
    """Softmax and choice of one token in each of `rows` rows of `vocab` logits."""
    return elementwise(gpu, fit, LOGIT_BYTES * np.asarray(rows, float) * vocab, SAMPLER_KERNELS)


def choose(gpu: Gpu, fit: Parameters, rows: ArrayLike, vocab: float) -> Cost:
    """The likeliest token in each of `rows` rows of `vocab` 16-bit logits: one kernel that reads them."""
    return elementwise(gpu, fit, SIXTEEN_BIT * np.asarray(rows, float) * vocab)
