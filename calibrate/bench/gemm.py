"""Matrix products as a layer runs them: activations times a stored weight, bf16 or fp8.

The weight rotates, the activations stay: in an engine they were written by the kernel before. fp8 operands are already quantised with one
scale each; turning activations into fp8 is a kernel of its own (`fp8_quant` in elementwise.py), so these rows must not be compared with
published fp8 tables, which contain it.
"""
from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F

from calibrate.bench.device import BF16, FP8, Bench, Clocks, Unsupported
from calibrate.bench.grid import Point
from calibrate.bench.timing import Task, summary

SUSTAINED = 8.0  # seconds
SIDE = 8192
BATCH = 25  # products between two readings


def task(point: Point, bench: Bench) -> Task:
    m, n, k = point.m, point.n, point.k
    dtype = FP8 if point.family == "fp8" else BF16
    weight = n * k * dtype.itemsize
    copies = bench.copies(weight)
    a, w = bench.carve([(m, k), (copies, n, k)], dtype)
    row = {"op": "gemm", "dtype": "fp8" if dtype == FP8 else "bfloat16", "m": m, "n": n, "k": k}
    size = weight + m * k * dtype.itemsize + m * n * 2
    cold = bench.cold(weight, copies)
    if dtype == BF16:
        return Task(lambda i: F.linear(a, w[i]), row | {"kernel": "torch.nn.functional.linear"}, size, copies, cold)
    product = getattr(torch, "_scaled_mm", None)
    if product is None:
        raise Unsupported(f"torch {torch.__version__} has no fp8 product")
    one = torch.ones((), device=bench.device)

    def call(i: int) -> Any:
        return product(a, w[i].t(), scale_a=one, scale_b=one, out_dtype=BF16, use_fast_accum=bench.cuda)

    return Task(call, row | {"kernel": "torch._scaled_mm"}, size, copies, cold)


def sustained(point: Point, bench: Bench, clocks: Clocks) -> tuple[dict[str, Any], list[dict[str, float | None]]]:
    """A large product again and again for seconds: the row of its last quarter, when clocks have settled, and the log of all."""
    m, n, k = (point.m or SIDE, point.n or SIDE, point.k or SIDE)
    a, w = bench.carve([(m, k), (n, k)])
    log: list[dict[str, float | None]] = []
    taken: list[float] = []
    with torch.no_grad():
        F.linear(a, w)
        bench.settle()
        begun = start = time.perf_counter()
        while start - begun < SUSTAINED * bench.scale:
            for _ in range(BATCH):
                F.linear(a, w)
            bench.settle()
            end = time.perf_counter()
            log.append({"at_s": start - begun, "latency_us": (end - start) / BATCH * 1e6, "clock_mhz": clocks.now()})
            taken.append((end - start) / BATCH)
            start = end
    last = taken[-max(1, len(taken) // 4) :]
    row = {"op": "gemm_sustained", "dtype": "bfloat16", "kernel": "torch.nn.functional.linear", "m": m, "n": n, "k": k}
    at = summary(last, BATCH)._asdict()
    return row | {"timing": at, "bytes": 2 * (m * k + n * k + m * n), "cold": False}, log
