"""The trainer against closed forms: FLOP of a dense model, the bubble, Adam's bytes, the bound of LPT; and what must only ever rise."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.errors import BadInput
from sim.physics import packing
from sim.physics.pipeline import bubble, bubble_share
from sim.physics.train_memory import fit, layer_bytes, states, weights
from sim.physics.trainer import NO_COST, TrainStep
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.trainer import Trainer

SMALL, DENSE, MOE = "Qwen/Qwen2.5-1.5B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"


def trainer(**changes):
    return Trainer.model_validate({"gpu": "h100_sxm", "gpus": 8, "micro_batch": 8192, **changes})


def step(model=DENSE, **changes):
    return TrainStep(llm(model), trainer(**changes))


# -- arithmetic -------------------------------------------------------------
def test_flops_of_a_dense_model_are_six_per_weight_and_token_and_twelve_per_pair():
    model = llm(DENSE)
    h, layers, vocab = 4096, 32, 128256
    matrices = layers * (h * 6144 + h * h + 3 * h * 14336) + vocab * h
    pairs = 12 * layers * 32 * 128
    bound, lengths = step(), [1000, 3000]
    full = 6 * matrices * 4000 + pairs * (1000**2 + 3000**2)
    half = 6 * matrices * 4000 + pairs * (1000 * 1001 + 3000 * 3001) / 2
    assert bound.flops(lengths, full=True) == pytest.approx(full, rel=1e-12)
    assert bound.flops(lengths) == pytest.approx(half, rel=1e-12)
    assert 2 * matrices == model.flops_per_token


def test_a_window_limits_the_pairs_that_count():
    bound = step("google/gemma-2-2b", gpus=8)
    window, layers = bound.llm.kv_groups[-1]
    assert window > 0
    within = bound.flops([window])
    beyond = bound.flops([2 * window]) - 2 * within
    # Of windowed layers a token beyond the window sees as many keys as the window has, of full ones all before it.
    full = sum(count for size, count in bound.llm.kv_groups if not size)
    pair = 3 * bound.llm.flops_per_pair()
    assert beyond == pytest.approx(pair * (full * window**2 + layers * (window * window - window * (window + 1) / 2)), rel=1e-9)


def test_log_probabilities_are_a_third_of_an_update_without_recomputation():
    bound = step(SMALL, recompute="none", backend="megatron", micro_batch=4096)
    lengths = [4096] * 64
    update, forward = bound.update(lengths), bound.logprob(lengths)
    assert forward.flops == pytest.approx(update.flops / 3)
    assert forward.parts.forward == pytest.approx(update.parts.forward)
    assert update.parts.backward > 2 * update.parts.forward
    assert forward.parts.optimizer == forward.parts.backward == 0


def test_full_recomputation_is_another_forward_pass_without_the_head():
    with_it, without = (step(recompute=how).update([4096] * 16) for how in ("full", "none"))
    assert 0.8 < with_it.parts.recompute / with_it.parts.forward < 1.0
    assert without.parts.recompute == 0
    assert with_it.flops == without.flops
    assert with_it.computed == pytest.approx(4 / 3 * without.computed)


def test_no_update_is_faster_than_the_peak():
    for changes in ({}, {"precision": "fp8"}, {"recompute": "none"}, {"gpus": 64, "backend": "megatron", "parallel": {"tp": 8, "pp": 4}}):
        bound = step(**changes)
        cost = bound.update([8192] * 256)
        assert cost.computed < bound.peak * cost.seconds


def test_a_stated_mfu_takes_the_place_of_the_kernels():
    bound = step(mfu=0.4, overhead="2s")
    cost = bound.update([2000] * 64, epochs=2, mini_batches=4)
    assert (cost.seconds - 16.0) * bound.peak * 0.4 == pytest.approx(cost.flops)
    assert cost.flops == pytest.approx(2 * bound.flops([2000] * 64))
    assert bound.logprob([2000] * 64).seconds == pytest.approx(2.0 + cost.flops / 6 / bound.peak / 0.4)


def test_epochs_repeat_and_mini_batches_step_the_optimizer():
    bound = step(micro_batch=4096)
    once, twice, halves = (bound.update([4096] * 64, *of) for of in ((1, 1), (2, 1), (1, 2)))
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert twice.tokens == 2 * once.tokens
    assert halves.parts.optimizer == pytest.approx(2 * once.parts.optimizer)
    assert halves.parts.forward == pytest.approx(once.parts.forward)


# -- who waits for whom -----------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 9))
def test_lpt_keeps_its_bound(work, ranks):
    dealt = packing.deal([float(one) for one in work], ranks)
    assert sorted(number for mine in dealt for number in mine) == list(range(len(work)))
    loads = [sum(work[number] for number in mine) for mine in dealt]
    assert max(loads) <= sum(work) / ranks + max(work)
    if len(work) <= 7:
        assert max(loads) <= (4 / 3 - 1 / (3 * ranks)) * best(work, ranks) * (1 + 1e-12)


def best(work, ranks):
    """The least of the greatest loads over all divisions."""
    loads = {(0,) * ranks}
    for one in work:
        loads = {tuple(sorted((*mine[:i], mine[i] + one, *mine[i + 1 :]))) for mine in loads for i in range(ranks)}
    return min(map(max, loads))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3000), min_size=1, max_size=20), min_size=1, max_size=4), st.booleans())
def test_micro_batches_hold_every_sample_and_no_more_than_they_may(lengths, packed):
    found = packing.micro_batches(lengths, 2000, packed)
    assert len({len(mine) for mine in found}) == 1
    for mine, micro in zip(lengths, found, strict=True):
        assert all(sum(one) <= 2000 or len(one) == 1 for one in micro)
        assert sum(map(len, micro)) == len(mine)
        if packed:
            assert sorted(n for one in micro for n in one) == sorted(mine)


def test_balancing_pays_when_lengths_differ_and_costs_nothing_when_they_do_not():
    lengths = np.random.default_rng(3).lognormal(7, 1, 256).astype(int).clip(1, 8192).tolist()
    even, in_turn = (step(SMALL, balance=how).update(lengths) for how in (True, False))
    assert even.parts.imbalance < 0.5 * in_turn.parts.imbalance
    same = step(SMALL).update([1024] * 256)
    assert same.parts.imbalance == pytest.approx(0.0, abs=1e-9 * same.seconds)


def test_padding_costs_what_packing_saves():
    lengths = [8000, 100] * 32
    packed, padded = (step(SMALL, packing=how).update(lengths) for how in (True, False))
    assert packed.tokens == padded.tokens
    assert padded.seconds > packed.seconds


# -- pipelines and links ----------------------------------------------------
def test_the_bubble_of_1f1b():
    assert bubble_share(4, 8) == pytest.approx(3 / 11)
    assert bubble_share(4, 8, 2) == pytest.approx(1.5 / 9.5)
    assert bubble(4, 1, 1.0) / (8 + bubble(4, 1, 1.0)) == pytest.approx(bubble_share(4, 8))
    at = {"gpus": 32, "backend": "megatron", "parallel": {"tp": 4, "pp": 4}, "micro_batch": 4096}
    cost = step(**at).update([4096] * 16)
    assert cost.micro_batches == 8
    steady = cost.seconds - cost.parts.gradients - cost.parts.optimizer
    assert cost.parts.bubble / steady == pytest.approx(bubble_share(4, 8), rel=1e-6)
    halved = step(**at | {"parallel": {"tp": 4, "pp": 4, "vpp": 2}}).update([4096] * 16)
    assert halved.parts.bubble == pytest.approx(cost.parts.bubble / 2)


def test_gathers_hide_behind_long_micro_batches_only():
    few, many = (step(gpus=64, micro_batch=n).update([512] * 64 * (n // 512)) for n in (512, 8192))
    assert few.parts.network > 0.1 * few.seconds
    assert many.parts.network < 0.02 * many.seconds
    kept = step(gpus=64, micro_batch=512, reshard=False).update([512] * 64)
    assert kept.parts.network < few.parts.network


def test_offloaded_states_travel_at_the_speed_of_the_host():
    bound = step(offload="optimizer")
    chip, host = bound.gpu, bound.node
    each = bound.llm.params * 8 / 8
    speed = min(0.8 * chip.pcie, host.memory_bandwidth / host.gpus)
    assert bound.update([4096] * 8).parts.offload == pytest.approx(2 * each / speed, rel=0.01)
    short = [512] * 8
    assert step(offload="all", micro_batch=512).update(short).seconds > step(offload="optimizer", micro_batch=512).update(short).seconds
    assert bound.switch_seconds() == pytest.approx(bound.llm.params * 12 / 8 / speed, rel=0.01)
    assert bound.switch_seconds(optimizer=False) == pytest.approx(bound.llm.params * 4 / 8 / speed, rel=0.01)


@pytest.mark.parametrize("backend", ["fsdp", "megatron"])
@pytest.mark.parametrize("gpus", [8, 16, 64])
def test_more_gpus_at_the_same_tokens_are_never_slower_and_never_better_than_their_number(backend, gpus):
    lengths = np.random.default_rng(1).integers(200, 4000, 1024).tolist()
    some, more = (step(SMALL, gpus=n, backend=backend).update(lengths) for n in (gpus, 2 * gpus))
    assert more.seconds < some.seconds
    assert more.seconds > 0.5 * some.seconds
    assert more.flops == some.flops


@pytest.mark.parametrize("changes", [{"parallel": {"tp": 2}}, {"parallel": {"cp": 2}}, {"parallel": {"tp": 2, "cp": 2}}])
def test_dividing_a_model_or_a_sequence_costs_links(changes):
    whole, divided = step(recompute="none"), step(recompute="none", **changes)
    lengths = [8192] * 32
    assert divided.update(lengths).seconds > whole.update(lengths).seconds
    assert divided.memory.activations < whole.memory.activations


def test_experts_over_gpus():
    whole, spread = (step(MOE, gpus=64, micro_batch=8192, parallel={"ep": ep}) for ep in (1, 8))
    assert weights(spread.llm, spread.trainer)[1] == pytest.approx(weights(whole.llm, whole.trainer)[1] / 8)
    assert spread.memory.optimizer == pytest.approx(whole.memory.optimizer, rel=1e-6)
    lengths = [8192] * 64
    assert spread.update(lengths).parts.network > 0
    assert spread.update(lengths).flops == whole.update(lengths).flops


# -- memory -----------------------------------------------------------------
def test_adam_in_memory():
    model, chip = llm(DENSE), gpu("h100_sxm")
    sharded = fit(model, chip, trainer())
    assert sharded.weights + sharded.gradients + sharded.optimizer == pytest.approx(16 * model.params / 8, rel=1e-3)
    whole = fit(model, chip, trainer(backend="megatron", parallel={"tp": 4}))
    assert whole.weights == pytest.approx(2 * model.params / 4, rel=0.01)
    assert whole.gradients == pytest.approx(4 * model.params / 4, rel=0.01)
    assert whole.optimizer == pytest.approx(12 * model.params / 8, rel=0.01)
    away = fit(model, chip, trainer(offload="optimizer"))
    assert away.host == pytest.approx(sharded.optimizer)
    assert away.needed == pytest.approx(sharded.needed - sharded.optimizer)
    assert states(model, trainer()) == pytest.approx((4 * model.params / 8, 8 * model.params / 8), rel=1e-3)
    assert states(model, trainer(backend="megatron")) == pytest.approx((2 * model.params, 12 * model.params / 8), rel=1e-3)


def test_activations_of_a_layer():
    model = llm(DENSE)
    h, q, kv, inner = 4096, 4096, 1024, 14336
    kept = {how: layer_bytes(model, how) for how in ("none", "selective", "full")}
    assert kept["full"] == 2 * h
    # The residual twice and both norms' outputs, q, k, v and the output of attention with its sums, gate and up and their product.
    assert kept["none"] == 2 * (4 * h + 2 * q + 2 * kv + 3 * inner) + 4 * 32
    assert kept["none"] - kept["selective"] == 2 * (2 * h + inner)
    long, short = (fit(model, gpu("h100_sxm"), trainer(recompute="none", micro_batch=n)).activations for n in (8192, 4096))
    assert long == pytest.approx(2 * short) == pytest.approx(8192 * 32 * kept["none"])


@pytest.mark.parametrize(("changes", "words"), [
    ({"gpus": 1}, ("56.0 GB too little", "most of it is optimizer", "offload: optimizer")),
    ({"recompute": "none", "micro_batch": 65536}, ("most of it is activations", "recompute: full")),
    ({"loss_chunk": 10**6, "micro_batch": 10**5}, ("most of it is logits",)),
])  # fmt: skip
def test_what_does_not_fit_is_told_by_part_and_amount(changes, words):
    with pytest.raises(BadInput) as error:
        step(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_sample_that_is_too_long_is_told():
    with pytest.raises(BadInput, match=r"with a sample of 1000000 tokens.*too little"):
        step().update([1_000_000, *[10] * 7])


def test_states_beyond_the_memory_of_the_host_are_told():
    with pytest.raises(BadInput, match="into the memory of hgx_h100"):
        step("Qwen/Qwen3-235B-A22B", gpus=8, offload="all", micro_batch=1024)


def test_ranks_without_a_sample_wait():
    few, many = step(SMALL).update([1000] * 2), step(SMALL).update([1000] * 8)
    assert few.seconds == pytest.approx(many.seconds)
    assert few.parts.imbalance == pytest.approx(0.75 * (many.seconds - many.parts.optimizer))
    assert step(SMALL).update([]) == step(SMALL).logprob([]) == NO_COST


def test_samples_may_come_little_by_little():
    bound = step(SMALL, overhead="1s", micro_batch=1000)
    whole, parts = bound.update([1000] * 64), [bound.accumulate([1000] * 32) for _ in range(2)]
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts) + bound.finish().seconds)
    assert whole.flops == pytest.approx(sum(part.flops for part in parts))
    assert bound.finish().parts.overhead == 1.0


def test_costs_add_up():
    cost = step(SMALL).update([1000] * 64)
    assert cost.seconds == pytest.approx(sum(cost.parts))
    assert min(cost.parts) >= 0
    assert NO_COST.plus(cost) == cost


# -- published runs ---------------------------------------------------------
@pytest.mark.parametrize(("gpus", "reported"), [(96, 0.47), (4608, 0.42)])
def test_megatron_scaling_of_175b(gpus, reported):
    """Megatron-LM's strong scaling on H100 (batch 1,152, sequences of 4,096); layout and recomputation are assumed, nothing is fitted."""
    at = {"gpus": gpus, "backend": "megatron", "parallel": {"tp": 8, "pp": 12, "vpp": 8}, "micro_batch": 4096, "recompute": "selective"}
    bound = step("facebook/opt-175b", **at)
    cost = bound.update([4096] * 1152)
    assert cost.flops_full / bound.peak / cost.seconds == pytest.approx(reported, rel=0.12)
