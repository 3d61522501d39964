"""The layers of one pipeline stage on one GPU of a replica: which kernels a step runs, how often, and on what sizes.

Everything here is evaluated once, when a replica is bound to its model and hardware. Layers of a kind are spread evenly over the stages,
and the fullest stage counts. Attention, dense layers and shared experts are divided over `tp`; experts over `ep` GPUs of the stage, and
each of them over what is left of tp x dp. With experts spread over attention groups tokens travel: dispatch before and combine after the
experts, in place of the second all-reduce.
"""
from __future__ import annotations

from math import ceil

import numpy as np

from sim.physics.attention import Attention, Heads
from sim.physics.attention_mixed import packed
from sim.physics.base import Cost
from sim.physics.curve import total
from sim.physics.elementwise import choose, elementwise, gated_activation, lookup, norm, rope, sample
from sim.physics.experts import Experts, moe_table
from sim.physics.fabric import Fabric
from sim.physics.gemm import gemm_table, quantise
from sim.physics.kernel_time import HOSTS, slower
from sim.physics.kernels import Kernels
from sim.physics.mla import Latent, MlaAttention
from sim.spec.dtype import DTYPES, KV_BYTES, SIXTEEN_BIT
from sim.spec.fit import Fit
from sim.spec.hardware import Gpu, node
from sim.spec.llm import Llm, Matrix
from sim.spec.scenario import Pool

LAUNCHES_PER_LAYER = 5  # two fused add-norms, rotary embedding with the cache write, attention, the gated activation
LAUNCHES_PER_MOE = 6  # routing, sort, two grouped GEMMs, activation, weighted sum

# Where an engine quantises activations inside the norm or the activation before a product, by static scales or compiled fusion. Tables time
# a product behind kernels of its own for that (find the scale, cast), which then do not run: their time and their starts fall away, and
# the product starts as a 16-bit one does. Judged by whole runs of Llama-3.1-70B: with it the steps of TensorRT-LLM on B200 with 4 sequences
# come out within 3 % at tp 1 to 8; without it they are 30 to 80 % long.
FUSED = {("trtllm", "fp8"), ("trtllm", "nvfp4"), ("vllm", "fp8")}

Costs = list[tuple[float, Cost]]


