"""Architectures: totals as published, bytes of weights and cache by hand, and configs that are refused rather than guessed."""
from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from sim.core.errors import BadInput
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import Llm, llm, llm_names

STEMS = sorted(entry.name for entry in files("hardware_profiles").joinpath("models").iterdir() if entry.name.endswith(".yaml"))
COLLECTED = Path(__file__).parents[3] / "shared" / "data" / "models" / "models.json"
CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip

# Totals of the model cards (billions), the tolerance, active weights of the card, and whether the card counts the embedding as active.
DENSE = {
    "meta-llama/Llama-2-7b-hf": 6.74, "meta-llama/Llama-2-13b-hf": 13.02, "meta-llama/Llama-2-70b-hf": 68.98,
    "meta-llama/Meta-Llama-3-8B": 8.03, "meta-llama/Llama-3.1-8B": 8.03, "meta-llama/Llama-3.1-70B": 70.6,
    "meta-llama/Llama-3.1-405B": 405.9, "meta-llama/Llama-3.2-1B": 1.24, "meta-llama/Llama-3.2-3B": 3.21,
    "Qwen/Qwen2.5-0.5B": 0.494, "Qwen/Qwen2.5-1.5B": 1.54, "Qwen/Qwen2.5-3B": 3.09, "Qwen/Qwen2.5-7B": 7.62, "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen2.5-32B": 32.8, "Qwen/Qwen2.5-72B": 72.7, "Qwen/Qwen3-0.6B": 0.596, "Qwen/Qwen3-4B": 4.02, "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-14B": 14.8, "Qwen/Qwen3-32B": 32.8, "mistralai/Mistral-7B-v0.1": 7.24, "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
    "mistralai/Mistral-Nemo-Instruct-2407": 12.2, "microsoft/phi-2": 2.78, "01-ai/Yi-34B": 34.4, "mistralai/Mixtral-8x7B-v0.1": 46.7,
    "mistralai/Mixtral-8x22B-v0.1": 140.6, "google/gemma-2-2b": 2.61, "google/gemma-2-9b": 9.24, "google/gemma-2-27b": 27.2,
    "google/gemma-3-1b-it": 1.000, "google/gemma-3-4b-it": 3.884, "google/gemma-3-12b-it": 11.771, "google/gemma-3-27b-it": 27.016,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23.6, "mistralai/Mistral-Large-Instruct-2407": 123, "microsoft/phi-4": 14.7,
    "zai-org/GLM-4-9B-0414": 9.4, "zai-org/GLM-4-32B-0414": 32.6, "Qwen/QwQ-32B": 32.8, "Qwen/Qwen-72B": 72.3,
    "internlm/internlm-20b": 20.1, "facebook/opt-13b": 12.85, "facebook/opt-66b": 65.7, "facebook/opt-175b": 175,
}  # fmt: skip
EXPERTS = {
    "mistralai/Mixtral-8x7B-v0.1": (46.7, 12.9, True),
    "deepseek-ai/DeepSeek-V3": (671, 37, False),
    "deepseek-ai/DeepSeek-V2": (236, 21, True),
    "deepseek-ai/DeepSeek-V2-Lite": (15.7, 2.4, False),
    "moonshotai/Kimi-K2-Instruct": (1026, 32, False),
    "openai/gpt-oss-120b": (116.8, 5.1, False),
    "openai/gpt-oss-20b": (20.9, 3.6, False),
    "Qwen/Qwen3-235B-A22B": (235, 22, True),
    "Qwen/Qwen3-30B-A3B": (30.5, 3.3, True),
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": (480, 35, True),
    "zai-org/GLM-4.5": (355, 32, False),
    "zai-org/GLM-4.5-Air": (106, 12, False),
    "MiniMaxAI/MiniMax-M2": (229, 10, False),
    "microsoft/Phi-mini-MoE-instruct": (7.6, 2.4, True),
    "meta-llama/Llama-4-Scout-17B-16E": (108.6, 17, True),  # the published total has a vision tower of 0.9
    "meta-llama/Llama-4-Maverick-17B-128E": (400, 17, True),
}


