"""How long the GPUs of one NVLink or PCIe domain take over a collective: a form of three protocols, and the measured curve over it.

A library moves S bytes by one of several protocols (NCCL: LL, LL128, Simple; engines: one-shot, two-shot, then NCCL), each with a latency
that grows with the number of GPUs n and a share e of the link:

    t = min over i of a_i + g_i steps(n) + S c_n / (e_i BW)        c_n = 2 (n-1)/n for all-reduce, (n-1)/n for the others

(ring bound: Thakur, Rabenseifner and Gropp 2005). Libraries do not switch where it would be best, so the measured curve jumps where no
minimum does. For the n that were measured a fit therefore also holds knots `t8_65536` (seconds of 64 KiB over 8 GPUs), linear in S between
them, which is exact for any a + b S, and above them as the last piece goes on. Other n take the form times the ratio of curve to form at
the n beside them. On another link sizes scale with the bandwidth: latencies stay, and protocols switch at the same link time.

S is the message of one rank as nccl-tests count it: what is reduced (all-reduce, reduce-scatter), all that is gathered (all-gather), all
that a rank sends, its own part included (all-to-all). So S c_n is always what each rank sends over its link, and S c_n / BW the floor.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.physics.base import Cost
from sim.physics.curve import ZERO
from sim.spec.fit import table_key
from sim.spec.hardware import Gpu

RING = 8  # GPUs up to which latency grows by one step per GPU; beyond, libraries take trees (judgement: no larger domain was measured)


def crossing(op: str, n: int) -> float:
    """c_n: bytes that each of `n` ranks sends per byte of the message."""
    return (2.0 if op.startswith("all_reduce") else 1.0) * (n - 1) / n


def steps(n: int) -> float:
    """Latencies in a row: n - 1 round a ring; as the logarithm of n beyond `RING` GPUs."""
    return n - 1.0 if n <= RING else (RING - 1.0) * math.log2(n) / math.log2(RING)


def eager_copy(size: Any, bandwidth: float) -> Any:
    """Seconds by which an engine's all-reduce outside a CUDA graph is longer: it reads and writes its message once more, in GPU memory."""
    return 2.0 * np.asarray(size, float) / (0.9 * bandwidth)


class Collective:
    """One operation over one kind of link of `link` bytes/s one way, by the parameters of a fit (sim.spec.fit)."""

    def __init__(self, op: str, parameters: Mapping[str, float], link: float):
        self.op, self.parameters, self.link = op, parameters, link
        stretch = link / parameters.get("bandwidth", link)
        knots: dict[int, list[tuple[float, float]]] = {}
        for name, seconds in parameters.items():
            if key := table_key(name):
                knots.setdefault(key[0], []).append((key[1] * stretch, seconds))
        curves = {n: np.array(sorted(points)).T for n, points in sorted(knots.items()) if len(points) > 1}
        self.measured = {n: (sizes, seconds) for n, (sizes, seconds) in curves.items()}
        self._curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def seconds(self, size: Any, n: int) -> Any:
        """Seconds of `size` bytes (number or array) over `n` GPUs: rising with `size`, and never faster than the link."""
        size = np.asarray(size, float)
        if self.measured:
            sizes, seconds = self._curve(n)
            slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
            found = np.interp(size, sizes, seconds) + slope * np.maximum(size - sizes[-1], 0.0)
        else:
            found = self.protocols(size, n)
        return np.maximum(found, size * crossing(self.op, n) / self.link)

    def protocols(self, size: np.ndarray, n: int) -> np.ndarray:
        """The form alone: the fastest of the three protocols."""
        fit, wire, hops = self.parameters, size * (crossing(self.op, n) / self.link), steps(n)
        ways = [fit[f"a{i}"] + fit[f"g{i}"] * hops + wire / fit[f"e{i}"] for i in (1, 2, 3)]
        return np.minimum(np.minimum(ways[0], ways[1]), ways[2])

    def _curve(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Knots of the curve for `n` GPUs, measured or between the measured: sizes and seconds, both rising."""
        if n not in self._curves:
            self._curves[n] = self.measured.get(n) or self._between(n)
        return self._curves[n]

    def _between(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        low = max((m for m in self.measured if m < n), default=min(self.measured))
        high = min((m for m in self.measured if m > n), default=max(self.measured))
        sizes = np.unique(np.concatenate([self.measured[m][0] for m in {low, high}]))
        ratios = [np.log(np.interp(sizes, *self.measured[m]) / self.protocols(sizes, m)) for m in (low, high)]
        share = math.log(n / low) / math.log(high / low) if high > low else 0.0
        ratio = np.exp((1.0 - share) * ratios[0] + share * ratios[1])
        # Beyond the shorter of the two curves its ratio is not known.
        kept = sizes <= min(self.measured[m][0][-1] for m in (low, high))
        return sizes[kept], np.maximum.accumulate(self.protocols(sizes, n) * ratio)[kept]


def all_reduce(gpu: Gpu, size: float, gpus: int) -> Cost:
    """The first form, alpha + beta (n - 1) + S c_n / (e BW), from `gpu.physics`; `sim.physics.fabric` takes its place."""
    if gpus == 1:
        return ZERO
    fit = gpu.physics["all_reduce"]
    link = gpu.nvlink or gpu.pcie
    seconds = fit["alpha"] + fit["beta"] * (gpus - 1) + size * crossing("all_reduce", gpus) / (fit["efficiency"] * link)
    return Cost(seconds, 0.0, 0.0, seconds, 0.0)
