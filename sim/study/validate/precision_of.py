"""The number formats a measured run had, from the one or two words its table gives.

A table says `fp8` or `fp4`; the checkpoint says which matrices. What is known of the published checkpoints, model family by family, is
written here once, and every choice the table does not make comes back as a sentence, so that a page can list what was assumed.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sim.core.errors import BadInput
from sim.spec.hardware import Gpu

WORDS = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16", "fp8": "fp8", "float8": "fp8",
    "fp8_e4m3": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "mxfp4": "mxfp4", "int8": "int8", "w8a8": "int8", "sq": "int8",
    "int8_wo": "int8_weights", "w8a16": "int8_weights", "int4": "int4", "int4_wo": "int4", "w4a16": "int4", "awq": "int4", "gptq": "int4",
}  # fmt: skip


def precision_of(row: Mapping[str, Any], chip: Gpu) -> tuple[dict[str, str], list[str]]:
    """`precision` as a scenario has it, and what was assumed. Raises BadInput for a word that is not known."""
    said: list[str] = []
    word = _word(row, chip, said)
    parts = {"attention": word, "mlp": word, "lm_head": "fp16" if word == "fp16" else "bf16"}
    model = str(row["model"]).lower()
    if "gpt-oss" in model:
        parts |= {"attention": "bf16", "mlp": "mxfp4_mxfp8" if chip.architecture == "blackwell" else "mxfp4"}
        said.append("gpt-oss checkpoints hold mxfp4 experts and 16-bit attention, whatever the table's precision")
        if chip.architecture == "blackwell":
            said.append("with mxfp8 activations, as the recipes of vLLM and TensorRT-LLM for Blackwell set it")
    elif word == "int4" and re.search(r"kimi|deepseek", model):
        parts["attention"] = "bf16"
        said.append("int4 experts, 16-bit attention: the published Kimi checkpoint (compressed-tensors)")
    elif word == "nvfp4" and re.search(r"kimi|deepseek", model):
        parts["attention"] = "bf16"
        said.append("nvfp4 experts, 16-bit attention: NVIDIA's published FP4 checkpoints of MLA models")
    elif word == "fp8" and "redhatai" in model and "llama-4" in model:
        parts["attention"] = "bf16"
        said.append("fp8 experts, 16-bit attention: the ignore list of the published FP8-dynamic checkpoint")
    parts["kv"] = _kv(row, chip, word, said)
    return parts, said


def _word(row: Mapping[str, Any], chip: Gpu, said: list[str]) -> str:
    found = str(row["precision"]).lower().strip()
    if not found:
        said.append("precision not recorded: bf16")
        return "bf16"
    if found in ("fp4", "w4a4"):
        return "nvfp4" if chip.architecture.startswith("blackwell") else "mxfp4"
    if found == "fp8" and re.search(r"(gemm|moe)=fp8_block", str(row["notes"])):
        return "fp8_block"
    if found not in WORDS:
        raise BadInput(f"precision '{row['precision']}' is not known; known: {', '.join(sorted({*WORDS, 'fp4'}))}")
    return WORDS[found]


def _kv(row: Mapping[str, Any], chip: Gpu, word: str, said: list[str]) -> str:
    found = str(row["kv_dtype"]).lower().strip()
    if found in ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"):
        return "fp8"
    if found in ("bf16", "fp16", "auto", "float16", "bfloat16"):
        return "fp16" if found in ("fp16", "float16") else "bf16"
    if found:
        raise BadInput(f"kv_dtype '{row['kv_dtype']}' is not known; bf16, fp16 or fp8 is wanted")
    fp8, why = _fp8_cache(str(row["engine"]).lower(), str(row["model"]).lower(), str(row["precision"]).lower(), chip)
    if word not in ("bf16", "fp16"):
        said.append(f"kv_dtype not recorded: {why}")
    return "fp8" if fp8 else "fp16" if word == "fp16" else "bf16"


def _fp8_cache(engine: str, model: str, precision: str, chip: Gpu) -> tuple[bool, str]:
    """Whether a quantised checkpoint is served with an fp8 cache, and why so."""
    blackwell = chip.architecture.startswith("blackwell")
    if precision in ("fp8", "fp4", "nvfp4") and engine == "trtllm" and not (_block_scaled(model) and not blackwell):
        return True, "fp8, the cache format named in NVIDIA's quantised checkpoints, which TensorRT-LLM follows"
    if precision in ("fp8", "fp4", "nvfp4") and engine in ("vllm", "sglang") and blackwell:
        return True, "fp8, as published recipes for vLLM and SGLang on Blackwell ask for"
    return False, "16 bit, the engine's default"


def _block_scaled(model: str) -> bool:
    """The original fp8 checkpoints of Qwen3 and DeepSeek say nothing of the cache."""
    return model.startswith(("qwen/", "deepseek"))
