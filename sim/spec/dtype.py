"""Number formats: what an element weighs in weights, activations and KV cache, and which of a chip's arithmetic units multiplies it.

Weight bytes include the group scales: int4 has one 16-bit scale per 128 weights, nvfp4 one byte per 16, mxfp4 one byte per 32, fp8_block
one 32-bit scale per 128 x 128 block. Formats that quantise activations on the fly pay for it with a kernel of its own before each GEMM.
"""
from __future__ import annotations

from typing import NamedTuple


class Dtype(NamedTuple):
    """`weight` and `activation` are bytes per element; `peak` names the entry of a chip's `flops` that multiplies it.

    `quantises`: activations are converted before each GEMM. `fit` names the kernels it runs on, where measured.
    """

    name: str
    weight: float
    activation: float
    peak: str
    quantises: bool
    fit: str


DTYPES = {
    dtype.name: dtype
    for dtype in (
        Dtype("bf16", 2.0, 2.0, "bf16", False, "bf16"),
        Dtype("fp16", 2.0, 2.0, "bf16", False, "bf16"),
        Dtype("fp8", 1.0, 1.0, "fp8", True, "fp8"),
        Dtype("fp8_block", 1.0 + 4 / 128**2, 1.0, "fp8", True, "fp8_block"),
        Dtype("int8", 1.0, 1.0, "int8", True, "int8"),  # w8a8
        Dtype("int8_weights", 1.0, 2.0, "bf16", False, "int8_weights"),  # w8a16
        Dtype("int4", 0.5 + 2 / 128, 2.0, "bf16", False, "int4"),  # w4a16
        Dtype("nvfp4", 0.5 + 1 / 16, 0.5 + 1 / 16, "nvfp4", True, "nvfp4"),
        Dtype("mxfp4", 0.5 + 1 / 32, 2.0, "bf16", False, "mxfp4"),  # weights only
        Dtype("mxfp4_mxfp8", 0.5 + 1 / 32, 1 + 1 / 32, "fp8", True, "mxfp4_mxfp8"),  # Blackwell's own way with mxfp4 checkpoints
    )
}
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0}
SIXTEEN_BIT = 2.0
