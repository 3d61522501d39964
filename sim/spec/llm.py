"""Architectures of language models: the matrices an engine multiplies, and what its weights and KV cache weigh.

An `Llm` is read from the catalogue (`hardware_profiles/models/*.yaml`) or from a Hugging Face config.json. Sizes are counts; bytes are
those of one GPU of a tensor-parallel group. Only the language part counts: vision towers and extra prediction layers are left out.
"""
from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sim.core.errors import BadInput, Problem, did_you_mean
from sim.spec.huggingface import architecture
from sim.spec.scenario import Precision

# Bytes per element with the group scales: int4 one 16-bit scale per 128, nvfp4 one byte per 16, mxfp4 one byte per 32.
WEIGHT_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128, "nvfp4": 0.5 + 1 / 16, "mxfp4": 0.5 + 1 / 32}
# int4 and mxfp4 are weight-only: their activations stay 16-bit.
ACTIVATION_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 2.0, "nvfp4": 0.5 + 1 / 16, "mxfp4": 2.0}
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0}
SIXTEEN_BIT = 2.0


@dataclass(frozen=True, slots=True)
class Matrix:
    """One kind of weight matrix, y[m, n] = x[m, k] W, fused as engines fuse it (QKV; gate with up; MLA's two down-projections).

    `part`: embedding | attention | mlp | router | lm_head. `count`: layers that have it. `experts`: copies in a layer, of which a token
    uses `active` (an embedding is looked up, so 0). `split`: the side that tensor parallelism divides, 'n', 'k' or 'none'. KV heads
    fewer than the GPUs are replicated, which `n / tp` of `qkv` leaves out and `Llm.weight_bytes` counts.
    """

    part: str
    name: str
    n: int
    k: int
    count: int
    experts: int = 1
    active: int = 1
    split: str = "n"


