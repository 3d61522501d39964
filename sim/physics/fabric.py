"""The links between the GPUs of one replica, and what every collective costs over them.

`n` ranks fill a node before the next. Ranks of one NVLink domain talk over NVLink; ranks of one node without a common domain (cards in
slots, NVLink pairs) over PCIe; the rest over one network card per GPU. A collective over nodes is hierarchical, as NCCL builds it on rails:
reduce-scatter in each node, then across nodes each GPU with its own piece, then all-gather in each node.

Where a GPU has no fit for a link, constants stand in, each a judgement from measurements elsewhere. The widest is the network: no
all-reduce over InfiniBand was found that could be trusted, so `NETWORK` is the point-to-point rate of two H100 hosts, to be read within a
factor of two.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sim.core.errors import BadInput
from sim.physics import deepep
from sim.physics.base import Cost
from sim.physics.collectives import Collective, eager_copy
from sim.physics.curve import ZERO
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu, Node

Fits = Callable[[str, str, str], Fit | None]  # op, dtype, framework

NVLINK_LEAST = 100e9  # bytes/s: every NVLink that was measured is faster, every PCIe slower
CUSTOM = (2, 4, 6, 8)  # GPUs over which engines run their own all-reduce


def _constant(op: str, source: str, **parameters: float) -> Fit:
    return Fit(op, "", "any", parameters, "", "judgement", source)


def _protocols(*ways: tuple[float, float, float]) -> dict[str, float]:
    return {f"{name}{i}": value for i, way in enumerate(ways, 1) for name, value in zip("age", way, strict=True)}


PAIRS = _constant(
    "pcie", "Vidur all-reduce over four A100 and H100 in NVLink pairs: 28 us, 0.75 of PCIe between the pairs",
    **_protocols(*[(10e-6, 6e-6, 0.75)] * 3),
)  # fmt: skip
SLOTS = _constant(
    "pcie", "all collectives of 2 to 8 RTX PRO 6000 over PCIe together (NCCL 2.29, AIConfigurator tables)",
    **_protocols((4e-6, 1.6e-6, 0.13), *[(1e-6, 7e-6, 0.38)] * 2),
)  # fmt: skip
SWITCH = _constant(
    "nvlink", "NCCL over NVLink on H100 (AIConfigurator tables), rounded",
    **_protocols((3e-6, 1.6e-6, 0.05), (5e-6, 2e-6, 0.3), (2e-5, 2e-6, 0.75)),
)  # fmt: skip
P2P = _constant("p2p", "Vidur send_recv between two GPUs of an H100 host over NVLink", alpha=7.6e-6, efficiency=0.80)
NETWORK = _constant(
    "network", "Vidur send_recv between two H100 hosts over 400 Gb/s InfiniBand; RoCE taken alike", alpha=20e-6, efficiency=0.72
)


class Fabric:
    """Collectives of `gpu` in `node`s, run by `framework`. `fits` finds a fit by op, dtype and framework (`Gpu.fit`, `Kernels.fit`).

    `graphed`: kernels replayed from a CUDA graph. Otherwise each all-reduce of the engine's own takes at least the time its host needs from
    call to call, shown as host time, and copies its message once; who counts launches elsewhere asks for `graphed` and adds `eager_call`.

    Sizes are bytes per rank as in `sim.physics.collectives`, numbers or arrays; the Cost then holds arrays. One GPU costs nothing.
    """

    def __init__(self, gpu: Gpu, node: Node, fits: Fits, framework: str = "vllm", graphed: bool = True):
        self.gpu, self.node, self.fits, self.framework, self.graphed = gpu, node, fits, framework, graphed
        self.local = max(node.gpus, node.domain if gpu.nvlink else 1)
        self._collectives: dict[tuple[str, bool], Collective] = {}

    # -- operations ---------------------------------------------------------
    def all_reduce(self, size: Any, n: int) -> Cost:
        """Sum `size` bytes over `n` GPUs: the engine's own kernel where it has one and is faster, else NCCL's."""
        if n == 1:
            return ZERO
        if n > self.local:
            return self._across("all_reduce", size, n)
        seconds = self._collective("all_reduce_nccl", n).seconds(size, n)
        if not self._custom(n):
            return _cost(seconds)
        seconds = np.minimum(self._collective("all_reduce", n).seconds(size, n), seconds)
        if self.graphed:
            return _cost(seconds)
        seconds = seconds + eager_copy(size, self.gpu.bandwidth)
        return _cost(seconds, np.maximum(self.eager_call - seconds, 0.0))

    def all_gather(self, size: Any, n: int) -> Cost:
        """Every GPU ends with all `size` bytes, of which each held an n-th."""
        return self._collect("all_gather", size, n)

    def reduce_scatter(self, size: Any, n: int) -> Cost:
        """Sum `size` bytes over `n` GPUs and leave each with an n-th."""
        return self._collect("reduce_scatter", size, n)

    def all_to_all(self, size: Any, n: int) -> Cost:
        """Every GPU sends an n-th of its `size` bytes to each, itself included."""
        if n <= self.local:
            return self._collect("all_to_all", size, n)
        size, inside = np.asarray(size, float), math.ceil(n / self._nodes(n))
        away = size * (1.0 - inside / n) / self._wire(self._network)
        near = self.all_to_all(size * inside / n, inside).seconds
        return _cost(np.maximum(near, self._network["alpha"] * self._rounds(n) + away))

    def p2p(self, size: Any, across_nodes: bool) -> Cost:
        """Send `size` bytes from one GPU to another, of the same node or of another."""
        if across_nodes:
            return _cost(self._network["alpha"] + np.asarray(size, float) / self._wire(self._network))
        fit = self._found("p2p", 2) or P2P
        return _cost(fit["alpha"] + np.asarray(size, float) / (fit["efficiency"] * self.node.link(self.gpu, 2)))

    def dispatch(self, tokens: Any, hidden: int, topk: int, n: int, bytes_per_element: float = deepep.SENT, experts: int = 256) -> Cost:
        """Send `tokens` per rank to the `topk` experts each chose among `experts` over `n` GPUs: DeepEP, all-to-all where it is unknown."""
        return self._exchange("dispatch", np.asarray(tokens, float), hidden * bytes_per_element, topk, n, experts)

    def combine(self, tokens: Any, hidden: int, topk: int, n: int, bytes_per_element: float = deepep.RETURNED, experts: int = 256) -> Cost:
        """Bring the experts' results back to the ranks of their tokens; sizes as in `dispatch`."""
        return self._exchange("combine", np.asarray(tokens, float), hidden * bytes_per_element, topk, n, experts)

    @property
    def eager_call(self) -> float:
        """Seconds the host takes from one of the engine's own all-reduces to the next without a CUDA graph; 0 if not measured."""
        fit = self._found("all_reduce", 2)
        return fit.parameters.get("eager", 0.0) if fit else 0.0

    def basis(self, op: str, n: int) -> tuple[Fit, ...]:
        """The fits and constants that the cost of `op` over `n` GPUs rests on, for their kind, source, hull and errors."""
        if n > self.local:
            inside = math.ceil(n / self._nodes(n))
            parts = ("reduce_scatter", "all_gather") if op == "all_reduce" else (op,)
            return (*(fit for part in parts if inside > 1 for fit in self.basis(part, inside)), self._network)
        if op == "all_reduce":
            return (*((self._fit("all_reduce", n),) if self._custom(n) else ()), self._fit("all_reduce_nccl", n))
        return (self._fit(op, n),)

    # -- parts --------------------------------------------------------------
    def _custom(self, n: int) -> bool:
        return n in CUSTOM and n <= self.node.gpus and self._found("all_reduce", n) is not None

    def _nvlink(self, n: int) -> bool:
        return self.gpu.nvlink > 0 and n <= self.node.domain

    def _found(self, op: str, n: int) -> Fit | None:
        """The fit of `op`, if it was measured over the kind of link that `n` GPUs share here."""
        fit = self.fits(op, "", self.framework)
        if fit is None or ("bandwidth" in fit.parameters and (fit["bandwidth"] >= NVLINK_LEAST) != self._nvlink(n)):
            return None
        return None if self.gpu.nvlink and not self._nvlink(n) else fit

    def _fit(self, op: str, n: int) -> Fit:
        return self._found(op, n) or (SWITCH if self._nvlink(n) else PAIRS if self.gpu.nvlink else SLOTS)

    def _collective(self, op: str, n: int) -> Collective:
        key = op, self._nvlink(n)
        if key not in self._collectives:
            self._collectives[key] = Collective(op, self._fit(op, n).parameters, self.gpu.nvlink if key[1] else self.gpu.pcie)
        return self._collectives[key]

    def _collect(self, op: str, size: Any, n: int) -> Cost:
        if n == 1:
            return ZERO
        return _cost(self._collective(op, n).seconds(size, n)) if n <= self.local else self._across(op, size, n)

    def _across(self, op: str, size: Any, n: int) -> Cost:
        size, nodes = np.asarray(size, float), self._nodes(n)
        inside = math.ceil(n / nodes)
        parts = ("reduce_scatter", "all_gather") if op == "all_reduce" else (op,)
        seconds = sum(self._collect(part, size, inside).seconds for part in parts)
        rail = self._network["alpha"] * self._rounds(n) + size / inside * (nodes - 1) / nodes / self._wire(self._network)
        return _cost(seconds + len(parts) * rail)

    def _nodes(self, n: int) -> int:
        return math.ceil(n / self.local)

    def _rounds(self, n: int) -> float:
        return math.log2(self._nodes(n))

    @property
    def _network(self) -> Fit:
        return self.fits("network", "", self.framework) or NETWORK

    def _wire(self, fit: Fit) -> float:
        if not self.node.nic_bandwidth:
            raise BadInput(f"{self.node.name} has no network cards: its GPUs cannot work with those of another node")
        return fit["efficiency"] * self.node.nic_bandwidth

    def _exchange(self, way: str, tokens: np.ndarray, width: float, topk: int, n: int, experts: int) -> Cost:
        if n == 1:
            return ZERO
        inside = math.ceil(n / self._nodes(n))
        low, high = (self._found(f"deepep_{mode}_{way}", max(inside, 2)) for mode in ("ll", "normal"))
        if low is None or high is None or not self._nvlink(max(inside, 2)):
            return self.all_to_all(tokens * topk * width, n)
        reach = deepep.Reach(n, self._nodes(n), self.gpu.nvlink, self.node.nic_bandwidth)
        few = np.minimum(tokens, float(deepep.LOW_LATENCY_TOKENS))
        quick = deepep.low_latency(low.parameters, few * topk * width, reach, max(experts, n))
        bulk = deepep.normal(high.parameters, tokens, width, topk, reach)
        # Engines change kernels at a count of tokens, not where times cross; more tokens are still never faster.
        return _cost(np.where(tokens <= deepep.LOW_LATENCY_TOKENS, quick, np.maximum(quick, bulk)))


def _cost(network: Any, host: Any = 0.0) -> Cost:
    """Numbers where all is a number, else arrays."""
    network, host = np.asarray(network, float), np.asarray(host, float)
    if network.ndim == 0 and host.ndim == 0:
        return Cost(float(network + host), 0.0, 0.0, float(network), float(host))
    return Cost(network + host, 0.0, 0.0, network, host)
