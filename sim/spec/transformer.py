"""Architectures of language models: the matrices an engine multiplies, and what its weights and KV cache weigh.

Sizes are counts; bytes are those of one GPU of a replica. Only the language part counts: vision towers are left out, and so are extra
prediction layers (`sim.spec.draft`). `sim.spec.llm` finds an architecture by its name.

Layout, as vLLM lays a replica out over tp x pp x dp GPUs. Attention, dense MLPs, shared experts, embedding and head are divided by tp and
repeated in every dp group. Routed experts are spread over all tp x dp GPUs of a stage: n_experts / ep whole experts each, every expert
divided by expert_tp. A stage has layers / pp; layers left over go to the stages before the last, which also has the head; the first has
the embedding. (SGLang divides dense MLPs by tp x dp; its shared experts may run beside the routed ones. Neither is modelled.)
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from sim.core.errors import BadInput, Problem
from sim.spec.dtype import DTYPES, KV_BYTES, SIXTEEN_BIT
from sim.spec.layout import Parallel, Precision


@dataclass(frozen=True, slots=True)
class Matrix:
    """One kind of weight matrix, y[m, n] = x[m, k] W, fused as engines fuse it (QKV; gate with up; MLA's two down-projections).

    `part`: embedding | attention | mlp | router | lm_head. `count`: layers that have it. `experts`: copies in a layer, of which a token
    uses `active` (an embedding is looked up, so 0); above 1 the copies are routed experts, which run as one fused op. `layers` says
    which layers have it: all | dense | moe | none (embedding and head). `split`: the side that tensor parallelism divides, 'n', 'k' or
    'none'. KV heads fewer than the GPUs are replicated, which `n / tp` of `qkv` leaves out and `Llm.weight_bytes` counts.
    """

    part: str
    name: str
    n: int
    k: int
    count: int
    experts: int = 1
    active: int = 1
    split: str = "n"
    layers: str = "all"


@dataclass(frozen=True)
class Llm:
    """One architecture. `attention` is `gqa` (multi-head and multi-query included) or `mla`, for which `head_dim` is nope + rope.

    `windows` has one entry per layer, 0 for full attention; a layer that attends within chunks has the chunk as its window, which is exact
    for contexts up to one chunk and beyond that too many keys by half a chunk on average. `moe` says of each layer whether it has experts
    (empty: none has). `shared_intermediate` is the width of all shared experts together, `gated` whether the MLP has a gate. `mtp_layers`
    counts extra layers that predict several tokens ahead, not among `layers`. `checkpoint` is the number format that `quantization_config`
    says the weights are published in ('' when 16-bit): a hint for the scenario's precision, which nothing here uses. An alias in the
    catalogue that names a quantised copy shares the original's entry, and its hint.
    """

    name: str
    source: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_position: int
    tie_word_embeddings: bool = False
    attention: str = "gqa"
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    n_experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    moe: tuple[bool, ...] = ()
    windows: tuple[int, ...] = ()
    gated: bool = True
    qkv_bias: bool = False
    checkpoint: str = ""
    mtp_layers: int = 0

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return sum(self.moe)

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every matrix. With tied word embeddings `lm_head` is the embedding too, and there is no matrix of that part."""
        embedding = () if self.tie_word_embeddings else (Matrix("embedding", "embedding", self.hidden, self.vocab, 1, 1, 0, "k", "none"),)
        return (*embedding, *self._attention(), *self._mlp(), Matrix("lm_head", "lm_head", self.vocab, self.hidden, 1, layers="none"))

    def _attention(self) -> tuple[Matrix, ...]:
        layers, hidden = self.layers, self.hidden
        if self.attention == "gqa":
            qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
            return (
                Matrix("attention", "qkv", qkv, hidden, layers),
                Matrix("attention", "o", hidden, self.heads * self.head_dim, layers, split="k"),
            )
        query, latent = self.heads * self.head_dim, self.kv_lora_rank + self.qk_rope_head_dim
        if self.q_lora_rank:
            down = (
                Matrix("attention", "qkv_down", self.q_lora_rank + latent, hidden, layers, split="none"),
                Matrix("attention", "q_up", query, self.q_lora_rank, layers),
            )
        else:
            down = (Matrix("attention", "q", query, hidden, layers), Matrix("attention", "kv_down", latent, hidden, layers, split="none"))
        return (
            *down,
            Matrix("attention", "kv_up", self.heads * (self.qk_nope_head_dim + self.v_head_dim), self.kv_lora_rank, layers),
            Matrix("attention", "o", hidden, self.heads * self.v_head_dim, layers, split="k"),
        )

    def _mlp(self) -> tuple[Matrix, ...]:
        dense, moe = self.layers - self.moe_layers, self.moe_layers
        found = [*self._feed_forward("", self.intermediate, dense, "dense")] if dense else []
        if moe:
            found.append(Matrix("router", "router", self.n_experts, self.hidden, moe, split="none", layers="moe"))
            found += self._feed_forward("experts.", self.moe_intermediate, moe, "moe", self.n_experts, self.experts_per_token)
        if moe and self.shared_intermediate:
            found += self._feed_forward("shared.", self.shared_intermediate, moe, "moe")
        return tuple(found)

    def _feed_forward(self, prefix: str, width: int, count: int, layers: str, experts: int = 1, active: int = 1) -> tuple[Matrix, Matrix]:
        first = ("gate_up", 2 * width) if self.gated else ("up", width)
        return (
            Matrix("mlp", prefix + first[0], first[1], self.hidden, count, experts, active, "n", layers),
            Matrix("mlp", prefix + "down", self.hidden, width, count, experts, active, "k", layers),
        )

    @property
    def _vectors(self) -> int:
        """Weights of norms and QKV biases: too few to matter, but published totals include them."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim * self.layers if self.qkv_bias and self.attention == "gqa" else 0
        return (2 * self.layers + 1) * self.hidden + bias

    @property
    def params(self) -> int:
        """All weights; tied embeddings once."""
        return sum(m.count * m.experts * m.n * m.k for m in self.matrices) + self._vectors

    @property
    def active_params(self) -> int:
        """Weights one token meets. The vocabulary projection counts; the embedding does not, as a lookup reads one row of it.

        DeepSeek, Kimi and gpt-oss publish this number; Mixtral and Qwen publish it with the embedding added.
        """
        return sum(m.count * m.active * m.n * m.k for m in self.matrices) + self._vectors

    @property
    def inner(self) -> int:
        """Width of the activation between the two MLP projections that one token meets, its experts' together."""
        return self.experts_per_token * self.moe_intermediate + self.shared_intermediate if self.n_experts else self.intermediate

    @property
    def flops_per_token(self) -> float:
        """Arithmetic of one token outside attention, FLOP: two per weight it is multiplied with."""
        return 2.0 * sum(m.count * m.active * m.n * m.k for m in self.matrices)

    def flops_per_pair(self, decode: bool = False) -> float:
        """Attention arithmetic of one query with one key in one layer, FLOP, all heads: scores and weighted values.

        With MLA a decoding query meets the compressed cache itself (the up-projection is absorbed into the query), which costs more.
        """
        if self.attention == "mla":
            each = 2 * self.kv_lora_rank + self.qk_rope_head_dim if decode else self.head_dim + self.v_head_dim
            return 2.0 * self.heads * each
        return 4.0 * self.heads * self.head_dim

    def linear(self, precision: Precision) -> tuple[tuple[Matrix, str, int], ...]:
        """Every matrix that is multiplied (not the embedding), its number format, and how many layers have it in this format.

        The first and last layers of `precision.edges` are apart from the rest where their format differs. Routers are 16-bit.
        Raises BadInput when there are more such layers than the model has.
        """
        found = []
        edges = self._edges(precision)
        for m in self.matrices:
            counts: Counter[str] = Counter()
            if m.part == "lm_head":
                counts[precision.lm_head] = m.count
            elif m.part != "embedding":
                inside = sum(self._has(m, layer) for layer in edges)
                counts[self._dtype(m, precision, edge=False)] = m.count - inside
                counts[self._dtype(m, precision, edge=True)] += inside
            found += [(m, dtype, count) for dtype, count in counts.items() if count]
        return tuple(found)

    def _edges(self, precision: Precision) -> list[int]:
        first, last = precision.edges.first, precision.edges.last
        if first + last > self.layers:
            raise BadInput([Problem(f"first ({first}) and last ({last}) are more than the {self.layers} layers of {self.name}", "edges")])
        return [*range(first), *range(self.layers - last, self.layers)]

    def _has(self, m: Matrix, layer: int) -> bool:
        if m.layers in ("all", "none"):
            return m.layers == "all"
        return (m.layers == "moe") == (bool(self.moe) and self.moe[layer])

    @staticmethod
    def _dtype(m: Matrix, precision: Precision, edge: bool) -> str:
        if m.part == "router":
            return "bf16"
        return precision.edges.dtype if edge else precision.attention if m.part == "attention" else precision.mlp

    def stages(self, pp: int) -> tuple[range, ...]:
        """Layers of each pipeline stage, as vLLM cuts them: equal parts, and what is left over to the stages before the last."""
        each, over = divmod(self.layers, pp)
        sizes = [each + (pp - 1 - over <= stage < pp - 1) for stage in range(pp)]
        starts = [sum(sizes[:stage]) for stage in range(pp)]
        return tuple(range(start, start + size) for start, size in zip(starts, sizes, strict=True))

    def weight_bytes(self, precision: Precision, parallel: Parallel = Parallel()) -> float:  # noqa: B008 (immutable)
        """Bytes of weights on each GPU of the heaviest stage. Raises BadInput as `linear` does."""
        return max(self.stage_bytes(precision, parallel))

    def stage_bytes(self, precision: Precision, parallel: Parallel) -> tuple[float, ...]:
        """Bytes of weights on each GPU, stage by stage.

        Router, embedding and norms stay 16-bit. A tied embedding follows `lm_head`; with more than one stage the first keeps its own copy.
        """
        edges = set(self._edges(precision))
        found = []
        for stage, layers in enumerate(self.stages(parallel.pp)):
            total = SIXTEEN_BIT * self._vectors * len(layers) / self.layers
            for m in self.matrices:
                share = self._share(m, parallel)
                if m.part == "embedding":
                    total += SIXTEEN_BIT * share * (stage == 0)
                elif m.part == "lm_head":
                    total += DTYPES[precision.lm_head].weight * share * (stage == parallel.pp - 1)
                    total += SIXTEEN_BIT * share * (self.tie_word_embeddings and stage == 0 and parallel.pp > 1)
                else:
                    mine = [layer in edges for layer in layers if self._has(m, layer)]
                    plain, edge = (DTYPES[self._dtype(m, precision, edge)].weight for edge in (False, True))
                    total += share * (plain * (len(mine) - sum(mine)) + edge * sum(mine))
            found.append(total)
        return tuple(found)

    def _share(self, m: Matrix, parallel: Parallel) -> float:
        """Weights of one layer's matrix on one GPU, its experts' together."""
        tp = parallel.tp
        if m.split == "none":
            return m.n * m.k
        if m.name == "qkv":
            return (self.heads / tp + 2 * self._kv_heads(tp)) * self.head_dim * m.k
        return m.experts * m.n * m.k / (tp * parallel.dp if m.experts > 1 else tp)

    def check(self, precision: Precision, parallel: Parallel, where: str = "") -> None:
        """Raise BadInput, at paths below `where`, when the layout or the precision's edges do not fit the architecture."""
        tp, pp, ep = parallel.tp, parallel.pp, parallel.ep
        wrong: dict[str, str] = {}
        if self.heads % tp:
            wrong["parallel.tp"] = f"tp {tp} does not divide the {self.heads} attention heads of {self.name}"
        elif self.attention == "gqa" and max(tp, self.kv_heads) % min(tp, self.kv_heads):
            wrong["parallel.tp"] = f"tp {tp} neither divides the {self.kv_heads} KV heads of {self.name} nor is a multiple of them"
        if pp > self.layers:
            wrong["parallel.pp"] = f"pp {pp} is more than the {self.layers} layers of {self.name}"
        if ep > 1 and not self.moe_layers:
            wrong["parallel.ep"] = f"ep {ep} is for models with experts, and {self.name} has none; leave it at 1"
        elif self.moe_layers and self.n_experts % ep:
            wrong["parallel.ep"] = f"ep {ep} does not divide the {self.n_experts} experts of {self.name}"
        elif self.moe_layers and self.moe_intermediate % parallel.expert_tp:
            wrong["parallel.ep"] = (
                f"with ep {ep} each expert of {self.name} is divided among {parallel.expert_tp} GPUs, "
                f"which do not divide its width {self.moe_intermediate}; a larger ep would"
            )
        try:
            self._edges(precision)
        except BadInput as error:
            wrong["precision.edges"] = error.problems[0].message
        if wrong:
            raise BadInput([Problem(message, f"{where}.{key}".lstrip(".")) for key, message in wrong.items()])

    def _kv_heads(self, tp: int) -> int:
        """KV heads one GPU keeps: its part, and at least one."""
        return max(1, -(-self.kv_heads // tp))

    def kv_bytes_per_token(self, dtype: str, tp: int = 1, pp: int = 1) -> float:
        """Bytes one token holds in the KV cache of each GPU of the fullest of `pp` stages, none windowed. `dtype`: bf16 | fp16 | fp8.

        MLA caches the compressed vector and the rotary key, the same on every GPU; else each GPU caches its own KV heads.
        """
        return self.kv_bytes_per_layer(dtype, tp) * -(-self.layers // pp)

    def kv_bytes_per_layer(self, dtype: str, tp: int = 1) -> float:
        """The same, of one layer."""
        width = self.kv_lora_rank + self.qk_rope_head_dim if self.attention == "mla" else 2 * self._kv_heads(tp) * self.head_dim
        return KV_BYTES[dtype] * width

    @cached_property
    def kv_groups(self) -> tuple[tuple[int, int], ...]:
        """(window, layers that have it), by window; 0 is full attention."""
        return tuple(sorted(Counter(self.windows or (0,) * self.layers).items()))
