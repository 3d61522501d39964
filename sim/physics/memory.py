"""What fits in a GPU: weights, activations, the engine's own reserve, and KV blocks from what is left, as vLLM divides it.

blocks = (utilisation x memory - weights - activations - reserve) / bytes per block, for the tightest pipeline stage, since every stage
holds the same blocks. What vLLM finds by a profiling run is counted here, term by term (v1 `determine_available_memory`, 0.15 to 0.19):

* memory is what CUDA offers, which is less than the driver lists;
* activations are the peak of a full token budget: two hidden states a token throughout, and on top either the widest layer or the sampling
  of max_num_seqs rows, whose logits every GPU gathers whole;
* the reserve is what else the run allocates: libraries and their workspaces, buffers for collectives, the table of rotary positions, and
  the 16-bit copies of MLA's up-projection.

Where tokens are drafted the drafter's weights and its own keys and values, one set per token, lie in the last stage beside the target's.
Adapters count among the weights: vLLM sets each of the `max_loras` slots aside before it measures.

What a trainer that shares the GPUs leaves on them counts as reserve: the engine measures it as memory of others within its share.

The CUDA context and the captured graphs live in the part that `gpu_memory_utilization` leaves free, as in these versions.

With dp each group has a cache of its own. The engine sees them as one pool: `blocks` are those of all groups, requests being spread evenly.
`max_num_batched_tokens`, `max_num_seqs` and `num_gpu_blocks_override` are each group's, as they are in vLLM.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.core.errors import BadInput, Problem
from sim.physics.lora import adapter_bytes
from sim.spec.draft import draft
from sim.spec.dtype import DTYPES, SIXTEEN_BIT
from sim.spec.hardware import Gpu, Node, node
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import Llm
from sim.spec.scenario import Pool

# Memory that the driver lists and CUDA does not offer: 0.506 GB on the RTX 4090 of LLMServingSim's bench, which records both.
DRIVER = 0.5e9
# Judgements, of one value for all models: library workspaces, generated kernels and fragmentation; NCCL and custom all-reduce buffers. They
# were chosen on the eight counts that vLLM 0.15 logged for five models on H100 (BLIS-train15) and the one of 0.19 on an RTX 4090, all of
# which come out within 1.2 %. A model with a vision tower has less room than this says: Llama 4 Scout logged 19 % fewer blocks.
WORKSPACES = 0.6e9
COLLECTIVES = 0.3e9
# A sampled row's logits in 16 and 32 bits, and sorted with their 64-bit places for top-p.
LOGIT_BYTES = 2 + 4 + 4 + 8
# Tokens of all dp groups that one launch of the fused experts takes at most (VLLM_FUSED_MOE_CHUNK_SIZE).
EXPERT_TOKENS = 16384
MOST = 64  # GPUs of a replica that advice considers


class Memory(NamedTuple):
    """Bytes on one GPU of the tightest stage, and the KV blocks of a replica.

    `per_block` is what one block takes on a GPU that holds it. `room` is how many blocks would fit, `blocks` how many there are (they
    differ by an override); both count all dp groups.
    """

    budget: float
    weights: float
    activations: float
    reserve: float
    per_block: float
    blocks: int
    room: int

    @property
    def left(self) -> float:
        """Bytes that remain for KV, less one block: negative where the model does not fit."""
        return self.budget - self.weights - self.activations - self.reserve - self.per_block


def divide(llm: Llm, gpu: Gpu, pool: Pool, where: str = "", residual: float = 0.0) -> Memory:
    """The memory of a replica of the pool. `num_gpu_blocks_override` replaces the block count, but the weights must fit all the same.
    `residual`: bytes on each GPU that a trainer which shares it leaves there.

    Raises BadInput at paths below `where` when the layout does not suit the model, and at `where` when the model does not fit, saying by
    how much and what would.
    """
    llm.check(pool.precision, pool.parallel, where)
    draft(llm, pool, where)
    tightest = _tightest(llm, gpu, pool, residual)
    if tightest.left < 0:
        raise BadInput([Problem(_misfit(llm, gpu, pool, tightest, residual), where)])
    override = pool.engine.num_gpu_blocks_override
    return tightest._replace(blocks=override * pool.parallel.dp if override else tightest.room)


def lacking(llm: Llm, gpu: Gpu, pool: Pool, residual: float = 0.0) -> float:
    """Bytes on each GPU that are too few for the model and one KV block; 0 where it fits. Raises BadInput as `divide`, but for that."""
    llm.check(pool.precision, pool.parallel)
    draft(llm, pool)
    return max(0.0, -_tightest(llm, gpu, pool, residual).left)


def _tightest(llm: Llm, gpu: Gpu, pool: Pool, residual: float) -> Memory:
    engine, parallel = pool.engine, pool.parallel
    budget = engine.gpu_memory_utilization * ((pool.gpu_memory or gpu.memory) - DRIVER)
    weights = llm.stage_bytes(pool.precision, parallel)
    page = engine.block_size * llm.kv_bytes_per_layer(pool.precision.kv, parallel.tp)
    stages, drafter = [], draft(llm, pool)
    for stage, layers in enumerate(llm.stages(parallel.pp)):
        last = stage == parallel.pp - 1
        peak, reserve = _activations(llm, pool, layers, last), residual + _reserve(llm, pool, layers)
        slots = engine.lora.max_loras * adapter_bytes(llm, pool, len(layers)) if engine.lora else 0.0
        parts = Memory(budget, weights[stage] + slots, peak, reserve, len(layers) * page, 0, 0)
        if drafter and last:
            block = engine.block_size * drafter.kv_bytes_per_token
            parts = parts._replace(weights=parts.weights + drafter.weights, per_block=parts.per_block + block)
        blocks = max(0, int(parts.left // parts.per_block) + 1) * parallel.dp
        stages.append(parts._replace(blocks=blocks, room=blocks))
    return min(stages, key=lambda parts: parts.left / parts.per_block)


def _reserve(llm: Llm, pool: Pool, layers: range) -> float:
    positions = max(llm.max_position, pool.engine.max_model_len or 0) * (llm.qk_rope_head_dim or llm.head_dim)
    # MLA decodes with 16-bit copies of a quantised up-projection.
    copies = 0 if pool.precision.attention in ("bf16", "fp16") else sum(m.n * m.k for m in llm.matrices if m.name == "kv_up")
    absorbed = copies * len(layers) / pool.parallel.tp
    return WORKSPACES + COLLECTIVES * (pool.parallel.gpus > 1) + SIXTEEN_BIT * (positions + absorbed)


def _activations(llm: Llm, pool: Pool, layers: range, samples: bool) -> float:
    """Peak bytes of the profiling run on one GPU of the stage with these layers; the last stage `samples`."""
    tokens, parallel = pool.engine.max_num_batched_tokens, pool.parallel
    values = llm.v_head_dim or llm.head_dim
    keys = llm.heads * (llm.head_dim + values) if llm.attention == "mla" else 2 * llm.kv_heads * llm.head_dim
    # Queries, keys, values and the output of attention; gate, up and their product in the MLP.
    widest = tokens * max((llm.heads * (llm.head_dim + values) + keys) / parallel.tp, 3 * llm.intermediate / parallel.tp)
    if any(llm.moe[layer] for layer in layers if llm.moe):
        width = llm.moe_intermediate / parallel.expert_tp
        routed = min(tokens * parallel.dp, EXPERT_TOKENS) * llm.experts_per_token * (max(2 * width, llm.hidden) + width)
        widest = max(widest, routed + tokens * 3 * llm.shared_intermediate / parallel.tp)
    sampling = pool.engine.max_num_seqs * llm.vocab * LOGIT_BYTES if samples else 0.0
    return SIXTEEN_BIT * tokens * 2 * llm.hidden + max(SIXTEEN_BIT * widest, sampling)


def _misfit(llm: Llm, gpu: Gpu, pool: Pool, tightest: Memory, residual: float) -> str:
    memory, fits = pool.gpu_memory or gpu.memory, _alternatives(llm, gpu, pool, residual)
    none = f"No layout of up to {MOST} GPUs in nodes {_host(gpu, pool).name} would hold it"
    advice = f"It would fit with {' or '.join(fits)}" if fits else none
    others = f", {residual / 1e9:.1f} GB of them its trainer's" if residual else ""
    bearable = residual + tightest.left
    if residual and bearable >= 0:
        advice = f"It would fit with residual: {int(bearable / 1e8) / 10:g}GB of its trainer" + (f" or {' or '.join(fits)}" if fits else "")
    return (
        f"{llm.name} does not fit on {gpu.name} with {_words(pool.parallel)}: it needs {tightest.weights / 1e9:.1f} GB of weights "
        f"a GPU, which has {memory / 1e9:.1f} GB x {pool.engine.gpu_memory_utilization:g}{others}; "
        f"{-tightest.left / 1e9:.1f} GB too little for even one KV block. {advice}"
    )


def _words(parallel: Parallel) -> str:
    """`tp 4`, with the other sizes where they are not 1."""
    sizes = {"tp": parallel.tp, "pp": parallel.pp, "dp": parallel.dp, "ep": parallel.ep}
    return ", ".join(f"{name} {size}" for name, size in sizes.items() if size > 1 or name == "tp")


def _host(gpu: Gpu, pool: Pool) -> Node:
    return node(pool.node or gpu.node)


def _alternatives(llm: Llm, gpu: Gpu, pool: Pool, residual: float) -> list[str]:
    """What would fit, in words of a scenario: the fewest GPUs that hold it as it is, and fewer bits on as few GPUs as can be."""
    now, current = DTYPES[pool.precision.mlp].weight, pool.parallel
    fewer = {word: Precision.model_validate(word) for word in ("fp8", "int4") if DTYPES[word].weight < now}
    layouts = list(_wider(gpu, pool))
    same = [_layout(layout) for layout in layouts if _fits(llm, gpu, pool.model_copy(update={"parallel": layout}), residual)]
    narrower = [
        f"precision: {word}" + ("" if layout is current else f" and {_layout(layout)}")
        for layout in (current, *layouts) for word, precision in fewer.items()
        if _fits(llm, gpu, pool.model_copy(update={"parallel": layout, "precision": precision}), residual)
    ]  # fmt: skip
    return same[:1] + narrower[:1]


def _wider(gpu: Gpu, pool: Pool) -> Iterator[Parallel]:
    """Layouts over more GPUs, fewest first: tensor-parallel within the GPUs of one node, then pipelines of such groups."""
    host, now = _host(gpu, pool), pool.parallel
    powers = [2**power for power in range(MOST.bit_length())]
    widths = [tp for tp in powers if tp > now.tp and tp * now.dp <= max(host.gpus, host.domain)]
    yield from (now.model_copy(update={"tp": tp}) for tp in widths)
    tp = max([now.tp, *widths])
    yield from (now.model_copy(update={"tp": tp, "pp": pp}) for pp in powers if pp > now.pp and tp * pp * now.dp <= MOST)


def _layout(parallel: Parallel) -> str:
    return "parallel: {" + _words(parallel).replace(" ", ": ").replace(",:", ",") + "}"


def _fits(llm: Llm, gpu: Gpu, pool: Pool, residual: float) -> bool:
    try:
        llm.check(pool.precision, pool.parallel)
        draft(llm, pool)
    except BadInput:
        return False
    return _tightest(llm, gpu, pool, residual).left >= 0
