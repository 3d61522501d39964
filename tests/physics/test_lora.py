"""Low-rank adapters: their bytes by hand, their share of a step, and the room they take from the KV cache."""
from __future__ import annotations

import pytest

from sim.physics.lora import LoraCost, adapter_bytes
from sim.physics.memory import divide
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool

LLAMA = "meta-llama/Llama-3.1-8B"


def pool(name="h100_sxm", parallel=None, cuda_graph=True, **lora):
    return Pool(gpu=name, parallel=parallel or {}, engine={"lora": lora, "cuda_graph": cuda_graph})


def cost(model=LLAMA, **options):
    made = pool(**options)
    return LoraCost(llm(model), gpu(made.gpu), made)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        # The number of trainable weights that PEFT prints for rank 16 on all linear layers of Llama 3 8B.
        ({"rank": 16}, 41_943_040),
        ({"rank": 64}, 4 * 41_943_040),
        ({"rank": 16, "target": "attention"}, 32 * 16 * (3 * 4096 + 6144 + 4096 + 4096)),
        # Halved: outputs of qkv and gate_up, inputs of o and down; their other sides are whole on both GPUs.
        ({"rank": 16, "parallel": {"tp": 2}}, 32 * 16 * (3 * 4096 + 3072 + 2048 + 4096 + 2 * 4096 + 14336 + 7168 + 4096)),
    ],
)
def test_bytes_of_an_adapter(options, weights):
    assert adapter_bytes(llm(LLAMA), pool(**options), 32) == 2 * weights
    assert adapter_bytes(llm(LLAMA), pool(**options), 8) == 2 * weights / 4


def test_routed_experts_have_no_adapters():
    mixtral = llm("mistralai/Mixtral-8x7B-v0.1")
    everywhere, attention = (adapter_bytes(mixtral, pool(target=target), 32) for target in ("all-linear", "attention"))
    assert everywhere == attention > 0


def test_a_step_pays_starts_and_bytes():
    """With few tokens: two starts a matrix and layer, and each adapter's bytes once at the small kernels' bandwidth."""
    priced = cost(max_loras=32)
    assert priced.seconds(0, 0) == 0.0
    each = priced.seconds(16, 16) - priced.seconds(16, 15)
    assert 1.0 < each / (2 * 41_943_040 / gpu("h100_sxm").bandwidth) < 1.6
    starts = priced.seconds(1, 1) - each
    assert 1e-6 < starts / (2 * 4 * 32) < 6e-6
    # More adapters than tokens cannot be in a step.
    assert priced.seconds(4, 9) == priced.seconds(4, 4)


def test_more_tokens_and_adapters_never_cost_less():
    priced = cost(max_loras=32)
    for adapters in (1, 4, 32):
        times = [priced.seconds(tokens, adapters) for tokens in (1, 4, 32, 100, 1000, 2048)]
        assert times == sorted(times)
    assert priced.seconds(64, 2) < priced.seconds(64, 3)
    assert cost(max_loras=32, cuda_graph=False).seconds(8, 1) >= priced.seconds(8, 1)


def test_two_milliseconds_a_token_on_an_a100():
    """Punica (Chen et al. 2023, abstract): many adapters add about 2 ms a token, on A100s. Here 32 sequences, each with its own."""
    assert 1e-3 < cost("meta-llama/Llama-2-7b-hf", name="a100_sxm_80gb", max_loras=32).seconds(32, 32) < 4e-3


def test_loading_goes_over_pcie_and_reading_through_storage():
    size = 2 * 41_943_040
    assert cost().load == pytest.approx(size / 64e9)
    assert cost().read == pytest.approx(size / 1e9)
    assert cost(disk_bandwidth=4e9).read == pytest.approx(size / 4e9)
    assert cost(load_time=0.5).read == 0.5


def test_slots_come_off_the_kv_cache():
    """Each slot costs the blocks that its bytes would hold."""
    model, chip = llm(LLAMA), gpu("h100_sxm")
    plain = divide(model, chip, Pool(gpu="h100_sxm"))
    slots = divide(model, chip, pool(max_loras=8))
    assert slots.weights - plain.weights == 8 * 2 * 41_943_040
    assert plain.blocks - slots.blocks == pytest.approx(8 * 2 * 41_943_040 / plain.per_block, abs=1)
