"""What fits in a GPU: weights, activations, the runtime's own reserve, and KV blocks from what is left, as vLLM divides it.

blocks = (utilisation x memory - weights - activations - reserve) / bytes per block. Activations are the peak of the profiling run: a full
token budget through one layer, and the logits of max_num_seqs sampled rows.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.core.errors import BadInput, Problem
from sim.spec.hardware import Gpu, Node, node
from sim.spec.llm import SIXTEEN_BIT, WEIGHT_BYTES, Llm
from sim.spec.scenario import Pool, Precision

# CUDA context, graphs, library workspaces and fragmentation. One value for all: with it the block counts that vLLM 0.15-0.19 logged for six
# models on H100 (BLIS-train15) come out within 1 %, and that of a 24 GB RTX 4090 (LLMServingSim) within 3 %.
RESERVE = 1.3e9
LOGIT_BYTES = 10.0  # logits in 16 and 32 bits and the sampler's 32-bit copy


class Memory(NamedTuple):
    """Bytes on one GPU, and the KV blocks; `room` is how many would fit, `blocks` how many there are (they differ by an override)."""

    budget: float
    weights: float
    activations: float
    reserve: float
    per_block: float
    blocks: int
    room: int


def divide(llm: Llm, gpu: Gpu, pool: Pool, where: str = "") -> Memory:
    """The memory of one GPU of the pool. `num_gpu_blocks_override` replaces the block count, but the weights must fit all the same.

    Raises BadInput at the path `where` when the model does not fit, saying by how much and what would.
    """
    engine, tp = pool.engine, pool.parallel.tp
    budget = engine.gpu_memory_utilization * (pool.gpu_memory or gpu.memory)
    weights = llm.weight_bytes(pool.precision, tp)
    activations = _activations(llm, pool)
    per_block = engine.block_size * llm.kv_bytes_per_token(pool.precision.kv, tp)
    left = budget - weights - activations - RESERVE
    blocks = int(left // per_block)
    if blocks < 1:
        raise BadInput([Problem(_misfit(llm, gpu, pool, left - per_block), where)])
    return Memory(budget, weights, activations, RESERVE, per_block, engine.num_gpu_blocks_override or blocks, blocks)


def _activations(llm: Llm, pool: Pool) -> float:
    engine, tp = pool.engine, pool.parallel.tp
    layer = engine.max_num_batched_tokens * SIXTEEN_BIT * (2 * llm.hidden + 3 * llm.inner / tp)
    return layer + engine.max_num_seqs * llm.vocab * LOGIT_BYTES / tp


def _misfit(llm: Llm, gpu: Gpu, pool: Pool, left: float) -> str:
    tp, memory = pool.parallel.tp, pool.gpu_memory or gpu.memory
    fits = _alternatives(llm, gpu, pool)
    return (
        f"{llm.name} does not fit on {gpu.name} with tp {tp}: it needs {llm.weight_bytes(pool.precision, tp) / 1e9:.1f} GB of weights "
        f"a GPU, which has {memory / 1e9:.1f} GB x {pool.engine.gpu_memory_utilization:g}; "
        f"{-left / 1e9:.1f} GB too little for even one KV block. "
        + (f"It would fit with {' or '.join(fits)}" if fits else f"No tensor-parallel layout of one {_host(gpu, pool).name} would hold it")
    )


def _host(gpu: Gpu, pool: Pool) -> Node:
    return node(pool.node or gpu.node)


def _alternatives(llm: Llm, gpu: Gpu, pool: Pool) -> list[str]:
    """What would fit: more GPUs as it is, fewer bits on the same GPUs, else the fewest GPUs with fewer bits. In words of a scenario."""
    host = _host(gpu, pool)
    wider = [n for n in (2, 4, 8, 16, 32, 64) if n > pool.parallel.tp and llm.heads % n == 0 and n <= max(host.gpus, host.domain)]
    narrower = [word for word in ("fp8", "int4") if WEIGHT_BYTES[word] < WEIGHT_BYTES[pool.precision.mlp]]
    same = [f"parallel: {{tp: {n}}}" for n in wider if _left(llm, gpu, pool, n) > 0][:1]
    fewer = {word: pool.model_copy(update={"precision": Precision.model_validate(word)}) for word in narrower}
    same += [f"precision: {word}" for word, other in fewer.items() if _left(llm, gpu, other, pool.parallel.tp) > 0][:1]
    both = (f"precision: {word} and parallel: {{tp: {n}}}" for n in wider for word, other in fewer.items() if _left(llm, gpu, other, n) > 0)
    return same or list(both)[:1]


def _left(llm: Llm, gpu: Gpu, pool: Pool, tp: int) -> float:
    """Bytes left for KV, less one block, on `tp` GPUs."""
    wider = pool.model_copy(update={"parallel": pool.parallel.model_copy(update={"tp": tp})})
    budget = pool.engine.gpu_memory_utilization * (pool.gpu_memory or gpu.memory)
    block = pool.engine.block_size * llm.kv_bytes_per_token(pool.precision.kv, tp)
    return budget - llm.weight_bytes(pool.precision, tp) - _activations(llm, wider) - RESERVE - block
