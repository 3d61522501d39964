"""Copies within device memory, and what it costs to launch anything at all.

Launch points, in time per kernel (or per launch of a one-kernel graph):
`empty_kernel_eager` kernels that do next to nothing, launched one by one and timed on the device;
`host_launch_gap` the same by the host's clock, without waiting for the device;
`dependent_chain` each reads what the one before wrote; `empty_kernel_graph` a graph of one such kernel, launched again and again;
`graph_chain_200` one graph of 200 of them in a row. The two graph points need a GPU.
"""
from __future__ import annotations

import time
from typing import Any

import torch

from calibrate.bench.device import BF16, Bench, Unsupported
from calibrate.bench.grid import Point
from calibrate.bench.timing import Task, Timing, summary

CHAIN = 200  # kernels
TOUCHED = 256  # elements of an empty kernel
ROUNDS = 5


def copy(point: Point, bench: Bench) -> Task:
    elements = max(1, point.m // BF16.itemsize)
    size = 2 * elements * BF16.itemsize
    copies = bench.copies(size)
    source, target = bench.carve([(copies, elements), (copies, elements)])
    row = {"op": "memcpy", "dtype": "bfloat16", "kernel": "copy_", "message_bytes": elements * BF16.itemsize}
    return Task(lambda i: target[i].copy_(source[i]), row, size, copies, bench.cold(size, copies))


def launch(point: Point, bench: Bench) -> Task | dict[str, Any]:
    """A task, or a finished row where the host's clock is what counts."""
    apart = list(torch.zeros(CHAIN, TOUCHED, device=bench.device).unbind())
    row: dict[str, Any] = {"op": "launch", "kernel": point.family}
    if point.family == "host_launch_gap":
        return row | {"timing": _host(apart, bench)._asdict()}
    if not bench.cuda and "graph" in point.family:
        raise Unsupported("a CPU has no graphs")

    def independent(_: int) -> None:
        for one in apart:
            one.zero_()

    def dependent(_: int) -> None:
        for _ in range(CHAIN):
            apart[0].add_(1.0)

    if point.family == "graph_chain_200":
        return Task(independent, row, per=CHAIN)
    if point.family == "empty_kernel_graph":
        with torch.no_grad():
            independent(0)
            bench.settle()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                apart[0].zero_()

        def replay(_: int) -> None:
            for _ in range(CHAIN):
                graph.replay()

        return Task(replay, row, graph=False, per=CHAIN)
    return Task(dependent if point.family == "dependent_chain" else independent, row, graph=False, per=CHAIN)


def _host(apart: list[torch.Tensor], bench: Bench) -> Timing:
    samples = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            bench.settle()
            start = time.perf_counter()
            for one in apart:
                one.zero_()
            samples.append((time.perf_counter() - start) / CHAIN)
        bench.settle()
    return summary(samples, CHAIN)
