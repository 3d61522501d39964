"""What fits: vLLM's division of a GPU's memory, and errors that say what would fit."""
from __future__ import annotations

import pytest
import yaml

from sim.core.errors import BadInput
from sim.physics.memory import divide
from sim.spec.hardware import gpu
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import llm
from sim.spec.scenario import Pool


def memory(name, chip, tp=1, precision="bf16", **rest):
    pool = Pool.model_validate({"gpu": chip, "parallel": {"tp": tp}, "precision": precision} | rest)
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
        ("Qwen/Qwen2.5-7B-Instruct", "h100_sxm", 1, 1024, 128, 65368),
        ("01-ai/Yi-34B", "h100_sxm", 2, 2048, 128, 20793),
        ("meta-llama/Llama-3.1-8B", "rtx4090", 1, 2048, 256, 2588),
    ],
)
def test_blocks_are_near_what_vllm_logged(name, chip, tp, budget, seats, logged):
    """KV blocks logged by vLLM 0.15 on H100 (BLIS-train15) and by vLLM 0.19 on an RTX 4090 (LLMServingSim bench)."""
    engine = {"max_num_seqs": seats, "max_num_batched_tokens": budget}
    assert memory(name, chip, tp, engine=engine).blocks == pytest.approx(logged, rel=0.0125)


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
    with pytest.raises(BadInput, match="No layout of up to 64 GPUs in nodes pcie_l4"):
        memory("moonshotai/Kimi-K2-Instruct", "l4", precision="int4", gpu_memory="8GB")


@pytest.mark.parametrize(
    ("name", "parallel", "advice"),
    [
        ("meta-llama/Llama-3.1-405B", {"tp": 8}, ["parallel: {tp: 8, pp: 2}", "precision: fp8"]),
        ("deepseek-ai/DeepSeek-V3", {}, ["parallel: {tp: 8, pp: 4}", "precision: int4 and parallel: {tp: 8}"]),
        ("deepseek-ai/DeepSeek-V3", {"dp": 8, "ep": 8}, ["parallel: {tp: 1, pp: 4, dp: 8, ep: 8}", "precision: int4"]),
    ],
)
def test_advice_can_be_followed(name, parallel, advice):
    """405B in bf16 does not go into one HGX at all; DeepSeek-V3 needs both fewer bits and more GPUs."""
    with pytest.raises(BadInput) as caught:
        memory(name, "h100_sxm", parallel=parallel)
    assert str(caught.value).endswith("It would fit with " + " or ".join(advice))
    for words in advice:
        followed = yaml.safe_load(words.replace(" and ", "\n"))
        assert memory(name, "h100_sxm", **({"parallel": parallel} | followed)).blocks > 0


def test_the_tightest_stage_decides():
    """405B in four stages of 31, 32, 32 and 31 layers: a middle one has more layers, the first and last an embedding or head."""
    model, parts = llm("meta-llama/Llama-3.1-405B"), memory("meta-llama/Llama-3.1-405B", "h100_sxm", parallel={"tp": 4, "pp": 4})
    assert parts.per_block == 16 * 32 * model.kv_bytes_per_layer("bf16", 4)
    assert parts.weights == model.stage_bytes(Precision(), Parallel(tp=4, pp=4))[1]
    wide = memory("google/gemma-3-1b-it", "l4", parallel={"pp": 2}).weights
    assert wide > llm("google/gemma-3-1b-it").weight_bytes(Precision()) / 2


def test_the_blocks_of_all_groups_make_one_pool():
    one, four = memory("Qwen/Qwen3-30B-A3B", "h100_sxm"), memory("Qwen/Qwen3-30B-A3B", "h100_sxm", parallel={"dp": 4, "ep": 4})
    assert four.blocks % 4 == 0
    assert four.blocks > 4 * one.blocks  # a quarter of the experts on each GPU leaves more room
    assert four.blocks // 4 == int((four.left + four.per_block) // four.per_block)
    assert memory("Qwen/Qwen3-30B-A3B", "h100_sxm", parallel={"dp": 4, "ep": 4}, engine={"num_gpu_blocks_override": 77}).blocks == 4 * 77


def test_a_larger_budget_takes_room_for_the_hidden_states_it_keeps():
    """Qwen2.5-7B logged 16 blocks fewer with 2048 tokens than with 1024: two hidden states a token, since sampling is the peak."""
    small, large = (memory("Qwen/Qwen2.5-7B-Instruct", "h100_sxm", engine={"max_num_batched_tokens": n}).blocks for n in (1024, 2048))
    assert small - large == 16


def test_a_layout_that_does_not_suit_the_model():
    with pytest.raises(BadInput) as caught:
        memory("meta-llama/Llama-3.1-8B", "h100_sxm", parallel={"tp": 3, "pp": 40})
    assert [problem.path for problem in caught.value.problems] == ["cluster.pools.0.parallel.tp", "cluster.pools.0.parallel.pp"]
