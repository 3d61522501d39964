"""Seconds of a matrix product on one GPU, and of the kernel that quantises its activations.

A structured form. A library chooses among tiles and splits of k; the form does
too, and takes the quickest: rounds of CTAs over the SMs, arithmetic that small tiles and clock droop slow down, HBM traffic that few CTAs
cannot saturate, and operand traffic from L2. Thirteen parameters per GPU, dtype and library describe all shapes, so that a shape nobody
measured is priced by what a kernel must do. Two bounds hold whatever the parameters: no time is below the datasheet's roofline, and none
falls as k grows; over a table of m none falls as m grows. Real kernels do drop at algorithm switches, and a simulator gains nothing from
that.

Sizes: m tokens, k inputs, n outputs. Parameters are those of `sim.spec.fit` ("gemm", "quantise"), in SI.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.physics.base import Cost
from sim.spec.dtype import SIXTEEN_BIT, Dtype
from sim.spec.hardware import Gpu

Floats = NDArray[np.float64]

SPLIT_LEAST = 128  # of k, to each part of a split
STEP_K = 64  # k is read in steps of this many
DROOP = 100e-6  # seconds of arithmetic after which clocks have begun to fall

# Of six sets tried this was the best by cross-validation over 13 groups (mean median error 6.3 %, the others
# 6.4 to 6.6), though chosen on those same folds; 256 x 128 never beats 128 x 256.
_CANDIDATES = np.array([(tm, tn, s) for tm in (32, 64, 128) for tn in (64, 128, 256) for s in (1, 2, 4, 8, 16)], float)
_LARGEST = 1.0 / 128 + 1.0 / 256  # of a tile's edges, what `a_tile` multiplies


class _Body(NamedTuple):
    """Per point, of its quickest candidate: seconds in all, those that overlap with nothing, and whether arithmetic binds the rest."""

    seconds: Floats
    fixed: Floats
    arithmetic: NDArray[np.bool_]


def peak(gpu: Gpu, dtype: Dtype) -> float:
    """FLOP/s, dense, of the unit that multiplies `dtype`; a chip without that unit converts and multiplies as bf16."""
    return gpu.flops.get(dtype.peak, gpu.flops["bf16"])


def utilisation(fit: Mapping[str, float]) -> float:
    """The most of the arithmetic peak that the form reaches, on large shapes before clocks fall: beyond 0.95 the fit is a mistake."""
    return fit["e_c"] / (1.0 + fit["a_tile"] * _LARGEST)


def transfer(parameters: Mapping[str, float], source: Gpu, target: Gpu) -> dict[str, float]:
    """`parameters` measured on `source`, as the datasheets let expect them on `target`.

    Coefficients go over as they are, `b_sm` too: one SM asks for some 65 GB/s from Ampere to Blackwell. Three follow the chips. What L2
    gives has grown with the 3/4 power of the tensor peak, to within a tenth over A100, H100, B200 and RTX PRO 6000, while `b_l2` counts it
    in memory bandwidths. SMs that multiply faster start a wave sooner (1/4 power of the peak per SM) and draw more power, so that clocks
    fall further (1/2). Over loans between four measured chips, bf16 and fp8, the mean median error goes from 15 to 12 %. The powers were
    chosen on those loans; chosen without the chip that is predicted, they give 13 %.
    """
    chip = target.flops["bf16"] / source.flops["bf16"]
    per_sm = chip * source.sms / target.sms
    return {
        **parameters,
        "b_l2": parameters["b_l2"] * chip**0.75 * source.bandwidth / target.bandwidth,
        "pro": parameters["pro"] * per_sm**-0.25,
        "thr": parameters["thr"] * per_sm**0.5,
    }


def roofline(gpu: Gpu, dtype: Dtype, m: ArrayLike, n: ArrayLike, k: ArrayLike, cached: ArrayLike = 0.0) -> Floats:
    """The least seconds by the datasheet: all arithmetic at its peak, or all that L2 cannot hold at the memory's bandwidth.

    Weights come from memory but for the share `cached`; of activations and outputs, which the neighbouring kernels leave and take, only
    what exceeds L2.
    """
    m, n, k = (np.asarray(size, float) for size in (m, n, k))
    passing = m * k * dtype.activation + SIXTEEN_BIT * m * n
    traffic = n * k * dtype.weight * (1.0 - np.asarray(cached)) + np.maximum(passing - gpu.l2, 0.0)
    return np.asarray(np.maximum(2.0 * m * n * k / peak(gpu, dtype), traffic / gpu.bandwidth))


def gemm(gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, m: ArrayLike, n: ArrayLike, k: ArrayLike, *, cached: ArrayLike = 0.0) -> Cost:
    """Seconds of (m, k) x (k, n), without the kernel that quantises: arrays of the broadcast shape of m, n and k.

    `cached` is the share of the weights found in L2: none in serving, where other layers have passed since. What overlaps with nothing
    (start, waves, the sum over splits) counts as host; the rest as arithmetic or as memory, whichever takes longer.
    """
    sizes = np.broadcast_arrays(*(np.asarray(value, float) for value in (m, n, k, cached)))
    flat_m, flat_n, flat_k, flat_cached = (value.ravel() for value in sizes)
    found = _quickest(gpu, fit, dtype, flat_m, flat_n, flat_k, flat_cached)
    seconds = np.maximum(found.seconds, roofline(gpu, dtype, flat_m, flat_n, flat_k, flat_cached))
    body = seconds - found.fixed
    compute = np.where(found.arithmetic, body, 0.0)
    shape = sizes[0].shape
    return _cost(*(part.reshape(shape) for part in (seconds, compute, body - compute, found.fixed)))


def gemm_table(gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, ms: ArrayLike, n: int, k: int) -> Cost:
    """`gemm` for each of the rising `ms`, none below the one before it: arrays of their length."""
    cost = gemm(gpu, fit, dtype, ms, n, k)
    seconds = np.asarray(cost.seconds)
    longest = np.maximum.accumulate(np.where(seconds == np.maximum.accumulate(seconds), np.arange(len(seconds)), 0))
    return _cost(*(np.asarray(part)[longest] for part in (seconds, cost.compute, cost.memory, cost.host)))


def quantise(gpu: Gpu, fit: Mapping[str, float], m: ArrayLike, k: ArrayLike, cold: ArrayLike = False) -> Cost:
    """Seconds to quantise (m, k) activations: a pass over them, cheaper while they still lie in L2, which `cold` (bool) ones do not."""
    elements = np.asarray(m, float) * np.asarray(k, float)
    resident = np.where(cold, 0.0, 1.0 / (1.0 + (3.0 * elements / gpu.l2) ** 4))
    traffic = fit["cb"] * elements / gpu.bandwidth * (1.0 - resident * fit["h"] / (1.0 + fit["h"]))
    start = np.full_like(elements, fit["tq"])
    return _cost(start + traffic, np.zeros_like(elements), traffic, start)


def _cost(seconds: Floats, compute: Floats, memory: Floats, host: Floats) -> Cost:
    """A Cost whose fields are arrays, which its declared type does not say."""
    return Cost(*cast("list[float]", [seconds, compute, memory, np.zeros_like(seconds), host]))


def _quickest(gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, m: Floats, n: Floats, k: Floats, cached: Floats) -> _Body:
    """Every candidate against every point: rows of tiles and splits, columns of points."""
    tm, tn, s = (column[:, None] for column in _CANDIDATES.T)
    # A split that leaves too little to each part is priced as if k were large enough for it. Were it merely left out below that k, it
    # would join above and let the time fall as k grows.
    k = np.maximum(k, np.where(s > 1, SPLIT_LEAST * s, 0.0))
    ctas = np.ceil(m / tm) * np.ceil(n / tn) * s
    part = STEP_K * np.ceil(k / (STEP_K * s))
    rounds = ctas / gpu.sms
    waves = (1.0 - fit["q"]) * np.maximum(rounds, 1.0) + fit["q"] * np.ceil(rounds)

    compute = waves * part * (2.0 * tm * tn * (1.0 + fit["a_tile"] * (1.0 / tm + 1.0 / tn)) * gpu.sms / (fit["e_c"] * peak(gpu, dtype)))
    compute *= 1.0 + fit["thr"] * np.log1p(compute / DROOP)

    passing = m * (k * dtype.activation + SIXTEEN_BIT * n)
    spilled = np.minimum(1.0, passing / gpu.l2)
    hit = 1.0 / fit["hit"]
    traffic = n * k * dtype.weight * (1.0 - cached * (1.0 - hit)) + passing * (hit + (1.0 - hit) * spilled)
    # The -4-norm of what HBM gives and what so many CTAs can ask for, by square roots.
    asked = (fit["e_m"] * gpu.bandwidth / fit["b_sm"] / np.minimum(ctas, gpu.sms)) ** 2
    memory = traffic / (fit["e_m"] * gpu.bandwidth) * np.sqrt(np.sqrt(1.0 + asked * asked))
    l2 = fit["b_l2"] * gpu.bandwidth
    shared = ctas * part * (tm * dtype.activation + tn * dtype.weight) / l2

    fixed = fit["t0"] + fit["pro"] * waves + np.where(s > 1, fit["sk"] + (8.0 / l2) * s * m * n, 0.0)
    p = fit["p"]
    longest = np.maximum(np.maximum(compute, memory), shared)
    # One of the three ratios is 1, so the norm is well scaled for any p.
    norm = np.exp(p * np.log(compute / longest)) + np.exp(p * np.log(memory / longest)) + np.exp(p * np.log(shared / longest))
    seconds = fixed + longest * np.exp(np.log(norm) / p)
    best = np.argmin(seconds, axis=0)[None, :]

    def pick(values: Floats) -> Floats:
        return np.take_along_axis(np.broadcast_to(values, seconds.shape), best, axis=0)[0]  # type: ignore[no-any-return]

    return _Body(pick(seconds), pick(fixed), pick(compute) >= np.maximum(pick(memory), pick(shared)))
