"""Read the architecture out of a Hugging Face config.json.

Only what the physics can answer for is accepted: families of plain transformer blocks with grouped-query or latent attention, dense or
with experts. Everything else, and every missing key, is refused by name rather than guessed. Where a family's own class has a default
(head size, tied embeddings, biases), that default is used, as engines do.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from sim.core.errors import BadInput, Problem, did_you_mean


class Family(NamedTuple):
    """What a `model_type` implies beyond its keys.

    `bias`: default of `attention_bias`. `experts`: key of the number of experts, or '' for a dense family; their width is
    `moe_intermediate_size`, or `intermediate_size` where `wide`. `window`: which layers `sliding_window` binds when there are no
    `layer_types`: none | all | flag (those past `max_window_layers`, if `use_sliding_window`) | types (`layer_types` must be there).
    """

    bias: bool = False
    experts: str = ""
    wide: bool = False
    mla: bool = False
    window: str = "none"
    gated: bool = True


FAMILIES = {
    "llama": Family(),
    "mistral": Family(window="all"),
    "mixtral": Family(experts="num_local_experts", wide=True, window="all"),
    "qwen2": Family(bias=True, window="flag"),
    "qwen2_moe": Family(bias=True, experts="num_experts", window="flag"),
    "qwen3": Family(window="flag"),
    "qwen3_moe": Family(experts="num_experts", window="flag"),
    "qwen3_vl_text": Family(),
    "qwen3_vl_moe_text": Family(experts="num_experts"),
    "deepseek_v2": Family(experts="n_routed_experts", mla=True),
    "deepseek_v3": Family(experts="n_routed_experts", mla=True),
    "kimi_k2": Family(experts="n_routed_experts", mla=True),
    "gpt_oss": Family(bias=True, experts="num_local_experts", wide=True, window="types"),
    "glm4_moe": Family(experts="n_routed_experts"),
    "minimax_m2": Family(experts="num_local_experts", wide=True),
    "phi": Family(bias=True, gated=False),
    "phi3": Family(window="all"),
    "phimoe": Family(experts="num_local_experts", wide=True, window="all"),
    "mimo": Family(bias=True, window="flag"),
}
# A key that starts so, with a value, changes the layers into something the physics does not know: state space, linear, sparse, chunked.
UNKNOWN_LAYERS = (
    "mamba", "ssm_", "linear_", "index_topk", "index_n_heads", "full_attention_interval", "attn_layer_period", "attention_chunk_size",
    "hybrid_override_pattern", "block_configs",
)
WINDOW_OF = {"full_attention": False, "sliding_attention": True}


def architecture(config: dict[str, Any], file: str) -> dict[str, Any]:
    """The fields of an `Llm` (all but its name and source). Raises BadInput with every key that is missing or not understood."""
    text = _language_part(config)
    keys = _Keys(text, file)
    kind = text.get("model_type")
    if kind not in FAMILIES:
        found = "missing" if kind is None else f"the architecture '{kind}' is not supported"
        raise BadInput([Problem(f"{found}; {did_you_mean(str(kind), FAMILIES)}", "model_type", file)])
    family = FAMILIES[kind]
    for key in text:
        if key.startswith(UNKNOWN_LAYERS) and text[key]:
            keys.wrong(key, "layers of this kind are not supported")
    fields = _body(keys, family) | _experts(keys, family) | (_latent(keys) if family.mla else {})
    if family.mla:
        fields["head_dim"] = fields["qk_nope_head_dim"] + fields["qk_rope_head_dim"]
    fields["windows"] = _windows(keys, family, fields["layers"], fields["max_position"])
    fields["checkpoint"] = _checkpoint(text.get("quantization_config") or config.get("quantization_config"))
    if keys.problems:
        raise BadInput(keys.problems)
    return fields


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
    nested = config.get("text_config")
    if not isinstance(nested, dict):
        return config
    outside: dict[str, Any] = {key: config[key] for key in ("tie_word_embeddings", "model_type") if key in config}
    return outside | nested


def _body(keys: _Keys, family: Family) -> dict[str, Any]:
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    dense = not family.experts or not family.wide
    return {
        "layers": keys.count("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads if family.mla else keys.count("num_key_value_heads"),
        "head_dim": keys.count("head_dim", hidden // heads),
        "intermediate": keys.count("intermediate_size") if dense else 0,
        "vocab": keys.count("vocab_size"),
        "max_position": keys.count("max_position_embeddings"),
        "tie_word_embeddings": bool(keys.data.get("tie_word_embeddings", False)),
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
    used = "num_experts_per_tok" if "num_experts_per_tok" in keys.data else "experts_per_token"
    return {
        "n_experts": keys.count(name),
        "experts_per_token": keys.count(used if used in keys.data else "num_experts_per_tok"),
        "moe_intermediate": width,
        "shared_intermediate": shared,
        "moe_layers": _moe_layers(keys),
    }


def _moe_layers(keys: _Keys) -> int:
    """Layers with experts: past the first dense ones, every so many, and not those named as dense."""
    layers, first = keys.count("num_hidden_layers"), keys.count("first_k_dense_replace", 0)
    frequency = keys.data.get("moe_layer_freq")
    if isinstance(frequency, list):
        return sum(1 for flag in frequency if flag)
    dense = keys.data.get("mlp_only_layers") or []
    step, every = keys.count("decoder_sparse_step", 1), keys.count("moe_layer_freq", 1)
    return sum(1 for layer in range(first, layers) if layer % every == 0 and (layer + 1) % step == 0 and layer not in dense)


def _windows(keys: _Keys, family: Family, layers: int, max_position: int) -> tuple[int, ...]:
    data = keys.data
    types, window = data.get("layer_types"), data.get("sliding_window")
    if types is not None:
        return _typed(keys, types, layers)
    if family.window == "types":
        keys.wrong("layer_types", "missing; it is not guessed")
    bound = {"all": True, "flag": bool(data.get("use_sliding_window"))}.get(family.window, False)
    if not bound or not window or window >= max_position:
        return (0,) * layers
    first = keys.count("max_window_layers", 0) if family.window == "flag" else 0
    return tuple(keys.count("sliding_window") if layer >= first else 0 for layer in range(layers))


def _typed(keys: _Keys, types: Any, layers: int) -> tuple[int, ...]:
    if not isinstance(types, list) or len(types) != layers:
        keys.wrong("layer_types", f"a list with one entry for each of {layers} layers is wanted")
        return (0,) * layers
    strange = sorted({str(kind) for kind in types if kind not in WINDOW_OF})
    if strange:
        keys.wrong("layer_types", f"layers of kind {', '.join(strange)} are not supported; known: {', '.join(sorted(WINDOW_OF))}")
        return (0,) * layers
    window = keys.count("sliding_window") if "sliding_attention" in types else 0
    return tuple(window if WINDOW_OF[kind] else 0 for kind in types)


def _checkpoint(quantization: Any) -> str:
    """The number format of a quantised checkpoint's linear layers, '' when there is none or it is not one of ours."""
    if not isinstance(quantization, dict):
        return ""
    method = str(quantization.get("quant_method", "")).lower()
    if method in ("fp8", "mxfp4"):
        return method
    if method in ("gptq", "awq"):
        return {4: "int4", 8: "int8"}.get(quantization.get("bits", 0), "")
    if method == "modelopt":
        return {"FP8": "fp8", "NVFP4": "nvfp4"}.get(str(quantization.get("quant_algo", "")).upper(), "")
    groups = quantization.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, dict):
        weights = next((group.get("weights") for group in groups.values() if isinstance(group, dict)), None) or {}
        formats: dict[tuple[Any, Any], str] = {(4, "int"): "int4", (8, "int"): "int8", (8, "float"): "fp8", (4, "float"): "nvfp4"}
        return formats.get((weights.get("num_bits"), weights.get("type")), "")
    return ""