def written(tmp_path: Path, config: dict[str, Any]) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def refused(tmp_path: Path, config: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(BadInput) as caught:
        llm(written(tmp_path, config))
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("stem", STEMS)
def test_every_file_loads(stem: str) -> None:
    import yaml

    entry = yaml.safe_load(files("hardware_profiles").joinpath("models", stem).read_text("utf-8"))
    assert set(entry) <= {"name", "aliases", "source", "config"}
    model = llm(entry["name"])
    assert model.name == entry["name"]
    assert entry["source"]["what"] in model.source
    assert sum(layers for _, layers in model.kv_groups) == model.layers == len(model.windows)
    for alias in entry.get("aliases", []):
        assert llm(alias) == model


@pytest.mark.parametrize(("name", "billions"), DENSE.items())
def test_total_weights(name: str, billions: float) -> None:
    assert llm(name).params == pytest.approx(billions * 1e9, rel=0.005)


@pytest.mark.parametrize("name", EXPERTS)
def test_weights_of_mixtures(name: str) -> None:
    total, active, with_embedding = EXPERTS[name]
    model = llm(name)
    assert model.params == pytest.approx(total * 1e9, rel=0.01)
    met = model.active_params + with_embedding * model.vocab * model.hidden
    # Cards round the active weights, to a tenth or to a whole billion; GLM's and MiniMax's are rounded down.
    assert met / 1e9 == pytest.approx(active, abs=0.9 if isinstance(active, int) else 0.06)


def test_kv_bytes_per_token() -> None:
    small, latent = llm("meta-llama/Llama-3.1-8B"), llm("deepseek-ai/DeepSeek-V3")
    assert small.kv_bytes_per_token("bf16") == 131072
    assert small.kv_bytes_per_token("fp8") == 65536
    assert [small.kv_bytes_per_token("bf16", tp) for tp in (2, 8, 16)] == [65536, 16384, 16384]
    assert latent.kv_bytes_per_token("bf16") == latent.kv_bytes_per_token("bf16", 8) == 61 * 576 * 2 == 70272


def test_windows_form_groups() -> None:
    assert llm("openai/gpt-oss-120b").kv_groups == ((0, 18), (128, 18))
    assert llm("mistralai/Mistral-7B-v0.1").kv_groups == ((4096, 32),)
    assert llm("meta-llama/Llama-3.1-8B").kv_groups == ((0, 32),)


def test_matrices_are_fused_as_engines_fuse_them() -> None:
    shapes = {m.name: (m.n, m.k, m.count, m.split) for m in llm("meta-llama/Llama-3.1-8B").matrices}
    assert shapes == {
        "embedding": (4096, 128256, 1, "k"),
        "qkv": (6144, 4096, 32, "n"),
        "o": (4096, 4096, 32, "k"),
        "gate_up": (28672, 4096, 32, "n"),
        "down": (4096, 14336, 32, "k"),
        "lm_head": (128256, 4096, 1, "n"),
    }
    latent = {m.name: m for m in llm("deepseek-ai/DeepSeek-V3").matrices}
    assert latent["qkv_down"].n == 1536 + 576
    assert latent["qkv_down"].split == latent["router"].split == "none"
    assert (latent["experts.down"].experts, latent["experts.down"].active, latent["experts.down"].count) == (256, 8, 58)
    assert (latent["gate_up"].count, latent["shared.gate_up"].part, latent["router"].part) == (3, "mlp", "router")
    assert {m.name for m in llm("microsoft/phi-2").matrices} >= {"up", "down"}


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b", "meta-llama/Llama-3.2-1B"])
def test_sixteen_bit_weights_weigh_two_bytes_each(name: str) -> None:
    model = llm(name)
    assert model.weight_bytes(Precision()) == 2 * model.params


def test_weight_bytes_by_part_and_gpu() -> None:
    model = llm("meta-llama/Llama-3.1-8B")
    linear = sum(m.count * m.n * m.k for m in model.matrices if m.part in ("attention", "mlp"))
    rest = 2 * (model.params - linear)
    assert model.weight_bytes(Precision.model_validate("fp8")) == pytest.approx(linear + rest)
    assert model.weight_bytes(Precision.model_validate("int4")) == pytest.approx(linear * (0.5 + 2 / 128) + rest)
    norms = 2 * 65 * 4096
    assert model.weight_bytes(Precision(), Parallel(tp=4)) - norms == pytest.approx((2 * model.params - norms) / 4)


def test_kv_heads_are_replicated_when_gpus_outnumber_them() -> None:
    model = llm("Qwen/Qwen3-30B-A3B")  # 4 KV heads
    extra = model.weight_bytes(Precision(), Parallel(tp=8)) * 8 - model.weight_bytes(Precision())
    kv = 2 * model.kv_heads * model.head_dim * model.hidden * model.layers
    router = sum(m.count * m.n * m.k for m in model.matrices if m.split == "none")
    assert extra == pytest.approx(2 * kv + 7 * 2 * (router + (2 * model.layers + 1) * model.hidden))


def test_attention_is_repeated_in_dp_groups_and_experts_are_spread_over_them() -> None:
    model = llm("Qwen/Qwen3-30B-A3B")
    experts = 2 * sum(m.count * m.experts * m.n * m.k for m in model.matrices if m.experts > 1)
    rest = model.weight_bytes(Precision()) - experts
    for ep in (1, 2, 8):
        assert model.weight_bytes(Precision(), Parallel(dp=8, ep=ep)) == pytest.approx(rest + experts / 8)
    dense = llm("meta-llama/Llama-3.1-8B")
    assert dense.weight_bytes(Precision(), Parallel(dp=2)) == dense.weight_bytes(Precision())


def test_stages_share_the_layers_and_the_last_one_keeps_the_head() -> None:
    model = llm("meta-llama/Llama-3.1-405B")  # 126 layers
    assert [len(stage) for stage in model.stages(4)] == [31, 32, 32, 31]
    assert [stage.start for stage in model.stages(4)] == [0, 31, 63, 95]
    parts = model.stage_bytes(Precision(), Parallel(pp=4))
    assert sum(parts) == pytest.approx(2 * model.params)
    head = 2 * model.vocab * model.hidden
    assert parts[0] == pytest.approx(parts[3], rel=1e-6)
    assert parts[0] - head == pytest.approx((parts[1]) * 31 / 32, rel=1e-6)
    assert model.weight_bytes(Precision(), Parallel(pp=4)) == max(parts)
    assert model.kv_bytes_per_token("bf16", 8, 4) == 32 * model.kv_bytes_per_layer("bf16", 8)
    tied = llm("meta-llama/Llama-3.2-1B")
    extra = sum(tied.stage_bytes(Precision(), Parallel(pp=2))) - tied.weight_bytes(Precision())
    assert extra == pytest.approx(2 * tied.vocab * tied.hidden)


def edged(first: int, last: int, dtype: str = "bf16") -> Precision:
    return Precision.model_validate({"attention": "fp8", "mlp": "fp8", "edges": {"first": first, "last": last, "dtype": dtype}})


def test_first_and_last_layers_of_another_format() -> None:
    model = llm("deepseek-ai/DeepSeek-V3")  # layers 0 to 2 are dense
    counts = {(matrix.name, dtype): count for matrix, dtype, count in model.linear(edged(4, 1))}
    assert (counts["o", "fp8"], counts["o", "bf16"]) == (56, 5)
    assert (counts["gate_up", "bf16"], counts["experts.down", "bf16"], counts["experts.down", "fp8"]) == (3, 2, 56)
    assert ("gate_up", "fp8") not in counts
    assert (counts["router", "bf16"], counts["lm_head", "bf16"]) == (58, 1)
    assert not any(name == "embedding" for name, _ in counts)
    width = {"fp8": 1.0, "bf16": 2.0}
    by_hand = sum(width[dtype] * count * m.experts * m.n * m.k for m, dtype, count in model.linear(edged(4, 1)))
    outside = 2 * (model.vocab * model.hidden + (2 * model.layers + 1) * model.hidden)
    assert model.weight_bytes(edged(4, 1)) == pytest.approx(by_hand + outside)
    assert model.linear(edged(4, 1, "fp8")) == model.linear(Precision.model_validate("fp8"))
    assert [count for matrix, _, count in model.linear(Precision()) if matrix.name == "o"] == [model.layers]


@pytest.mark.parametrize(
    ("name", "precision", "parallel", "path", "message"),
    [
        ("meta-llama/Llama-3.1-8B", Precision(), Parallel(tp=3), "parallel.tp", "32 attention heads"),
        ("microsoft/phi-4", Precision(), Parallel(tp=4), "parallel.tp", "10 KV heads"),
        ("meta-llama/Llama-3.1-8B", Precision(), Parallel(pp=33), "parallel.pp", "32 layers"),
        ("meta-llama/Llama-3.1-8B", Precision(), Parallel(tp=2, ep=2), "parallel.ep", "has none"),
        ("mistralai/Mixtral-8x7B-v0.1", Precision(), Parallel(dp=16, ep=16), "parallel.ep", "8 experts"),
        ("microsoft/Phi-mini-MoE-instruct", Precision(), Parallel(dp=128), "parallel.ep", "width 960"),
        ("meta-llama/Llama-3.1-8B", edged(30, 3), Parallel(), "precision.edges", "more than the 32 layers"),
    ],
)
def test_layouts_that_do_not_suit_the_model(name: str, precision: Precision, parallel: Parallel, path: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        llm(name).check(precision, parallel, "cluster.pools.0")
    assert [problem.path for problem in caught.value.problems] == [f"cluster.pools.0.{path}"]


def test_layouts_that_suit_the_model() -> None:
    llm("Qwen/Qwen3-30B-A3B").check(edged(1, 1), Parallel(tp=8, dp=2, ep=16, pp=3))
    with pytest.raises(BadInput, match="more than the 48 layers"):
        llm("Qwen/Qwen3-30B-A3B").linear(edged(40, 9))


def test_llama_4_interleaves_experts_and_attends_in_chunks() -> None:
    model = llm("Llama-4-Maverick-17B-128E-Instruct")
    assert model.moe[:4] == (False, True, False, True)
    assert model.windows[:4] == (8192, 8192, 8192, 0)
    assert model.kv_groups == ((0, 12), (8192, 36))
    widths = {m.name: (m.k, m.count, m.experts) for m in model.matrices}
    assert (widths["down"], widths["experts.down"], widths["shared.down"]) == ((16384, 24, 1), (8192, 24, 128), (8192, 24, 1))


def test_gemma_leaves_to_its_class_what_its_config_omits(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    model = llm(written(tmp_path, {"model_type": "gemma3", "text_config": text}))
    known = llm("google/gemma-3-4b-it")
    assert (model.params, model.windows, model.max_position) == (known.params, known.windows, known.max_position)
    assert model.windows[:7] == (1024, 1024, 1024, 1024, 1024, 0, 1024)
    assert llm("google/gemma-2-9b").windows[:2] == (4096, 0)


def test_arithmetic() -> None:
    model = llm("meta-llama/Llama-3.1-8B")
    assert model.flops_per_token == pytest.approx(2 * model.active_params, rel=1e-3)
    assert model.flops_per_pair() == model.flops_per_pair(decode=True) == 4 * 32 * 128
    latent = llm("deepseek-ai/DeepSeek-V3")
    assert latent.flops_per_pair() == 2 * 128 * (192 + 128)
    assert latent.flops_per_pair(decode=True) == 2 * 128 * (2 * 512 + 64)


def test_names_are_forgiving_where_they_can_be() -> None:
    assert llm("LLAMA-3.1-8B") == llm("meta-llama/llama-3.1-8b-instruct") == llm("meta-llama/Llama-3.1-8B")
    assert "deepseek-ai/DeepSeek-R1" in llm_names()
    with pytest.raises(BadInput, match=r"did you mean .*Llama-3\.1-8B"):
        llm("meta-llama/Llama-3.1-8")
    lower = [name.lower() for name in llm_names()]
    assert len(lower) == len(set(lower))


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIG)
    model = llm(path)
    assert model.params == llm("meta-llama/Llama-3.1-8B").params
    assert llm(str(tmp_path)) == model
    assert model.name == tmp_path.name


def test_the_language_part_of_a_multimodal_config(tmp_path: Path) -> None:
    inner = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"} | {"model_type": "qwen3_vl_text"}
    model = llm(written(tmp_path, {"model_type": "qwen3_vl", "tie_word_embeddings": True, "text_config": inner}))
    assert (model.layers, model.tie_word_embeddings) == (32, True)


@pytest.mark.parametrize(
    ("quantization", "checkpoint"),
    [
        (None, ""),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "gptq", "bits": 8}, "int8_weights"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"quant_method": "compressed-tensors"}, ""),
    ],
)
def test_the_checkpoint_format_is_a_hint(tmp_path: Path, quantization: Any, checkpoint: str) -> None:
    assert llm(written(tmp_path, CONFIG | {"quantization_config": quantization})).checkpoint == checkpoint


