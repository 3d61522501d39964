"""What drafts tokens for a model to verify: a smaller model, an EAGLE head, the model's own prediction layers, or nothing but its text.

A head is one decoder layer behind a joining projection, and an `Llm` like any other, so that whatever prices and stores models does so with
heads. It shares the embedding with its target, and the vocabulary projection unless it has one of its own.

    eagle   [embedding, hidden state] 2h -> h, a dense decoder layer; arXiv 2401.15077
    eagle3  hidden states of three layers 3h -> h, once for each verified token; a layer whose queries, keys and values read embedding and
            hidden state, 2h; a projection onto the commonest tokens; arXiv 2503.01840
    mtp     [embedding, hidden state] 2h -> h, a layer like the target's last one; DeepSeek-V3, arXiv 2412.19437

A head of a model with experts has one MLP as wide as those that a token meets together. Drafts run in 16 bits, prediction layers in the
formats of their model; what they cache is in the format of the target's cache. They span the target's GPUs, `draft_tensor_parallel_size`
of them in a group, in the last pipeline stage.
"""
from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from sim.core.errors import BadInput, Problem
from sim.spec.engine import Speculation
from sim.spec.layout import Edges, Parallel, Precision
from sim.spec.llm import Llm, Matrix, llm
from sim.spec.scenario import Pool

# `draft_vocab_size` of the heads that came with EAGLE-3, for a target of 128,256 tokens (yuhuili/EAGLE3-LLaMA3.1-Instruct-8B).
EAGLE3_VOCAB = 32_000
HIDDEN_STATES = {"eagle": 2, "eagle3": 3, "mtp": 2}


@dataclass(frozen=True)
class Head(Llm):
    """Decoder layers on the hidden states of another model. `joined` of them enter the projection (0: a pass without it).

    `wide`: queries, keys and values read two hidden states. `shared`: parts that are the other model's, and take no memory.
    """

    joined: int = 0
    wide: bool = False
    shared: tuple[str, ...] = ("embedding", "lm_head")

    def _attention(self) -> tuple[Matrix, ...]:
        plain = super()._attention()
        join = [Matrix("attention", "join", self.hidden, self.joined * self.hidden, 1, split="none")] if self.joined else []
        second = [m for m in plain if self.wide and m.k == self.hidden and m.split != "k"]
        return (*plain, *join, *(replace(m, name=f"{m.name} of the embedding") for m in second))

    def _share(self, m: Matrix, parallel: Parallel) -> float:
        return 0.0 if m.part in self.shared else super()._share(m, parallel)