class Layers:
    """The kernels of `llm` on one GPU of `pool`; sizes are tokens of one lane (attention group and micro-batch)."""

    def __init__(self, llm: Llm, gpu: Gpu, pool: Pool):
        self.kernels = Kernels(gpu, pool.engine.framework, pool.engine.framework_version or "", pool.kernel_time)
        self.llm, self.gpu, self.pool, self.parallel = llm, slower(gpu, pool.kernel_time), pool, pool.parallel
        self.fabric = Fabric(self.gpu, node(pool.node or gpu.node), self.kernels.fit, pool.engine.framework)
        self.stage = ceil(llm.layers / self.parallel.pp) / llm.layers

    def linear(self, tokens: np.ndarray) -> Cost:
        """All work of a stage that depends on the token count alone; arrays over `tokens`."""
        costs: Costs = []
        for matrix, dtype, count in self.llm.linear(self.pool.precision):
            if matrix.part not in ("embedding", "lm_head") and matrix.experts == 1:
                costs += self._gemm(matrix, dtype, count * self.stage, tokens)
        return total([*costs, *self._experts(tokens), *self._small(tokens), *self._collectives(tokens)])

    def head(self, rows: np.ndarray, greedy: bool = False) -> Cost:
        """The vocabulary projection, the gathering of its logits and the sampler, of one row per token that may come out.

        `greedy`: the likeliest token is taken, as drafts are; one kernel in place of a sampler's.
        """
        llm, tp = self.llm, self.parallel.tp
        head = next(matrix for matrix in llm.matrices if matrix.part == "lm_head")
        costs = self._gemm(head, self.pool.precision.lm_head, 1.0, rows)
        costs += [
            (1.0, self.fabric.all_gather(rows * llm.vocab * SIXTEEN_BIT, tp)),
            (1.0, (choose if greedy else sample)(self.gpu, self._little("sampling"), rows, llm.vocab)),
        ]
        return total(costs)

    def attention(self, queries: int = 1) -> list[tuple[Attention | MlaAttention, float]]:
        """One attention per kind of layer of a stage, and how many layers are of it. `queries`: new tokens of each decoder."""
        llm, need, dtype = self.llm, self.kernels.need, self.pool.precision.kv
        flash = self.pool.engine.attention == "flash"
        dtype = "bf16" if dtype == "fp16" else dtype
        if llm.attention == "mla":
            widths = llm.kv_lora_rank, llm.qk_rope_head_dim, llm.qk_nope_head_dim, llm.v_head_dim
            heads = Latent(llm.heads // self.parallel.tp, *widths, queries)
            pair = need("mla_decode", dtype), need("mla_prefill", dtype)
            return [(MlaAttention(self.gpu, *pair, heads, KV_BYTES[dtype], flash), llm.layers * self.stage)]
        own = Heads(max(1, llm.heads // self.parallel.tp), max(1, -(-llm.kv_heads // self.parallel.tp)), llm.head_dim, queries)
        fits = need("attn_decode", dtype), need("attn_prefill", dtype), self._together(dtype)
        return [
            (Attention(self.gpu, *fits, own, KV_BYTES[dtype], window, flash), layers * self.stage) for window, layers in llm.kv_groups
        ]  # fmt: skip

    def _together(self, dtype: str) -> Fit | None:
        """The kernel that takes prompt chunks and decoders in one call, where the engine has one: vLLM with FlashAttention 2 or 3.

        Data-centre Blackwell runs FlashInfer, as TensorRT-LLM and SGLang do everywhere: one kernel for each.
        """
        if self.kernels.framework != "vllm" or self.gpu.architecture == "blackwell":
            return None
        if self.gpu.architecture == "hopper":
            return packed(self.kernels.need("attn_prefill", dtype), self.kernels.need("attn_decode", dtype))
        return self.kernels.fit("attn_mixed", "bf16")

    def host(self) -> float:
        """Seconds of a step in which the GPU waits for the host."""
        engine = self.pool.engine
        if engine.host_overhead is not None:
            return engine.host_overhead
        fit = self.kernels.need("host")
        return fit["seconds"] if engine.async_scheduling else fit["seconds"] + fit["synchronous"]

    def frontend(self) -> float:
        """Seconds a request spends in the API server and the tokeniser."""
        own = self.pool.engine.frontend_overhead
        return own if own is not None else self.kernels.need("frontend")["seconds"]

    def launches(self) -> float:
        """Seconds a host needs to launch a stage's kernels one by one."""
        linear = [(m, count) for m, _, count in self.llm.linear(self.pool.precision) if m.part not in ("embedding", "lm_head")]
        gemms = sum(count for m, count in linear if m.experts == 1)
        collectives = 2 * self.llm.layers if self.parallel.tp > 1 else 0
        small = LAUNCHES_PER_LAYER * self.llm.layers + LAUNCHES_PER_MOE * self.llm.moe_layers
        return (gemms + collectives + small) * self.stage * self.kernels.need("launch")["seconds"]

    def assumed(self, tokens: int, context: int) -> set[str]:
        """What is priced without a measurement of its own, or outside the range of one, with the error to expect."""
        precision = self.pool.precision
        for matrix, dtype, _ in self.llm.linear(precision):
            if matrix.part != "embedding" and matrix.experts == 1:
                n, k = self._share(matrix)
                self._outside("gemm", dtype, m=tokens, n=n, k=k)
            elif matrix.experts > 1 and matrix.split == "n":
                width = self.llm.moe_intermediate / self.parallel.expert_tp
                self._outside("moe", dtype, tokens=tokens, hidden=self.llm.hidden, inter=width, experts=self.llm.n_experts)
        kind = "mla" if self.llm.attention == "mla" else "attn"
        dtype = "bf16" if precision.kv == "fp16" else precision.kv
        self._outside(f"{kind}_decode", dtype, context=context)
        self._outside(f"{kind}_prefill", dtype, context=context)
        if self.parallel.tp > 1:
            self._outside("all_reduce", "", gpus=self.parallel.tp)
        return self.kernels.assumed | self._lent()

    def _lent(self) -> set[str]:
        """Which kernels are another GPU's, and how far such loans were off."""
        said = set()
        for origin in {fit.origin for fit in self.kernels.used} - {self.gpu.name, ""}:
            lent = [fit for fit in self.kernels.used if fit.origin == origin and fit.op not in HOSTS]
            if not lent:
                continue
            known = [fit.errors for fit in lent if fit.errors]
            band = f"; on measured GPUs half of such kernels came within {100 * max(e.median for e in known):.0f} %" if known else ""
            said.add(f"{len(lent)} kinds of kernel of {self.gpu.name} are transferred from {origin} by datasheet ratios{band}")
        return said

    # -- parts ------------------------------------------------------------
    def _outside(self, op: str, dtype: str, **sizes: float) -> None:
        fit = self.kernels.fit(op, dtype)
        if fit is None:
            return
        where = fit.outside(**sizes)
        if where:
            band = f"; inside it 95 % of points come within {100 * fit.errors.p95:.0f} %" if fit.errors else ""
            self.kernels.assumed.add(f"{' '.join(filter(None, (op, fit.dtype)))} on {self.gpu.name}: {where}{band}")

    def _share(self, matrix: Matrix) -> tuple[float, float]:
        """n and k on one GPU."""
        tp = self.parallel.tp
        return (matrix.n / tp if matrix.split == "n" else matrix.n), (matrix.k / tp if matrix.split == "k" else matrix.k)

    def _gemm(self, matrix: Matrix, dtype: str, count: float, tokens: np.ndarray) -> Costs:
        fit, fused = self.kernels.need("gemm", dtype), (self.kernels.framework, dtype) in FUSED
        n, k = self._share(matrix)
        parameters = {**fit.parameters, "t0": min(fit["t0"], self.kernels.need("gemm", "bf16")["t0"])} if fused else fit.parameters
        costs: Costs = [(count, gemm_table(self.gpu, parameters, DTYPES[dtype], tokens, n, k))]
        if DTYPES[dtype].quantises and "tq" in fit.parameters and not fused:
            costs.append((count, quantise(self.gpu, fit.parameters, tokens, k)))
        return costs

    def _experts(self, tokens: np.ndarray) -> Costs:
        llm, parallel, costs = self.llm, self.parallel, []
        for matrix, dtype, count in llm.linear(self.pool.precision):
            # One fused kernel does both projections; the first stands for the pair.
            if matrix.experts > 1 and matrix.split == "n":
                shape = Experts(llm.hidden, llm.moe_intermediate, llm.n_experts, llm.experts_per_token, llm.gated)
                fit, skew = self.kernels.need("moe", dtype), self.pool.engine.expert_skew
                layout = parallel.expert_tp, parallel.ep, skew
                cost = moe_table(self.gpu, fit.parameters, DTYPES[dtype], shape, tokens * parallel.dp, *layout)
                costs.append((count * self.stage, cost))
        return costs

    def starts(self, kernels: int) -> Cost:
        """So many kernels that move next to nothing."""
        return elementwise(self.gpu, self._little("norm"), 0.0, kernels)

    def _little(self, kind: str) -> Fit:
        """The fit of a small kernel, or that of all of them together."""
        return self.kernels.fit(kind) or self.kernels.need("elementwise")

    def _small(self, tokens: np.ndarray) -> Costs:
        """Norms, rotary embedding, activations, and the embedding's lookup."""
        llm, fit, tp = self.llm, self._little, self.parallel.tp
        layers, dense = llm.layers * self.stage, (llm.layers - llm.moe_layers) * self.stage
        heads = (llm.heads + 2 * llm.kv_heads) * llm.head_dim / tp
        widths = [(dense, llm.intermediate)] + ([(llm.moe_layers * self.stage, llm.shared_intermediate)] if llm.shared_intermediate else [])
        return [
            (2 * layers, norm(self.gpu, fit("norm"), tokens, llm.hidden)),
            (layers, rope(self.gpu, fit("rope"), tokens, heads)),
            *((count, gated_activation(self.gpu, fit("activation"), tokens, width / tp)) for count, width in widths if count),
            (1.0 / self.parallel.pp, lookup(self.gpu, fit("embedding"), tokens, llm.hidden)),
        ]  # fmt: skip

    def _collectives(self, tokens: np.ndarray) -> Costs:
        llm, parallel, fabric = self.llm, self.parallel, self.fabric
        size = tokens * llm.hidden * SIXTEEN_BIT
        layers, moe = llm.layers * self.stage, llm.moe_layers * self.stage
        travels = parallel.ep > 1 and parallel.dp > 1
        costs: Costs = []
        if parallel.tp > 1:
            costs.append((2 * layers - (moe if travels else 0), fabric.all_reduce(size, parallel.tp)))
        if travels:
            sent = tokens / parallel.tp, llm.hidden, llm.experts_per_token, parallel.ep
            costs += [(moe, fabric.dispatch(*sent, 1.0, llm.n_experts)), (moe, fabric.combine(*sent, SIXTEEN_BIT, llm.n_experts))]
        elif parallel.dp > 1 and moe:
            # Experts divided over all groups: every group sees all tokens, and the sum comes back in parts.
            n = parallel.tp * parallel.dp
            costs += [(moe, fabric.all_gather(size * parallel.dp, n)), (moe, fabric.reduce_scatter(size * parallel.dp, n))]
        if parallel.pp > 1:
            costs.append((1.0, fabric.p2p(size, parallel.gpus > self.fabric.local)))
        return costs
