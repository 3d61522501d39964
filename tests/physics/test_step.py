"""The step model: its fast forms equal its plain one, and it behaves as hardware does."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.request import Request
from sim.physics.attention_prefill import pairs
from sim.physics.base import Work
from sim.physics.step import EngineStep, capture_sizes
from sim.spec.engine import EngineOptions
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool

LAYOUTS = [
    ("meta-llama/Llama-3.1-8B", "h100_sxm", 1, "bf16", {}),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 8, "fp8", {}),
    ("mistralai/Mixtral-8x7B-v0.1", "a100_sxm_80gb", 4, "int4", {"cuda_graph": False}),
    ("openai/gpt-oss-120b", "b200", 1, "mxfp4", {}),
    ("deepseek-ai/DeepSeek-V3", "h200_sxm", 8, "fp8", {"cudagraph_capture_sizes": [1, 2, 4, 8]}),
    ("mistralai/Mistral-7B-v0.1", "l40s", 1, "bf16", {"cuda_graph": False, "host_overhead": "1ms"}),
    ("meta-llama/Llama-3.1-70B", "rtx_pro_6000", {"tp": 2, "pp": 4}, "fp8", {}),
    ("deepseek-ai/DeepSeek-V3", "h200_sxm", {"dp": 8, "ep": 8}, "fp8_block", {"framework": "sglang"}),
]


def model(name, chip, tp=1, precision="bf16", engine=None) -> EngineStep:
    parallel = tp if isinstance(tp, dict) else {"tp": tp}
    pool = Pool.model_validate({"gpu": chip, "parallel": parallel, "precision": precision, "engine": engine or {}})
    return EngineStep(llm(name), gpu(chip), pool)


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: f"{layout[0]}-{layout[1]}-tp{layout[2]}-{layout[3]}")
def bound(request):
    return model(*request.param)


@settings(max_examples=60, deadline=None)
@given(decoders=st.integers(1, 256), each=st.integers(1, 9000), step=st.integers(0, 5000))
def test_line_is_the_plain_step_along_the_whole_stretch(bound, decoders, each, step):
    held = decoders * each
    seconds, slope, steps = bound.line(decoders, held)
    assert steps >= 1
    for j in {0, min(step, steps - 1), min(steps - 1, 20_000)}:
        plain = bound.step(Work((), decoders, held + j * decoders)).seconds
        assert seconds + slope * j == pytest.approx(plain, rel=1e-11)


@settings(max_examples=60, deadline=None)
@given(
    decoders=st.integers(0, 200),
    each=st.integers(1, 9000),
    chunks=st.lists(st.tuples(st.integers(1, 600), st.integers(0, 9000)), min_size=1, max_size=3),
)
def test_mixed_is_the_plain_step(bound, decoders, each, chunks):
    requests = []
    for number, (tokens, before) in enumerate(chunks):
        request = Request(number, 0.0, before + tokens, 1)
        request.computed = before
        requests.append((request, tokens))
    plain = bound.step(Work(tuple(chunks), decoders, decoders * each)).seconds
    assert bound.mixed(decoders, decoders * each, requests) == pytest.approx(plain, rel=1e-11)


@settings(max_examples=40, deadline=None)
@given(decoders=st.integers(0, 200), each=st.integers(1, 9000), chunk=st.integers(0, 1500))
def test_a_cost_is_the_sum_of_its_parts_and_never_below_the_roofline(bound, decoders, each, chunk):
    if decoders + chunk == 0:
        return
    work = Work(((chunk, 0),) if chunk else (), decoders, decoders * each)
    cost = bound.step(work)
    assert cost.seconds == pytest.approx(cost.compute + cost.memory + cost.network + cost.host, rel=1e-12)
    weights = bound.llm.weight_bytes(bound.pool.precision, bound.pool.parallel)
    # Of experts a step may read few; a dense model reads all its layers.
    if not bound.llm.n_experts:
        head = bound.llm.vocab * bound.llm.hidden * 2 / bound.pool.parallel.tp
        assert cost.seconds >= (weights - 2 * head) / bound.gpu.bandwidth * bound.stages / bound.lanes
    peak = max(bound.gpu.flops.values())
    assert cost.seconds >= bound.llm.flops_per_token * decoders / bound.pool.parallel.gpus / peak


@settings(max_examples=40, deadline=None)
@given(decoders=st.integers(1, 255), each=st.integers(1, 9000))
def test_more_work_never_takes_less_time(bound, decoders, each):
    def seconds(b, held, chunks=()):
        return bound.step(Work(chunks, b, held)).seconds

    held = decoders * each
    assert seconds(decoders, held + 1) >= seconds(decoders, held) * (1 - 1e-12)
    assert seconds(decoders + 1, held + each) >= seconds(decoders, held) * (1 - 1e-12)
    assert seconds(decoders, held, ((17, 0),)) >= seconds(decoders, held) * (1 - 1e-12)
    assert seconds(decoders, held, ((17, 400),)) >= seconds(decoders, held, ((17, 0),)) * (1 - 1e-12)


def test_decode_of_8b_on_h100_is_bound_by_memory_and_near_measurements():
    """Batch 1 at short context streams 15 GB of weights: 5 ms at full bandwidth; engines measure 7 to 9 ms."""
    cost = model("meta-llama/Llama-3.1-8B", "h100_sxm").step(Work((), 1, 500))
    assert 0.006 < cost.seconds < 0.010
    assert cost.memory > 0.5 * cost.seconds


def test_long_prefill_is_bound_by_compute():
    cost = model("meta-llama/Llama-3.1-8B", "h100_sxm").step(Work(((2048, 6000),), 0, 0))
    assert cost.compute > 0.8 * cost.seconds


def test_cuda_graphs_matter_at_small_batch_only():
    graphs, eager = (model("meta-llama/Llama-3.1-8B", "h100_sxm", engine={"cuda_graph": graph}) for graph in (True, False))
    small, large = Work((), 1, 200), Work(((2000, 0),), 40, 40_000)
    assert eager.step(small).seconds > 1.3 * graphs.step(small).seconds
    assert eager.step(large).seconds == pytest.approx(graphs.step(large).seconds, rel=1e-9)


def test_graphs_pad_to_captured_sizes():
    bound = model("meta-llama/Llama-3.1-8B", "h100_sxm")
    assert [bound.target.sizes.padded(n) for n in (1, 3, 5, 9, 250, 257, 500, 513)] == [1, 4, 8, 16, 256, 272, 512, 513]
    assert bound.target.linear[9] == bound.target.linear[16] == pytest.approx(bound.target.layers.at(16).seconds, rel=1e-12)


def test_capture_sizes_are_vllms():
    sizes = capture_sizes(EngineOptions())
    assert sizes[:5] == (1, 2, 4, 8, 16)
    assert sizes[-1] == 512
    assert len(sizes) == 51
    assert capture_sizes(EngineOptions(max_num_seqs=4))[-1] == 8
    assert capture_sizes(EngineOptions(cuda_graph=False)) == ()


def test_tensor_parallelism_divides_work_and_adds_network():
    one, eight = (model("meta-llama/Llama-3.1-70B", "b200", tp, "fp8").step(Work((), 32, 32_000)) for tp in (1, 8))
    assert one.network == 0.0
    assert eight.network > 0.0
    assert one.seconds / 8 < eight.seconds < one.seconds


def test_a_sliding_window_bends_the_line():
    bound = model("openai/gpt-oss-120b", "b200", 1, "mxfp4")
    before, after = bound.line(64, 64 * 126), bound.line(64, 64 * 128)
    assert before[2] == 2
    assert 0 < after[1] < 0.6 * before[1]


@given(n=st.integers(1, 200), before=st.integers(0, 300), window=st.integers(1, 400))
def test_pairs_are_counted_as_one_would_by_hand(n, before, window):
    assert pairs(n, before, window) == sum(min(before + i, window) for i in range(1, n + 1))


def test_a_dtype_without_a_fit_is_named():
    bound = model("meta-llama/Llama-3.1-8B", "a100_sxm_80gb", 1, "fp8")
    bound.step(Work((), 1, 10))
    assert any("fp8" in text for text in bound.assumed(1000))


def test_flash_attention_gains_more_the_longer_the_context():
    flash, naive = (model("meta-llama/Llama-3.1-8B", "h100_sxm", engine={"attention": kind}) for kind in ("flash", "naive"))
    gains = [naive.step(Work(((n, 0),), 0, 0)).seconds / flash.step(Work(((n, 0),), 0, 0)).seconds for n in (512, 2048, 2304)]
    assert 1.0 < gains[0] < gains[1] <= gains[2]


def test_an_fp8_cache_does_not_halve_attention():
    """FlashAttention 3 reaches a smaller share of the bandwidth with fp8 keys: 0.5 < ratio < 1 at long contexts."""
    wide, narrow = (model("meta-llama/Llama-3.1-8B", "h100_sxm", precision={"kv": kv}) for kv in ("bf16", "fp8"))
    ratio = narrow.target.decode(64, 8000.0).seconds / wide.target.decode(64, 8000.0).seconds
    assert 0.52 < ratio < 0.9


def test_all_reduce_is_near_a_fifth_of_a_70b_step_on_eight_gpus():
    """Measured shares of decode steps of Llama-3.1-70B fp8 at TP8 and low concurrency: all-reduce 18 %, host and launches another 20 %."""
    cost = model("meta-llama/Llama-3.1-70B", "h200_sxm", 8, "fp8").step(Work((), 8, 8 * 4000))
    assert 0.10 < cost.network / cost.seconds < 0.26


def test_a_pipeline_of_full_stages_keeps_its_gpus_busy():
    """Twice the GPUs in stages, with work for both: nearly twice the decoders per second; with one sequence, a bubble."""
    one, two = (model("meta-llama/Llama-3.1-70B", "b200", {"tp": 1, "pp": pp}, "fp8") for pp in (1, 2))
    rate = [2 * b / two.step(Work((), 2 * b, 2 * b * 1000)).seconds / (b / one.step(Work((), b, b * 1000)).seconds) for b in (1, 128)]
    assert 1.8 < rate[1] < 2.1
    single = two.step(Work((), 1, 1000)).seconds / one.step(Work((), 1, 1000)).seconds
    assert 0.95 < single < 1.1


def test_the_slowest_attention_group_decides():
    """One prompt lands in one of four groups; all wait for it, so that it costs what it would cost alone."""
    spread = model("deepseek-ai/DeepSeek-V3", "b200", {"dp": 8, "ep": 8}, "nvfp4")
    idle, one, all_of = (spread.step(Work(chunks, 64, 64_000)).seconds for chunks in ((), ((2048, 0),), ((2048, 0),) * 8))
    assert one > 1.5 * idle
    assert all_of < 1.05 * one


def test_skewed_experts_cost_more_under_expert_parallelism():
    even, skewed = (
        model("Qwen/Qwen3-235B-A22B", "h100_sxm", {"tp": 8, "ep": 8}, "fp8", {"expert_skew": skew}).step(Work(((4096, 0),), 0, 0)).seconds
        for skew in (0.0, 1.0)
    )
    assert skewed > 1.1 * even


def test_edge_layers_in_sixteen_bits_cost_their_weights():
    plain, edged = (
        model("meta-llama/Llama-3.1-70B", "h100_sxm", 4, {"attention": "bf16", "mlp": "int4", "kv": "fp8", **edges})
        for edges in ({}, {"edges": {"first": 2, "last": 2, "dtype": "bf16"}})
    )
    more = edged.step(Work((), 1, 100)).seconds - plain.step(Work((), 1, 100)).seconds
    weights = 4 * 3 * 8192 * 28672 * 1.5 / 4  # four layers' MLPs, 2 bytes in place of half a byte, on one of four GPUs
    assert more == pytest.approx(weights / (0.85 * 3.35e12), rel=0.35)
