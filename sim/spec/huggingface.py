"""Read the architecture out of a Hugging Face config.json.

Only what the physics can answer for is accepted: families of plain transformer blocks with grouped-query or latent attention, dense or
with experts. Everything else, and every missing key, is refused by name rather than guessed. Where a family's own class has a default
(head size, tied embeddings, biases), that default is used, as engines do.
"""
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sim.core.errors import BadInput, Problem, did_you_mean


class Family(NamedTuple):
    """What a `model_type` implies beyond its keys.

    `bias`: default of `attention_bias`. `experts`: key of the number of experts, or '' for a dense family; their width is
    `moe_intermediate_size`, or `intermediate_size` where `wide`. `window`: which layers `sliding_window` binds when there are no
    `layer_types`: none | all | flag (those past `max_window_layers`, if `use_sliding_window`) | types (`layer_types` must be there) |
    pattern (all but every `sliding_window_pattern`-th) | chunks (Llama 4: within chunks where a layer has rotary positions).
    `tied`: default of `tie_word_embeddings`. `width`: key of the width of dense MLPs. `plain`: one KV head per head, and no key that says
    so. `defaults`: what the family's own class fills in for keys its checkpoints leave out.
    """

    bias: bool = False
    experts: str = ""
    wide: bool = False
    mla: bool = False
    window: str = "none"
    gated: bool = True
    tied: bool = False
    width: str = "intermediate_size"
    plain: bool = False
    defaults: Mapping[str, int] = MappingProxyType({})