class Draft(NamedTuple):
    """What drafts, and how it lies on the target's GPUs. `layers` is how many copies of it are held (prediction layers); one runs."""

    llm: Llm
    precision: Precision
    parallel: Parallel
    layers: int = 1

    @property
    def weights(self) -> float:
        """Bytes on each GPU of the last stage."""
        return self.layers * self.llm.weight_bytes(self.precision, self.parallel)

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes a token's keys and values take on each GPU of the last stage, beside the target's."""
        return self.layers * self.llm.kv_bytes_per_token(self.precision.kv, self.parallel.tp)

    @property
    def again(self) -> Llm:
        """The model as it runs for all but the first token of a draft: only EAGLE-3 joins hidden states of the target alone."""
        return replace(self.llm, joined=0) if isinstance(self.llm, Head) and self.llm.wide else self.llm

    def pool(self, pool: Pool) -> Pool:
        """The target's pool, with the draft's layout and formats."""
        return pool.model_copy(update={"precision": self.precision, "parallel": self.parallel})


def draft(target: Llm, pool: Pool, where: str = "") -> Draft | None:
    """What drafts for `target` in this pool; None without speculation, and where the text itself is searched.

    Raises BadInput, at paths below `where`, when the draft is not known, larger than its target, or cannot be laid out.
    """
    options = pool.engine.speculative_config
    if options is None or options.method == "ngram":
        return None
    at = f"{where}.engine.speculative_config".lstrip(".")
    found = _model(target, options, at)
    wrong: dict[str, str] = {}
    if found.params > target.params:
        wrong["model"] = (
            f"the draft {found.name} has {found.params / 1e9:.3g} billion parameters, more than the {target.params / 1e9:.3g} billion of "
            f"{target.name}; a smaller one is wanted"
        )
    if options.method == "draft_model" and found.vocab != target.vocab:
        wrong.setdefault("model", (
            f"the draft {found.name} has a vocabulary of {found.vocab} tokens and {target.name} one of {target.vocab}; a draft model of "
            "the same vocabulary is wanted"
        ))  # fmt: skip
    k, ahead = options.num_speculative_tokens, target.mtp_layers
    if options.method == "mtp" and k > ahead and k % ahead:
        wrong["num_speculative_tokens"] = f"found {k}; a multiple of the {ahead} prediction layers of {target.name} is wanted, as in vLLM"
    tp = options.draft_tensor_parallel_size or pool.parallel.tp
    if tp not in (1, pool.parallel.tp):
        wrong["draft_tensor_parallel_size"] = f"found {tp}; 1 or tp of the target ({pool.parallel.tp}) is wanted, as in vLLM"
    if wrong:
        raise BadInput([Problem(message, f"{at}.{key}") for key, message in wrong.items()])
    held = ahead if options.method == "mtp" else 1
    laid = Draft(found, _precision(options, pool), _layout(found, tp, pool.parallel), held)
    try:
        laid.llm.check(laid.precision, laid.parallel)
    except BadInput as error:
        raise BadInput([Problem(f"the draft does not fit the layout: {problem.message}", at) for problem in error.problems]) from None
    return laid


def _model(target: Llm, options: Speculation, at: str) -> Llm:
    if options.method == "mtp":
        if not target.mtp_layers:
            message = f"{target.name} has no layers that predict ahead (num_nextn_predict_layers in its config.json); method mtp needs one"
            raise BadInput([Problem(message, f"{at}.method")])
        last = replace(target, name=f"the MTP layer of {target.name}", layers=1, moe=target.moe[-1:], windows=(0,))
        return _head(target, options.method, last)
    if options.model is None:
        return _head(target, options.method, _one_layer(target, options.method))
    try:
        named = llm(options.model)
    except BadInput as error:
        raise BadInput([Problem(str(problem), f"{at}.model") for problem in error.problems]) from None
    return named if options.method == "draft_model" else _head(target, options.method, named)


def _one_layer(target: Llm, method: str) -> Llm:
    """A dense decoder layer of the target's sizes."""
    return replace(
        target, name=f"{method} head of {target.name}", layers=1, intermediate=target.inner, windows=(0,), moe=(), n_experts=0,
        experts_per_token=0, moe_intermediate=0, shared_intermediate=0, mtp_layers=0,
    )  # fmt: skip


def _head(target: Llm, method: str, base: Llm) -> Head:
    parts = {field.name: getattr(base, field.name) for field in fields(base)}
    parts |= {"joined": HIDDEN_STATES[method], "tie_word_embeddings": False}
    if method == "eagle3":
        parts |= {"wide": True, "vocab": min(target.vocab, EAGLE3_VOCAB), "shared": ("embedding",)}
    return Head(**parts)


def _precision(options: Speculation, pool: Pool) -> Precision:
    own = pool.precision
    if options.method == "mtp":
        return own.model_copy(update={"edges": Edges()})
    return Precision(kv=own.kv, lm_head=own.lm_head if options.method == "eagle" else "bf16")


def _layout(found: Llm, tp: int, parallel: Parallel) -> Parallel:
    # Experts of a draft are spread as its target's are, where it is laid out alike.
    return Parallel(tp=tp, dp=parallel.dp, ep=parallel.ep if found.moe_layers and tp == parallel.tp else 1)
