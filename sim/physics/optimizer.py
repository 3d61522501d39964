"""The optimizer's step: a pass over gradients, states and weights, bound by memory, or by PCIe where the states lie in the host's memory.

    bytes = P ( 2 g + 2 s + 2 )        g, s: bytes of gradient and states per weight; gradients are read once more, for their norm
    t     = bytes / (e BW),  offloaded + P 2 s / min(PCIe, share of the host's memory)

Offloaded states travel to the GPU and back, bucket by bucket, as verl's `optimizer_offload` has it; a step on the CPU is not modelled.
"""
from __future__ import annotations

from sim.spec.hardware import Gpu, Node

REACHED = 0.9  # of the memory bandwidth, as streaming kernels reach it (sim.physics.elementwise)
PCIE_REACHED = 0.8  # of the PCIe bandwidth, by copies from pinned memory (judgement)


def step_seconds(gpu: Gpu, weights: float, gradient_bytes: float, state_bytes: float) -> float:
    """Seconds of one step over `weights` of one GPU, the states being in its memory.

    >>> from sim.spec.hardware import gpu
    >>> round(step_seconds(gpu("h100_sxm"), 1e9, 4.0, 12.0) * 1e3, 2)
    11.28
    """
    return weights * (2.0 * gradient_bytes + 2.0 * state_bytes + 2.0) / (REACHED * gpu.bandwidth)


def host_speed(gpu: Gpu, node: Node) -> float:
    """Bytes/s one way between a GPU and the host's memory, all GPUs of the host at it together."""
    pcie = PCIE_REACHED * gpu.pcie
    return min(pcie, node.memory_bandwidth / node.gpus) if node.memory_bandwidth else pcie


def travel_seconds(gpu: Gpu, node: Node, size: float) -> float:
    """Seconds for `size` bytes of each GPU to the host's memory, or from it."""
    return size / host_speed(gpu, node)
