"""How long one launch takes: CUDA graphs and events on a GPU, the wall clock on a CPU.

On a GPU a graph of many launches is captured and replayed, each replay between two events: what is timed is kernels one after another,
as in a decode step, without the host. Eager tasks (launch cost, uncaptured stacks) are timed by events around the host's own loop. A CPU
has neither graphs nor events; there, the same launches run under `time.perf_counter`, which rehearses the procedure and times a CPU.
"""
from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from calibrate.bench.device import Bench

WARM = 3  # launches before anything is timed: libraries choose algorithms, compilers compile
TARGET = 10e-3  # seconds of launches in a graph, and of replays in all
LAUNCHES = 20  # in a graph, unless they last longer than the target
SAMPLES = (3, 10)  # replays timed: at least, at most
HOARD = 4 << 30  # bytes that finished graphs may keep from others
CPU_TARGET = 2e-4  # seconds per sample
CPU_LAUNCHES = 50


class Task(NamedTuple):
    """Something to time: `call(i)` launches it once on copy `i` < `copies` of its operands. `row` says what it is in the table's columns.

    `size`: bytes of operands that one launch must move. `per`: kernels per call, of which one is reported.
    """

    call: Callable[[int], Any]
    row: dict[str, Any]
    size: int = 0
    copies: int = 1
    cold: bool = False
    graph: bool = True
    per: int = 1


class Timing(NamedTuple):
    """Seconds per launch over `samples` samples of `launches` launches each."""

    median: float
    least: float
    std: float
    samples: int
    launches: int


def measure(task: Task, bench: Bench) -> Timing:
    with torch.no_grad():
        if not bench.cuda:
            return _on_cpu(task)
        bench.settle()
        # One stream for all: libraries keep workspaces per stream, and one first met in a capture would die with the graph.
        with torch.cuda.stream(bench.side):
            found = _in_graph(task) if task.graph else _eager(task)
        bench.settle()
    if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > HOARD:
        torch.cuda.empty_cache()
    return found


def summary(samples: list[float], launches: int) -> Timing:
    return Timing(statistics.median(samples), min(samples), statistics.pstdev(samples), len(samples), launches)


def _on_cpu(task: Task) -> Timing:
    task.call(0)
    start = time.perf_counter()
    task.call(1 % task.copies)
    one = time.perf_counter() - start
    launches = max(1, min(CPU_LAUNCHES, math.ceil(CPU_TARGET / max(one, 1e-7))))
    samples, launched = [], 0
    for _ in range(SAMPLES[0]):
        start = time.perf_counter()
        for _ in range(launches):
            task.call(launched % task.copies)
            launched += 1
        samples.append((time.perf_counter() - start) / launches / task.per)
    return summary(samples, launches)


def _warm(task: Task) -> float:
    """Seconds of a launch, the host's share included."""
    for i in range(WARM):
        task.call(i % task.copies)
    return max(_between(lambda: [task.call(i % task.copies) for i in range(WARM)], 1)[0] / WARM, 1e-7)


def _between(run: Callable[[], Any], times: int) -> list[float]:
    """Seconds on the device of each of `times` runs, queued without waiting in between."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    marks[-1].synchronize()
    return [float(a.elapsed_time(b)) * 1e-3 for a, b in itertools.pairwise(marks)]


def _in_graph(task: Task) -> Timing:
    launches = max(task.copies, min(LAUNCHES, math.ceil(TARGET / _warm(task))))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin()  # torch.cuda.graph() would collect garbage and empty the cache at each of two thousand points
    try:
        for i in range(launches):
            task.call(i % task.copies)
    except BaseException:
        with contextlib.suppress(RuntimeError):  # a broken capture says so once more when it ends
            graph.capture_end()
        raise
    graph.capture_end()
    graph.replay()
    whole = _between(graph.replay, 1)[0]
    replays = min(SAMPLES[1], max(SAMPLES[0], math.ceil(TARGET / max(whole, 1e-7))))
    graph.replay()  # the device is busy when the first sample starts, so no launch of a graph is part of one
    return summary([seconds / launches / task.per for seconds in _between(graph.replay, replays)], launches)


def _eager(task: Task) -> Timing:
    launches = max(1, min(LAUNCHES, math.ceil(TARGET / _warm(task))))

    def run() -> None:
        for i in range(launches):
            task.call(i % task.copies)

    return summary([seconds / launches / task.per for seconds in _between(run, SAMPLES[0])], launches)
