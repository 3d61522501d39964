"""Low-rank adapters: what one weighs on a GPU, and how much longer a step takes when its tokens pass through some.

Beside each matrix W[n, k] that is adapted run two products of rank r (Hu et al., LoRA, 2021): shrink, x A with A[k, r], and expand, its
result times B[r, n] added to the output. Engines batch the tokens of different adapters in one kernel of each kind (Punica, Chen et al.
2023; vLLM's lora_shrink and lora_expand), one call for all slices of a fused matrix (queries, keys and values; gate and up). A step reads
every adapter that one of its tokens asks for once:

    t = sum over matrices of  2 start + max(adapters x bytes / (e_m BW) + moved(tokens), 2 r (slices k + n) tokens / peak)

with the small kernels' fit: such products are bound by starts and bytes, never by arithmetic, so that peak stands uncorrected. `moved` are
the activations: x read, the rank-r sums written and read in 32 bits, the output read and written. Under tensor parallelism A is divided
with the inputs and B with the outputs, each where the matrix is. Adapters are 16-bit. Routed experts, routers, embeddings and the head
have none. Nothing of this is measured here: the form is a bound with the measured starts and bandwidth of other small kernels.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.physics.kernels import Kernels
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.hardware import Gpu
from sim.spec.llm import Llm, Matrix
from sim.spec.lora import DISK, Lora
from sim.spec.scenario import Pool

SUM_BYTES = 4  # of the sums between shrink and expand
SLICES = {"qkv": 3, "gate_up": 2, "shared.gate_up": 2, "qkv_down": 2}


class Pair(NamedTuple):
    """Shrink and expand beside one kind of matrix on one GPU: layers that have it, and bytes and FLOP of one layer's."""

    layers: int
    adapter_bytes: float
    token_bytes: float
    token_flops: float


def pairs(llm: Llm, lora: Lora, tp: int) -> list[Pair]:
    """The adapted matrices of a model, each divided over `tp` GPUs."""
    found = []
    for matrix in llm.matrices:
        if _adapted(matrix, lora):
            n, k = (matrix.n / tp if matrix.split == "n" else matrix.n), (matrix.k / tp if matrix.split == "k" else matrix.k)
            slices = SLICES.get(matrix.name, 1)
            weights = lora.rank * (slices * k + n)
            moved = SIXTEEN_BIT * (k + 2 * n) + 2 * SUM_BYTES * slices * lora.rank
            found.append(Pair(matrix.count, SIXTEEN_BIT * weights, moved, 2.0 * weights))
    return found


def adapter_bytes(llm: Llm, pool: Pool, layers: int) -> float:
    """Bytes of one adapter on one GPU that holds so many layers; 0 where the pool serves none."""
    if pool.engine.lora is None:
        return 0.0
    return sum(pair.layers * pair.adapter_bytes for pair in pairs(llm, pool.engine.lora, pool.parallel.tp)) * layers / llm.layers


class LoraCost:
    """Adapters on the GPUs of one replica. `load` seconds bring one from the host's memory to the GPUs, each its own part; `read` seconds
    bring one from storage to the host's memory.
    """

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool):
        lora = pool.engine.lora
        assert lora is not None, "the pool serves no adapters"
        kernels = Kernels(gpu, pool.engine.framework, pool.engine.framework_version or "")
        small = kernels.fit("norm") or kernels.need("elementwise")
        start = small["t0"] if pool.engine.cuda_graph else max(small["t0"], kernels.need("launch")["seconds"])
        self.lanes = pool.parallel.pp * pool.parallel.dp
        self._l2, self._hit, self._bandwidth, self._peak = gpu.l2, small["hit"], small["e_m"] * gpu.bandwidth, gpu.flops["bf16"]
        self._pairs = pairs(llm, lora, pool.parallel.tp)
        self._starts = sum(2 * pair.layers for pair in self._pairs) * start
        # Steps repeat: few sizes make up most of a run.
        self._known: dict[tuple[int, int], float] = {}
        size = adapter_bytes(llm, pool, -(-llm.layers // pool.parallel.pp))
        self.load = size / gpu.pcie
        whole = adapter_bytes(llm, pool, llm.layers) * pool.parallel.tp
        self.read = lora.load_time if lora.load_time is not None else whole / (lora.disk_bandwidth or DISK)

    def seconds(self, tokens: int, adapters: int) -> float:
        """What so many tokens that ask for so many different adapters add to a step; all pipeline stages in turn."""
        if not tokens:
            return 0.0
        tokens = -(-tokens // self.lanes)
        adapters = min(adapters, tokens)
        known = self._known.get((tokens, adapters))
        if known is not None:
            return known
        total = self._starts
        for layers, per_adapter, per_token, flops in self._pairs:
            moved = tokens * per_token
            resident = 1.0 / (1.0 + (moved / self._l2) ** 2)
            memory = (adapters * per_adapter + moved * (1.0 - resident + resident / self._hit)) / self._bandwidth
            total += layers * max(memory, tokens * flops / self._peak)
        self._known[tokens, adapters] = total
        return total


def _adapted(matrix: Matrix, lora: Lora) -> bool:
    if matrix.part == "attention":
        return True
    return lora.target == "all-linear" and matrix.part == "mlp" and matrix.experts == 1
