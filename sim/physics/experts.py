"""How long the experts of a layer take: routing, permutation, gate and up GEMM, activation, down GEMM and summation, fused into one.

A grouped GEMM pads each expert's rows to whole tiles and reads the weights of every expert that got a row. Engines pick the tile height by
the rows of an expert; so does the form, which takes the quickest of TILES:

    tiles  = max(R, rows/tm + R/2)                                     R: experts reached, rows: (token, expert) pairs, both of one GPU
    x      = tiles * ceil(n/128) / SM ;  w = (1-q) max(x, 1) + q ceil(x)                                     for each of the two GEMMs
    comp   = sum of w * 2 tm 128 k / (e_c P/SM) * (1 + a_tile (1/tm + 1/128))
    mem    = weights of R experts * ((e_m BW)^-4 + (min(R ceil(n/128), SM) b_sm)^-4)^(1/4)                        n of the down GEMM
    others = 1 + away (pairs/rows - 1)                                       pairs: tokens * active, those of other GPUs' experts included
    moving = move * (bytes of tokens in and out, and of permuted rows and intermediates * others) / BW
    t      = t0 + t_e R others + moving + (comp^p + mem^p)^(1/p) ;  final = max(t, roofline)

It is the structured GEMM of `sim/physics/gemm.py` less what tables of fused MoE cannot tell apart. `away` is the share of the sorting and
of the buffers' traffic that an engine spends on rows whose experts live elsewhere: near 0 in CUTLASS kernels, 0.2 to 0.8 in Triton's and
Marlin's. Quantising the activations of both GEMMs is in `move` and t0. The slowest GPU decides: R and rows are those of the busiest
(`sim/physics/routing.py`). In a benchmark the weights of few experts stay in L2; in serving, other layers have passed in between.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.physics.base import Cost
from sim.physics.routing import Spread, spread
from sim.spec.dtype import SIXTEEN_BIT, Dtype
from sim.spec.hardware import Gpu

Floats = NDArray[np.float64]
Gemms = tuple[tuple[ArrayLike, ArrayLike], tuple[ArrayLike, ArrayLike]]

TILES = (8, 16, 32, 64, 128, 256)
WIDTH = 128


class Experts(NamedTuple):
    """One MoE layer: `experts` MLPs of `inter` width on `hidden`, each token visits `active`. `gated`: gate and up, else up alone."""

    hidden: int
    inter: int
    experts: int
    active: int
    gated: bool = True

    def gemms(self, tp: int) -> Gemms:
        """(n, k) of the up and the down GEMM of one expert on one of the `tp` GPUs that share it."""
        inner = self.inter / tp
        return ((2 if self.gated else 1) * inner, self.hidden), (self.hidden, inner)


class Load(NamedTuple):
    """What one GPU gets in a step (float arrays of one shape): `tokens` and `pairs` of the whole group, the busiest GPU's spread."""

    tokens: Floats
    pairs: Floats
    busiest: Spread


def moe(
    gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, shape: Experts, tokens: ArrayLike, tp: int = 1, ep: int = 1, skew: float = 0.0
) -> Cost:
    """The experts on the slowest of `tp` x `ep` GPUs, for `tokens` tokens of them all: arrays over `tokens`, which counts as 1 at least.

    Each expert is divided over `tp` GPUs, the experts over `ep`. `skew` is the exponent of the power law by which tokens choose; 0 is
    uniform. `fit` has the parameters of "moe" (`sim.spec.fit`). Never below the roofline, and never falls as tokens grow.
    """
    some: Floats = np.maximum(np.asarray(tokens, float), 1.0)
    load = Load(some, some * shape.active, spread(shape.experts, shape.active, some, ep, skew))
    gemms = shape.gemms(tp)
    cost = price(gpu, fit, dtype, gemms, load)
    return _raised(cost, np.maximum(cost.seconds, roofline(gpu, dtype, gemms, load.busiest)))


def moe_table(
    gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, shape: Experts, tokens: ArrayLike, tp: int = 1, ep: int = 1, skew: float = 0.0
) -> Cost:
    """As `moe`, for ascending `tokens`: a later cost is no smaller than an earlier one, whatever rounding or routing's numerics did."""
    cost = moe(gpu, fit, dtype, shape, tokens, tp, ep, skew)
    return _raised(cost, np.maximum.accumulate(np.asarray(cost.seconds)))


