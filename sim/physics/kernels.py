"""How long one kernel takes on one GPU: a roofline with fitted efficiencies and a fixed time per kernel.

t = t0 + max(arithmetic / (e_c P), bytes / (e_m BW)); P and BW are the datasheet's dense peak and bandwidth, t0, e_c and e_m come from the
GPU's profile. Of each kernel the larger side counts as its cause (compute or memory), t0 as host time. Per-kernel error of this form on
unseen shapes: 8-12 % mean for GEMMs, about 20 % for attention.
"""
from __future__ import annotations

from sim.physics.base import Cost
from sim.spec.hardware import Gpu
from sim.spec.llm import ACTIVATION_BYTES, SIXTEEN_BIT, WEIGHT_BYTES, Matrix

ZERO = Cost(0.0, 0.0, 0.0, 0.0, 0.0)


def total(costs: list[tuple[float, Cost]]) -> Cost:
    """Sum of costs, each taken a number of times."""
    seconds = compute = memory = network = host = 0.0
    for times, cost in costs:
        seconds += times * cost.seconds
        compute += times * cost.compute
        memory += times * cost.memory
        network += times * cost.network
        host += times * cost.host
    return Cost(seconds, compute, memory, network, host)


def roofline(fixed: float, compute: float, memory: float) -> Cost:
    """A kernel that needs `compute` seconds of arithmetic and `memory` seconds of traffic, overlapped, after `fixed` seconds."""
    if compute > memory:
        return Cost(fixed + compute, compute, 0.0, 0.0, fixed)
    return Cost(fixed + memory, 0.0, memory, 0.0, fixed)


class Kernels:
    """The kernels of one GPU, their rates read from its profile once.

    int4 and mxfp4 weights are widened on the fly: they compute at the bf16 peak with 16-bit activations. So does any dtype that the chip
    cannot multiply (fp8 on Ampere). `assumed` lists for the report what a profile has no fit for.
    """

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        self.physics = gpu.physics
        self.assumed: set[str] = set()
        self._rates: dict[str, tuple[float, float, float, float]] = {}

    def rates(self, dtype: str) -> tuple[float, float, float, float]:
        """Of a GEMM: fixed seconds, FLOP/s, bytes/s, bytes per activation element."""
        if dtype not in self._rates:
            fits = self.physics["gemm"]
            name = {"fp16": "bf16", "mxfp4": "int4"}.get(dtype, dtype)
            native = name != "int4" and name in self.gpu.flops
            fitted = name in fits and (native or name == "int4")
            if not fitted:
                self.assumed.add(f"{dtype} GEMM on {self.gpu.name}: no fit, the efficiencies of bf16 are taken")
            fit = fits[name if fitted else "bf16"]
            peak = self.gpu.flops[name if native else "bf16"]
            wide = ACTIVATION_BYTES[dtype] if native else SIXTEEN_BIT
            self._rates[dtype] = (fit["t0"], fit["compute"] * peak, fit["memory"] * self.gpu.bandwidth, wide)
        return self._rates[dtype]

    def gemm(self, dtype: str, m: float, matrix: Matrix, tp: int) -> Cost:
        """y[m, n] = x[m, k] W on one of `tp` GPUs; with experts, a grouped GEMM over those that m tokens are expected to reach."""
        fixed, flops, bandwidth, wide = self.rates(dtype)
        n = matrix.n / tp if matrix.split == "n" else matrix.n
        k = matrix.k / tp if matrix.split == "k" else matrix.k
        rows, reached = float(m), 1.0
        if matrix.experts > 1:
            rows = m * matrix.active
            # Tokens choose uniformly: each expert is missed by all of them with probability (1 - active/experts)^m.
            reached = matrix.experts * (1.0 - (1.0 - matrix.active / matrix.experts) ** m)
        moved = reached * n * k * WEIGHT_BYTES[dtype] + rows * (k * wide + n * SIXTEEN_BIT)
        return roofline(fixed, 2.0 * rows * n * k / flops, moved / bandwidth)

    def decode_attention(self, kv: str, flops_per_token: float, bytes_per_token: float, tokens: float) -> Cost:
        """One layer's attention of decoders that hold `tokens` KV tokens in all."""
        fit = self.physics["attention_decode"].get(kv, self.physics["attention_decode"]["bf16"])
        peak, bandwidth = fit["compute"] * self.gpu.flops["bf16"], fit["memory"] * self.gpu.bandwidth
        return roofline(fit["t0"], flops_per_token * tokens / peak, bytes_per_token * tokens / bandwidth)

    def prefill_attention(self, flops_per_pair: float, tokens: float, pairs: float) -> Cost:
        """One layer's attention of chunks: `pairs` query-key pairs of `tokens` new tokens, each with some keys of overhead."""
        fit = self.physics["attention_prefill"]
        peak = fit["compute"] * self.gpu.flops["bf16"]
        return roofline(fit["t0"], flops_per_pair * (pairs + fit["overhead"] * tokens) / peak, 0.0)

    def elementwise(self, moved: float) -> Cost:
        """A norm, rotary embedding or activation that moves `moved` bytes."""
        fit = self.physics["elementwise"]
        return roofline(fit["t0"], 0.0, moved / (fit["memory"] * self.gpu.bandwidth))