_GEMMA2 = MappingProxyType({"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2, "max_position_embeddings": 8192})
_GEMMA3 = MappingProxyType({
    "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
    "sliding_window": 4096, "sliding_window_pattern": 6,
})  # fmt: skip
_LLAMA4 = MappingProxyType({"attention_chunk_size": 8192, "no_rope_layer_interval": 4, "interleave_moe_layer_step": 1})

FAMILIES = {
    "llama": Family(),
    "llama4_text": Family(experts="num_local_experts", wide=True, window="chunks", defaults=_LLAMA4),
    "mistral": Family(window="all"),
    "ministral": Family(window="types"),
    "mixtral": Family(experts="num_local_experts", wide=True, window="all"),
    "qwen2": Family(bias=True, window="flag"),
    "qwen2_moe": Family(bias=True, experts="num_experts", window="flag"),
    "qwen2_vl": Family(bias=True, window="flag"),
    "qwen2_vl_text": Family(bias=True, window="flag"),
    "qwen2_5_vl": Family(bias=True, window="flag"),
    "qwen2_5_vl_text": Family(bias=True, window="flag"),
    "qwen3": Family(window="flag"),
    "qwen3_moe": Family(experts="num_experts", window="flag"),
    "qwen3_vl_text": Family(),
    "qwen3_vl_moe_text": Family(experts="num_experts"),
    "deepseek_v2": Family(experts="n_routed_experts", mla=True),
    "deepseek_v3": Family(experts="n_routed_experts", mla=True),
    "kimi_k2": Family(experts="n_routed_experts", mla=True),
    "gpt_oss": Family(bias=True, experts="num_local_experts", wide=True, window="types"),
    "gemma": Family(tied=True, defaults=MappingProxyType({"head_dim": 256})),
    "gemma2": Family(tied=True, window="pattern", defaults=_GEMMA2),
    "gemma3_text": Family(tied=True, window="pattern", defaults=_GEMMA3),
    "glm": Family(bias=True),
    "glm4": Family(bias=True),
    "glm4_moe": Family(experts="n_routed_experts"),
    "dots1": Family(experts="n_routed_experts", window="flag"),
    "minimax_m2": Family(experts="num_local_experts", wide=True),
    "phi": Family(bias=True, gated=False),
    "phi3": Family(window="all"),
    "phimoe": Family(experts="num_local_experts", wide=True, window="all"),
    "mimo": Family(bias=True, window="flag"),
    "nemotron": Family(gated=False),
    "opt": Family(bias=True, gated=False, tied=True, width="ffn_dim", plain=True),
    "granite": Family(),
    "granitemoe": Family(experts="num_local_experts", wide=True),
    "cohere": Family(tied=True),
    "cohere2": Family(tied=True, window="types"),
    "starcoder2": Family(bias=True, gated=False, tied=True, window="all"),
    "stablelm": Family(),
    "olmo": Family(),
    "olmo2": Family(),
    "olmo3": Family(window="types"),
    "olmoe": Family(experts="num_experts", wide=True),
    "smollm3": Family(tied=True),
    "seed_oss": Family(bias=True),
    "ernie4_5": Family(tied=True),
}
_STATE = "its state space layers keep a state in place of a KV cache"
_LINEAR = "its linear attention layers keep a state in place of a KV cache"
_UNCHECKED = "how its layers attend has not been checked against a description of it"
_SPARSE = "its sparse attention reads a chosen part of the cache"
# Known families whose layers the physics cannot answer for, and why.
REFUSED = {
    "mamba": _STATE, "mamba2": _STATE, "nemotron_h": _STATE, "jamba": _STATE, "bamba": _STATE, "falcon_h1": _STATE,
    "granitemoehybrid": _STATE,
    "qwen3_next": _LINEAR, "qwen3_5_text": _LINEAR, "qwen3_5_moe_text": _LINEAR, "kimi_linear": _LINEAR, "minimax": _LINEAR,
    "minimax_text_01": _LINEAR, "minimax_m1": _LINEAR,
    "deepseek_v32": _SPARSE, "deepseek_v4": _SPARSE, "deepseek_ref": _SPARSE, "glm_moe_dsa": _SPARSE,
    "minimax_m3": _UNCHECKED, "minimax_m3_vl": _UNCHECKED, "gemma4_text": _UNCHECKED, "step3p7": _UNCHECKED,
    "gemma3n_text": "its layers share caches and read embeddings of their own",
    "mimo_v2_flash": "its values are narrower than its keys", "step3_text": "its attention factorises the query",
    "nemotron-nas": "its layers differ from each other in width, and some have no attention", "deci": "its layers differ from each other",
    "t5": "it has an encoder", "bart": "it has an encoder", "whisper": "it has an encoder",
}  # fmt: skip
# A key that starts so, with a value, changes the layers into something the physics does not know: state space, linear, sparse.
UNKNOWN_LAYERS = (
    "mamba", "ssm_", "linear_", "index_topk", "index_n_heads", "full_attention_interval", "attn_layer_period", "hybrid_override_pattern",
    "block_configs",
)
WINDOW_OF = {"full_attention": "", "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def architecture(config: dict[str, Any], file: str) -> dict[str, Any]:
    """The fields of an `Llm` (all but its name and source). Raises BadInput with every key that is missing or not understood."""
    text = _language_part(config)
    kind = text.get("model_type")
    if kind in REFUSED:
        raise BadInput([Problem(f"the architecture '{kind}' is not supported: {REFUSED[kind]}", "model_type", file)])
    if kind not in FAMILIES:
        found = "missing" if kind is None else f"the architecture '{kind}' is not supported"
        raise BadInput([Problem(f"{found}; {did_you_mean(str(kind), FAMILIES)}", "model_type", file)])
    family = FAMILIES[kind]
    keys = _Keys({key: value for key, value in family.defaults.items() if text.get(key) is None} | _present(text, family), file)
    for key in text:
        # Llama 4's chunks are known; elsewhere they are not.
        unknown = key.startswith(UNKNOWN_LAYERS) or (key == "attention_chunk_size" and family.window != "chunks")
        if unknown and text[key]:
            keys.wrong(key, "layers of this kind are not supported")
    fields = _body(keys, family) | _experts(keys, family) | (_latent(keys) if family.mla else {})
    if family.mla:
        fields["head_dim"] = fields["qk_nope_head_dim"] + fields["qk_rope_head_dim"]
    fields["mtp_layers"] = keys.count("num_nextn_predict_layers", 0)
    fields["windows"] = _windows(keys, family, fields["layers"], fields["max_position"])
    fields["checkpoint"] = _checkpoint(text.get("quantization_config") or config.get("quantization_config"))
    if keys.problems:
        raise BadInput(keys.problems)
    return fields


def _present(text: dict[str, Any], family: Family) -> dict[str, Any]:
    """The keys of the file, without nulls that the family's default replaces."""
    return {key: value for key, value in text.items() if value is not None or key not in family.defaults}


class _Keys:
    """A config's keys, and everything found wrong with them."""

    def __init__(self, data: dict[str, Any], file: str):
        self.data, self.file = data, file
        self.problems: list[Problem] = []

    def wrong(self, key: str, message: str) -> None:
        self.problems.append(Problem(message, key, self.file))

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number; with a default the key may be absent, null or 0."""
        found = self.data.get(key)
        if default is not None and not found:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
            self.wrong(key, "missing; it is not guessed" if found is None else f"found {found!r}; a positive whole number is wanted")
            return 1
        return found


def _language_part(config: dict[str, Any]) -> dict[str, Any]:
    """Multimodal configs nest the language model; keys they leave outside still hold."""
    parts = [config[key] for key in ("text_config", "llm_config", "language_config") if isinstance(config.get(key), dict)]
    if not parts:
        return config
    nested: dict[str, Any] = parts[0]
    outside: dict[str, Any] = {key: config[key] for key in ("tie_word_embeddings", "model_type") if key in config}
    return outside | nested


def _body(keys: _Keys, family: Family) -> dict[str, Any]:
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    # Written as null it means one KV head per head; left out it is not guessed.
    plain = family.mla or family.plain or ("num_key_value_heads" in keys.data and keys.data["num_key_value_heads"] is None)
    if keys.data.get("word_embed_proj_dim", hidden) != hidden:  # OPT-350m
        keys.wrong("word_embed_proj_dim", f"embeddings of another width than hidden_size ({hidden}) are not supported")
    width = "intermediate_size_mlp" if family.window == "chunks" else family.width
    dense = not family.experts or not family.wide or family.window == "chunks"
    return {
        "layers": keys.count("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads if plain else keys.count("num_key_value_heads"),
        "head_dim": keys.count("head_dim", hidden // heads),
        "intermediate": keys.count(width) if dense else 0,
        "vocab": keys.count("vocab_size"),
        "max_position": keys.count("max_position_embeddings"),
        "tie_word_embeddings": bool(keys.data.get("tie_word_embeddings", family.tied)),
        "attention": "mla" if family.mla else "gqa",
        "gated": family.gated,
        "qkv_bias": bool(keys.data.get("attention_bias", family.bias)),
    }


def _latent(keys: _Keys) -> dict[str, Any]:
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {name: keys.count(name) for name in names} | {"q_lora_rank": keys.count("q_lora_rank", 0)}


def _experts(keys: _Keys, family: Family) -> dict[str, Any]:
    if not family.experts:
        return {}
    # The same number goes by three keys, also within one family.
    names = (family.experts, "num_local_experts", "num_experts", "n_routed_experts")
    name = next((key for key in names if keys.data.get(key)), family.experts)
    width = keys.count("intermediate_size" if family.wide else "moe_intermediate_size")
    shared = keys.count("n_shared_experts", 0) * width or keys.count("shared_expert_intermediate_size", 0)
    if family.window == "chunks":
        shared = width  # Llama 4 has one, as wide as an expert, without a key that says so
    used = "num_experts_per_tok" if "num_experts_per_tok" in keys.data else "experts_per_token"
    return {
        "n_experts": keys.count(name),
        "experts_per_token": keys.count(used if used in keys.data else "num_experts_per_tok"),
        "moe_intermediate": width,
        "shared_intermediate": shared,
        "moe": _moe_layers(keys),
    }


def _moe_layers(keys: _Keys) -> tuple[bool, ...]:
    """Which layers have experts: those past the first dense ones, every so many, and not those named as dense."""
    data, layers, first = keys.data, keys.count("num_hidden_layers"), keys.count("first_k_dense_replace", 0)
    frequency, listed = data.get("moe_layer_freq"), data.get("moe_layers")
    if isinstance(listed, list):
        return tuple(layer in listed for layer in range(layers))
    if isinstance(frequency, list):
        if len(frequency) != layers:
            keys.wrong("moe_layer_freq", f"a list with one entry for each of {layers} layers is wanted")
            return (False,) * layers
        return tuple(bool(flag) for flag in frequency)
    dense = data.get("mlp_only_layers") or []
    step, every = keys.count("interleave_moe_layer_step", 0) or keys.count("decoder_sparse_step", 1), keys.count("moe_layer_freq", 1)
    return tuple(layer >= first and layer % every == 0 and (layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def _windows(keys: _Keys, family: Family, layers: int, max_position: int) -> tuple[int, ...]:
    data = keys.data
    types, window = data.get("layer_types"), data.get("sliding_window")
    if types is not None:
        return _typed(keys, types, layers)
    if family.window == "types":
        keys.wrong("layer_types", "missing; it is not guessed")
    if family.window == "chunks":
        return _chunks(keys, layers)
    if family.window == "pattern":
        every = keys.count("sliding_window_pattern")
        return tuple(keys.count("sliding_window") if (layer + 1) % every else 0 for layer in range(layers))
    bound = {"all": True, "flag": bool(data.get("use_sliding_window"))}.get(family.window, False)
    if not bound or not window or window >= max_position:
        return (0,) * layers
    first = keys.count("max_window_layers", 0) if family.window == "flag" else 0
    return tuple(keys.count("sliding_window") if layer >= first else 0 for layer in range(layers))


def _chunks(keys: _Keys, layers: int) -> tuple[int, ...]:
    """Llama 4: layers with rotary positions attend within chunks, the others to everything."""
    rotary = keys.data.get("no_rope_layers") or [(layer + 1) % keys.count("no_rope_layer_interval") for layer in range(layers)]
    if len(rotary) != layers:
        keys.wrong("no_rope_layers", f"a list with one entry for each of {layers} layers is wanted")
        return (0,) * layers
    return tuple(keys.count("attention_chunk_size") if flag else 0 for flag in rotary)


def _typed(keys: _Keys, types: Any, layers: int) -> tuple[int, ...]:
    if not isinstance(types, list) or len(types) != layers:
        keys.wrong("layer_types", f"a list with one entry for each of {layers} layers is wanted")
        return (0,) * layers
    strange = sorted({str(kind) for kind in types if kind not in WINDOW_OF})
    if strange:
        keys.wrong("layer_types", f"layers of kind {', '.join(strange)} are not supported; known: {', '.join(sorted(WINDOW_OF))}")
        return (0,) * layers
    sizes = {kind: keys.count(WINDOW_OF[kind]) if WINDOW_OF[kind] else 0 for kind in sorted(set(types))}
    return tuple(sizes[kind] for kind in types)


def _checkpoint(quantization: Any) -> str:
    """The number format of a quantised checkpoint's linear layers, '' when there is none or it is not one of ours."""
    if not isinstance(quantization, dict):
        return ""
    method = str(quantization.get("quant_method", "")).lower()
    if method in ("fp8", "mxfp4"):
        return "fp8_block" if quantization.get("weight_block_size") else method
    if method in ("gptq", "awq"):
        return {4: "int4", 8: "int8_weights"}.get(quantization.get("bits", 0), "")
    if method == "modelopt":
        return {"FP8": "fp8", "NVFP4": "nvfp4"}.get(str(quantization.get("quant_algo", "")).upper(), "")
    groups = quantization.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, dict):
        group = next((group for group in groups.values() if isinstance(group, dict)), {})
        weights = group.get("weights") or {}
        whole = "int8" if group.get("input_activations") else "int8_weights"
        float8 = "fp8_block" if weights.get("strategy") == "block" else "fp8"
        formats: dict[tuple[Any, Any], str] = {(4, "int"): "int4", (8, "int"): whole, (8, "float"): float8, (4, "float"): "nvfp4"}
        return formats.get((weights.get("num_bits"), weights.get("type")), "")
    return ""