@dataclass(frozen=True)
class Llm:
    """One architecture. `attention` is `gqa` (multi-head and multi-query included) or `mla`, for which `head_dim` is nope + rope.

    `windows` has one entry per layer, 0 for full attention. `shared_intermediate` is the width of all shared experts together,
    `moe_layers` the number of layers with experts, `gated` whether the MLP has a gate. `checkpoint` is the number format that
    `quantization_config` says the weights are published in ('' when 16-bit): a hint for the scenario's precision, which nothing here uses.
    An alias in the catalogue that names a quantised copy shares the original's entry, and its hint.
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
    moe_layers: int = 0
    windows: tuple[int, ...] = ()
    gated: bool = True
    qkv_bias: bool = False
    checkpoint: str = ""

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every matrix. With tied word embeddings `lm_head` is the embedding too, and there is no matrix of that part."""
        embedding = () if self.tie_word_embeddings else (Matrix("embedding", "embedding", self.hidden, self.vocab, 1, active=0, split="k"),)
        return (*embedding, *self._attention(), *self._mlp(), Matrix("lm_head", "lm_head", self.vocab, self.hidden, 1))

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
        found = [*self._feed_forward("", self.intermediate, dense)] if dense else []
        if moe:
            found.append(Matrix("router", "router", self.n_experts, self.hidden, moe, split="none"))
            found += self._feed_forward("experts.", self.moe_intermediate, moe, self.n_experts, self.experts_per_token)
        if moe and self.shared_intermediate:
            found += self._feed_forward("shared.", self.shared_intermediate, moe)
        return tuple(found)

    def _feed_forward(self, prefix: str, width: int, count: int, experts: int = 1, active: int = 1) -> tuple[Matrix, Matrix]:
        first = ("gate_up", 2 * width) if self.gated else ("up", width)
        return (
            Matrix("mlp", prefix + first[0], first[1], self.hidden, count, experts, active),
            Matrix("mlp", prefix + "down", self.hidden, width, count, experts, active, "k"),
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

    def weight_bytes(self, precision: Precision, tp: int = 1) -> float:
        """Bytes of weights on each of `tp` GPUs. Router, embedding and norms stay 16-bit; a tied embedding follows `lm_head`."""
        formats = {"attention": precision.attention, "mlp": precision.mlp, "lm_head": precision.lm_head}
        total = SIXTEEN_BIT * self._vectors
        for m in self.matrices:
            width = WEIGHT_BYTES[formats[m.part]] if m.part in formats else SIXTEEN_BIT
            total += width * m.count * m.experts * self._share(m, tp)
        return total

    def _share(self, m: Matrix, tp: int) -> float:
        """Weights of one matrix on one GPU."""
        if m.split == "none":
            return m.n * m.k
        if m.name == "qkv":
            return (self.heads / tp + 2 * self._kv_heads(tp)) * self.head_dim * m.k
        return m.n * m.k / tp

    def _kv_heads(self, tp: int) -> int:
        """KV heads one GPU keeps: its part, and at least one."""
        return max(1, -(-self.kv_heads // tp))

    def kv_bytes_per_token(self, dtype: str, tp: int = 1) -> float:
        """Bytes one token holds in the KV cache of each of `tp` GPUs, all layers, none windowed. `dtype`: bf16 | fp16 | fp8.

        MLA caches the compressed vector and the rotary key, the same on every GPU; else each GPU caches its own KV heads.
        """
        if self.attention == "mla":
            return KV_BYTES[dtype] * self.layers * (self.kv_lora_rank + self.qk_rope_head_dim)
        return KV_BYTES[dtype] * self.layers * 2 * self._kv_heads(tp) * self.head_dim

    @cached_property
    def kv_groups(self) -> tuple[tuple[int, int], ...]:
        """(window, layers that have it), by window; 0 is full attention."""
        return tuple(sorted(Counter(self.windows or (0,) * self.layers).items()))


def llm(name: str) -> Llm:
    """A model of the catalogue by name or alias, or the one of a config.json (its path, or the folder holding it).

    Case does not matter, and the part after the slash is enough where only one model has it. Raises BadInput.
    """
    path = Path(name).expanduser()
    if path.suffix == ".json" or path.is_dir():
        return _from_config(path / "config.json" if path.is_dir() else path)
    if name.startswith((".", "/", "~")) or path.suffix in (".yaml", ".yml"):
        raise BadInput(f"no such file: {name}; the path of a Hugging Face config.json, or of the folder holding it, is wanted")
    known = _index()
    wanted = name.lower()
    if wanted not in known:
        near = did_you_mean(name, llm_names()) if "/" in name else did_you_mean(wanted, [key for key in known if "/" not in key])
        raise BadInput(f"unknown model '{name}'; {near} (or give the path of a Hugging Face config.json)")
    stems = known[wanted]
    if len(stems) > 1:
        full = [entry for entry in llm_names() if entry.lower().rpartition("/")[2] == wanted]
        raise BadInput(f"'{name}' is more than one model: {', '.join(full)}")
    return _from_catalogue(stems[0])


def llm_names() -> list[str]:
    """Every name and alias of the catalogue, sorted."""
    return sorted(name for stem in _stems() for name in _names(_read(stem)))


def _stems() -> list[str]:
    return sorted(entry.name[:-5] for entry in files("hardware_profiles").joinpath("models").iterdir() if entry.name.endswith(".yaml"))


@cache
def _read(stem: str) -> dict[str, Any]:
    """One file of the catalogue. It ships with the program and cannot change under it, so it is read once."""
    text = files("hardware_profiles").joinpath("models", stem + ".yaml").read_text("utf-8")
    return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _names(entry: dict[str, Any]) -> list[str]:
    return [entry["name"], *entry.get("aliases", [])]


@cache
def _index() -> dict[str, list[str]]:
    """Lower-case names, whole and short, each with the files that carry it."""
    index: dict[str, list[str]] = {}
    for stem in _stems():
        for name in _names(_read(stem)):
            for key in {name.lower(), name.lower().rpartition("/")[2]}:
                if stem not in index.setdefault(key, []):
                    index[key].append(stem)
    return index


def _from_catalogue(stem: str) -> Llm:
    entry, file = _read(stem), f"hardware_profiles/models/{stem}.yaml"
    source = f"{entry['source']['what']} ({entry['source']['date']})"
    return Llm(name=entry["name"], source=source, **architecture(entry["config"], file))


def _from_config(path: Path) -> Llm:
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        raise BadInput([Problem(f"not valid JSON: {error}", file=str(path), line=line)]) from None
    if not isinstance(config, dict):
        raise BadInput([Problem("a JSON object is wanted", file=str(path))])
    name = str(config.get("_name_or_path") or path.resolve().parent.name)
    return Llm(name=name, source=f"config.json at {path}", **architecture(config, str(path)))
