"""How long GPUs take to combine their partial results: alpha-beta, with a latency that grows with their number.

All-reduce of S bytes over n GPUs: t = alpha + beta (n - 1) + S 2 (n - 1) / (n e BW), BW the link's bandwidth one way (ring bound; Thakur,
Rabenseifner and Gropp 2005); alpha, beta and e are fitted per GPU.
"""
from __future__ import annotations

from sim.physics.base import Cost
from sim.physics.kernels import ZERO
from sim.spec.hardware import Gpu


def all_reduce(gpu: Gpu, size: float, gpus: int) -> Cost:
    """Sum `size` bytes over `gpus` GPUs of one node, over NVLink or, where there is none, PCIe."""
    if gpus == 1:
        return ZERO
    fit = gpu.physics["all_reduce"]
    link = gpu.nvlink or gpu.pcie
    seconds = fit["alpha"] + fit["beta"] * (gpus - 1) + size * 2 * (gpus - 1) / gpus / (fit["efficiency"] * link)
    return Cost(seconds, 0.0, 0.0, seconds, 0.0)