def _raised(cost: Cost, seconds: Floats) -> Cost:
    """`cost` lasting `seconds`, the difference given to what binds it."""
    short, bound = seconds - cost.seconds, np.asarray(cost.compute) > 0.0
    compute, memory = cost.compute + np.where(bound, short, 0.0), cost.memory + np.where(bound, 0.0, short)
    return Cost(*cast("list[float]", [seconds, compute, memory, np.zeros_like(seconds), cost.host]))


def roofline(gpu: Gpu, dtype: Dtype, gemms: Gemms, busiest: Spread, weights_read: bool = True) -> Floats:
    """The least seconds by the datasheet: arithmetic of the rows, and unless `weights_read` is false the weights of the experts reached."""
    weights = sum(np.asarray(n, float) * np.asarray(k, float) for n, k in gemms)
    compute = 2.0 * busiest.rows * weights / gpu.peak(dtype.peak)
    return np.asarray(np.maximum(compute, busiest.reached * weights * dtype.weight / gpu.bandwidth) if weights_read else compute)


def price(gpu: Gpu, fit: Mapping[str, float], dtype: Dtype, gemms: Gemms, load: Load, warm: bool = False) -> Cost:
    """Seconds by the form alone, for a known spread. Sizes of `gemms` may be arrays of the shape of `load`'s.

    `warm`: experts were read a moment ago, as in a benchmark; a share 1 / (1 + (weights / (l2cap L2))^4) comes `hit` times as fast.
    `host` of the cost is what no size but the experts' number changes.
    """
    (n_up, k_up), (n_down, k_down) = [[np.asarray(size, float) for size in gemm] for gemm in gemms]
    rows, reached = load.busiest.rows, load.busiest.reached
    wide = dtype.activation if dtype.peak in gpu.flops else SIXTEEN_BIT
    others = 1.0 + fit["away"] * (load.pairs / rows - 1.0)
    per_row = (k_up + k_down) * wide + (n_up + n_down) * SIXTEEN_BIT
    fixed = fit["t0"] + fit["t_e"] * reached * others
    moving = fit["move"] * (load.tokens * k_up * 2 * SIXTEEN_BIT + rows * others * per_row) / gpu.bandwidth
    weights = reached * (n_up * k_up + n_down * k_down) * dtype.weight
    if warm:
        kept = 1.0 / (1.0 + (weights / (fit["l2cap"] * gpu.l2)) ** 4)
        weights = weights * (1.0 - kept + kept / fit["hit"])
    crowd = np.minimum(reached * np.ceil(n_down / WIDTH), gpu.sms) * fit["b_sm"]
    memory = weights * ((fit["e_m"] * gpu.bandwidth) ** -4.0 + crowd**-4.0) ** 0.25
    compute = np.full_like(rows, np.inf)
    for tile in TILES:
        tiles = np.maximum(reached, rows / tile + reached / 2)
        slower = 1.0 + fit["a_tile"] * (1.0 / tile + 1.0 / WIDTH)
        per_k = 2.0 * tile * WIDTH * slower / (fit["e_c"] * gpu.peak(dtype.peak) / gpu.sms)
        compute = np.minimum(compute, per_k * (_waves(fit, gpu, tiles, n_up) * k_up + _waves(fit, gpu, tiles, n_down) * k_down))
    larger, p = np.maximum(compute, memory), fit["p"]
    gemm = larger * (1.0 + (np.minimum(compute, memory) / larger) ** p) ** (1.0 / p)
    bound = compute > memory
    arithmetic, traffic = np.where(bound, gemm, 0.0), moving + np.where(bound, 0.0, gemm)
    return Cost(*cast("list[float]", [fixed + arithmetic + traffic, arithmetic, traffic, np.zeros_like(fixed), fixed]))


def _waves(fit: Mapping[str, float], gpu: Gpu, tiles: Floats, n: Floats) -> Floats:
    """Rounds of the SMs that tiles of one GEMM take, between whole ones and none lost."""
    rounds = tiles * np.ceil(n / WIDTH) / gpu.sms
    return np.asarray((1.0 - fit["q"]) * np.maximum(rounds, 1.0) + fit["q"] * np.ceil(rounds))