def test_layers_with_and_without_experts(tmp_path: Path) -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 1024}
    config = CONFIG | experts | {"model_type": "qwen2_moe", "decoder_sparse_step": 2, "mlp_only_layers": [1]}
    model = llm(written(tmp_path, config))
    assert (model.moe_layers, model.shared_intermediate, model.qkv_bias) == (15, 1024, True)


def test_sliding_windows_only_where_they_bind(tmp_path: Path) -> None:
    qwen = CONFIG | {"model_type": "qwen2", "sliding_window": 4096, "max_window_layers": 28}
    assert llm(written(tmp_path, qwen)).kv_groups == ((0, 32),)
    assert llm(written(tmp_path, qwen | {"use_sliding_window": True})).kv_groups == ((0, 28), (4096, 4))


@pytest.mark.parametrize("key", ["num_key_value_heads", "hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    assert "not guessed" in refused(tmp_path, {name: value for name, value in CONFIG.items() if name != key})[key]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model_type": "qwen3_next"}, "model_type"),
        ({"model_type": "nemotron_h"}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"attention_chunk_size": 8192}, "attention_chunk_size"),
        ({"model_type": "llama4_text", "num_local_experts": 8, "num_experts_per_tok": 1}, "intermediate_size_mlp"),
        ({"model_type": "deepseek_v3", "index_topk": 2048, "n_routed_experts": 8}, "index_topk"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"num_attention_heads": "32"}, "num_attention_heads"),
        ({"model_type": "gpt_oss", "num_local_experts": 8, "num_experts_per_tok": 2}, "layer_types"),
        ({"model_type": "mixtral"}, "num_local_experts"),
        ({"model_type": "opt"}, "ffn_dim"),
        ({"model_type": "opt", "ffn_dim": 4096, "word_embed_proj_dim": 512}, "word_embed_proj_dim"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    assert key in refused(tmp_path, CONFIG | change)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        llm(str(tmp_path / "absent.json"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        llm(str(tmp_path))


def test_the_catalogue_agrees_with_the_collected_configs() -> None:
    if not COLLECTED.is_file():
        pytest.skip("no collected configs at ../shared/data/models")
    rows = json.loads(COLLECTED.read_text())
    known = {name for name in llm_names() if name in rows}
    assert len(known) > 40
    for name in sorted(known):
        model, row = llm(name), rows[name]
        for field in ("layers", "hidden", "heads", "kv_heads", "vocab", "n_experts", "experts_per_token", "kv_lora_rank", "q_lora_rank"):
            assert getattr(model, field) == row.get(field, 0), (name, field)
        if model.attention == "gqa":
            assert model.head_dim == row["head_dim"], name
        _check_widths(name, model, row)


def _check_widths(name: str, model: Llm, row: dict[str, Any]) -> None:
    assert model.moe_intermediate == (row.get("moe_intermediate", row["intermediate"]) if model.n_experts else 0), name
    if model.intermediate and "llama4" not in row.get("model_type", ""):
        assert model.intermediate == row["intermediate"], name
    if "llama4" not in row.get("model_type", ""):
        assert model.shared_intermediate == row.get("n_shared_experts", 0) * row.get("moe_intermediate", 0), name
    assert model.tie_word_embeddings == row.get("tie_word_embeddings", False), name
    if "first_k_dense" in row:
        assert model.moe_layers == row["layers"] - row["first_k_dense"], name
    # Copies that NVIDIA quantised share the original's entry and may state a shorter or longer limit.
    if not name.startswith("nvidia/"):
        assert model.max_position == row["max_position"], name


def test_every_collected_architecture_is_known_or_refused_with_a_reason(tmp_path: Path) -> None:
    if not COLLECTED.is_file():
        pytest.skip("no collected configs at ../shared/data/models")
    known = set(llm_names())
    refusals = {}
    for name, row in json.loads(COLLECTED.read_text()).items():
        if name not in known:
            refusals[name] = refused(tmp_path, CONFIG | {"model_type": row["model_type"]})["model_type"]
    assert len(refusals) < 45
    assert all("is not supported: " in reason for reason in refusals.values())
