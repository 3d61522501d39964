"""What fits: vLLM's division of a GPU's memory, and errors that say what would fit."""
from __future__ import annotations

import pytest

from sim.core.errors import BadInput
from sim.physics.memory import divide
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool


def memory(name, chip, tp=1, precision="bf16", **rest):
    pool = Pool.model_validate({"gpu": chip, "parallel": {"tp": tp}, "precision": precision, **rest})
    return divide(llm(name), gpu(chip), pool, "cluster.pools.0")


def test_the_parts_fill_the_budget():
    parts = memory("meta-llama/Llama-3.1-8B", "h100_sxm")
    used = parts.weights + parts.activations + parts.reserve + parts.blocks * parts.per_block
    assert parts.budget - parts.per_block < used <= parts.budget
    assert parts.weights == pytest.approx(16.06e9, rel=0.005)
    assert parts.per_block == 16 * 131072


@pytest.mark.parametrize(
    ("name", "chip", "tp", "budget", "seats", "logged"),
    [
        ("meta-llama/Llama-2-7b-hf", "h100_sxm", 1, 2048, 128, 7463),
        ("meta-llama/Llama-3.1-70B-Instruct", "h100_sxm", 4, 8192, 128, 30251),
        ("meta-llama/Llama-3.1-70B-Instruct", "h100_sxm", 4, 2048, 128, 30425),
        ("mistralai/Mistral-Nemo-Instruct-2407", "h100_sxm", 2, 1024, 128, 48009),
        ("mistralai/Mistral-Nemo-Instruct-2407", "h100_sxm", 1, 2048, 128, 19251),
        ("Qwen/Qwen2.5-7B-Instruct", "h100_sxm", 1, 2048, 128, 65352),
        ("01-ai/Yi-34B", "h100_sxm", 2, 2048, 128, 20793),
        ("meta-llama/Llama-3.1-8B", "rtx4090", 1, 2048, 256, 2588),
    ],
)
def test_blocks_are_near_what_vllm_logged(name, chip, tp, budget, seats, logged):
    """KV blocks logged by vLLM 0.15 on H100 (BLIS-train15) and by vLLM 0.19 on an RTX 4090 (LLMServingSim bench)."""
    engine = {"max_num_seqs": seats, "max_num_batched_tokens": budget}
    assert memory(name, chip, tp, engine=engine).blocks == pytest.approx(logged, rel=0.03 if chip == "rtx4090" else 0.015)


def test_more_gpus_and_smaller_caches_give_more_blocks():
    one = memory("meta-llama/Llama-3.1-8B", "h100_sxm").blocks
    assert memory("meta-llama/Llama-3.1-8B", "h100_sxm", 2).blocks > 2 * one
    fp8 = {"attention": "bf16", "mlp": "bf16", "lm_head": "bf16", "kv": "fp8"}
    assert memory("meta-llama/Llama-3.1-8B", "h100_sxm", precision=fp8).blocks == pytest.approx(2 * one, rel=0.001)


def test_an_override_replaces_the_count():
    assert memory("meta-llama/Llama-3.1-8B", "h100_sxm", engine={"num_gpu_blocks_override": 77}).blocks == 77


def test_a_model_too_large_says_by_how_much_and_what_would_fit():
    with pytest.raises(BadInput) as caught:
        memory("meta-llama/Llama-3.1-70B", "h100_sxm")
    text = str(caught.value)
    assert "cluster.pools.0" in text
    assert "141.1 GB of weights" in text
    assert "GB too little" in text
    assert "parallel: {tp: 4}" in text or "parallel: {tp: 2}" in text
    assert "precision: int4" in text or "precision: fp8" in text


def test_a_model_that_nothing_holds_says_so():
    with pytest.raises(BadInput, match="No tensor-parallel layout of one pcie_l4"):
        memory("moonshotai/Kimi-K2-Instruct", "l4", precision="int4")


def test_advice_can_be_followed():
    """405B in bf16 does not go into one HGX at all; DeepSeek-V3 needs both fewer bits and more GPUs."""
    with pytest.raises(BadInput, match=r"precision: fp8$"):
        memory("meta-llama/Llama-3.1-405B", "h100_sxm", 8)
    with pytest.raises(BadInput, match=r"precision: int4 and parallel: \{tp: 8\}$"):
        memory("deepseek-ai/DeepSeek-V3", "h100_sxm")
    assert memory("deepseek-ai/DeepSeek-V3", "h100_sxm", 8, "int4").blocks > 0
