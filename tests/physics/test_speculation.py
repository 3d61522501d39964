"""Speculative decoding: the law of accepted tokens, the step that verifies and drafts, its memory, and what it is worth."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.core.errors import BadInput
from sim.core.request import Request
from sim.physics.base import Work
from sim.physics.memory import divide
from sim.physics.speculation import Acceptance
from sim.physics.step import EngineStep, capture_sizes
from sim.spec.draft import draft
from sim.spec.engine import EngineOptions, Speculation
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.scenario import Pool

LLAMA, DEEPSEEK = "meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"
SMALL = {"method": "draft_model", "model": "meta-llama/Llama-3.2-1B", "num_speculative_tokens": 4, "acceptance": 0.7}
MTP = {"method": "mtp", "num_speculative_tokens": 1, "acceptance": 0.87}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "acceptance": 0.3}
# Per-position rates on MT-Bench to which vLLM 0.17.0 holds its commits, of Llama-3.1-8B-Instruct with RedHatAI's EAGLE-3 head: 2.60 tokens
# per step (tests/v1/spec_decode/test_acceptance_length.py in its source distribution).
EAGLE3 = {"method": "eagle3", "num_speculative_tokens": 3, "acceptance": [0.7296, 0.5208, 0.3545]}
LAYOUTS = [
    (LLAMA, "h100_sxm", {}, "bf16", EAGLE3, {}),
    ("meta-llama/Llama-3.1-70B", "h200_sxm", {"tp": 8}, "fp8", SMALL | {"draft_tensor_parallel_size": 1}, {"framework": "trtllm"}),
    (DEEPSEEK, "h200_sxm", {"dp": 8, "ep": 8}, "fp8_block", MTP, {"framework": "sglang"}),
    ("XiaomiMiMo/MiMo-7B-Base", "l40s", {"pp": 2}, "bf16", MTP | {"num_speculative_tokens": 2}, {"cuda_graph": False}),
    ("openai/gpt-oss-120b", "b200", {}, "mxfp4", EAGLE3, {"cudagraph_capture_sizes": [1, 2, 4, 8, 64]}),
    ("mistralai/Mistral-7B-v0.1", "a100_sxm_80gb", {"tp": 2}, "int4", NGRAM, {}),
    (LLAMA, "rtx_pro_6000", {}, "fp8", {"method": "eagle", "num_speculative_tokens": 5, "acceptance": 0.6}, {"attention": "naive"}),
]


def pooled(chip="h100_sxm", parallel=None, precision="bf16", speculation=None, **engine):
    options = engine | ({"speculative_config": speculation} if speculation else {})
    return Pool.model_validate({"gpu": chip, "parallel": parallel or {}, "precision": precision, "engine": options})


def model(name=LLAMA, chip="h100_sxm", parallel=None, precision="bf16", speculation=None, **engine):
    return EngineStep(llm(name), gpu(chip), pooled(chip, parallel, precision, speculation, **engine))


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: f"{layout[4]['method']}-{layout[0]}-{layout[1]}")
def bound(request):
    *where, engine = request.param
    return model(*where, **engine)


# -- the law ------------------------------------------------------------
chances = st.floats(0.0, 1.0)


def law(acceptance, k, seed=None):
    mode = "expected" if seed is None else "sampled"
    options = {"method": "ngram", "num_speculative_tokens": k, "acceptance": acceptance, "sampling": mode}
    return Acceptance(Speculation.model_validate(options), seed or 0)


@given(chance=st.floats(0.0, 0.99), k=st.integers(1, 12))
def test_one_chance_gives_the_geometric_law(chance, k):
    known = law(chance, k)
    assert known.e == pytest.approx((1 - chance ** (k + 1)) / (1 - chance), rel=1e-12)
    assert sum(known.exactly) == pytest.approx(1.0, rel=1e-12)
    assert sum(i * share for i, share in enumerate(known.exactly)) == pytest.approx(known.e - 1.0, abs=1e-12)


def test_a_list_is_what_vllm_logs():
    """Its mean acceptance length is 1 + the sum of per-position rates: 2.60 for EAGLE-3, 3.32 for the MTP of SkyRL's Qwen3.5-9B."""
    assert law([0.7296, 0.5208, 0.3545], 3).e == pytest.approx(2.60, abs=0.005)
    assert law([0.886, 0.770, 0.663], 3).e == pytest.approx(3.319)
    assert law([0.8, 0.64, 0.512], 3).exactly == pytest.approx(law(0.8, 3).exactly)


@given(acceptance=chances, k=st.integers(1, 8), remaining=st.integers(1, 2000), seed=st.none() | st.integers(0, 99))
def test_a_trajectory_grows_by_one_to_k_plus_one_and_ends_exactly(acceptance, k, remaining, seed):
    known = law(acceptance, k, seed)
    tokens = known.trajectory(remaining, request=7, turn=1)
    grown = np.diff(tokens, prepend=0)
    assert tokens.dtype.kind == "i"
    assert tokens[-1] == remaining
    assert grown.min() >= 1
    assert grown.max() <= k + 1
    if seed is None:
        assert np.all(np.abs(tokens[:-1] - known.e * np.arange(1, len(tokens))) < 1.0 + 1e-9)


def test_all_or_nothing():
    for seed in (None, 5):
        assert law(1.0, 3, seed).trajectory(10).tolist() == [4, 8, 10]
        assert law(0.0, 3, seed).trajectory(3).tolist() == [1, 2, 3]


def test_draws_follow_the_law():
    """40,000 steps: each share within four standard errors."""
    known = law([0.7, 0.4, 0.35, 0.1], 4, seed=1)
    grown = np.concatenate([np.diff(known.trajectory(4000, request), prepend=0)[:-1] for request in range(26)])
    shares = np.bincount(grown, minlength=6)[1:] / len(grown)
    assert len(grown) > 40_000
    assert np.all(np.abs(shares - known.exactly) < 4 * np.sqrt(np.array(known.exactly) / len(grown)))


def test_draws_belong_to_a_request_and_its_turn():
    def drawn(request, turn=0, seed=1):
        return law(0.6, 3, seed).trajectory(300, request, turn).tolist()

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(*place)) for place in ((3,), (4,), (3, 1), (3, 0, 2))}) == 4
    known = law(0.6, 3, 1)
    backwards = [known.trajectory(300, request).tolist() for request in (5, 4, 3)]
    assert backwards[2] == drawn(3)


# -- the step ------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(decoders=st.integers(1, 256), each=st.integers(1, 9000), step=st.integers(0, 5000))
def test_line_is_the_plain_step_along_the_whole_stretch(bound, decoders, each, step):
    held = decoders * each
    seconds, slope, steps = bound.line(decoders, held)
    assert steps >= 1
    for j in {0, min(step, steps - 1), min(steps - 1, 20_000)}:
        plain = bound.step(Work((), decoders, held + j * decoders * bound.pace)).seconds
        assert seconds + slope * j == pytest.approx(plain, rel=1e-10)


@settings(max_examples=40, deadline=None)
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
    assert bound.mixed(decoders, decoders * each, requests) == pytest.approx(plain, rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(decoders=st.integers(1, 200), each=st.integers(1, 9000), chunk=st.integers(1, 1500))
def test_a_cost_is_the_sum_of_its_parts_and_grows(bound, decoders, each, chunk):
    work = Work(((chunk, 0),), decoders, decoders * each)
    cost = bound.step(work)
    assert cost.seconds == pytest.approx(cost.compute + cost.memory + cost.network + cost.host, rel=1e-12)
    # Passes of a drafter behind the first take sequences at their mean context, which a short one that joins a long one lowers: two that
    # are short fill the SMs better than one that is long, so that these passes may be quicker by a little.
    least = cost.seconds * (1 - (1e-3 if bound.drafting is not None and bound.drafting.passes[1:] else 1e-12))
    assert bound.step(work._replace(decoders=decoders + 1, held=work.held + each)).seconds >= least


def test_without_speculation_nothing_is_drafted():
    plain = model()
    assert (plain.queries, plain.pace, plain.drafting) == (1, 1.0, None)
    assert plain._rows is plain.target.rows
    assert not any("new tokens per sequence" in text for text in plain.assumed(1000))
    assert any("4 new tokens per sequence" in text for text in model(speculation=EAGLE3).assumed(1000))


def test_verifying_reads_weights_and_keys_once():
    """Four times the rows at batch 1 are nearly free; attention over long contexts reads no more keys; latent attention is arithmetic."""
    plain, verify = model(), model(speculation=NGRAM)
    assert verify.target.linear[4] == pytest.approx(plain.target.linear[4])
    more = verify.step(Work((), 1, 1000)).seconds - verify.drafting.cost(1, 1000.0, ()).seconds
    assert more < 1.06 * plain.step(Work((), 1, 1000)).seconds
    assert verify.target.decode(32, 8000.0).seconds < 1.1 * plain.target.decode(32, 8000.0).seconds
    one, two = (model(DEEPSEEK, "h200_sxm", {"tp": 8}, "fp8_block", options).target.decode(64, 8000.0).seconds for options in (None, MTP))
    assert 1.02 < two / one <= 2.0


def test_verified_rows_are_padded_to_graphs_and_captured_further():
    bound = model(speculation=EAGLE3)
    assert bound.target.linear[9 * 4] == bound.target.linear[40]
    assert capture_sizes(EngineOptions.model_validate({"max_num_seqs": 16, "speculative_config": EAGLE3}))[-1] == 128


def test_a_draft_of_k_tokens_takes_k_passes():
    """A draft model's weights are read once for each token of the draft."""
    times = [model(speculation=SMALL | {"num_speculative_tokens": k}).drafting.cost(1, 500.0, ()).seconds for k in (1, 2, 5)]
    assert times[2] - times[1] == pytest.approx(3 * (times[1] - times[0]), rel=0.01)
    read = 2.0 * (llm(SMALL["model"]).params) / 3.35e12
    assert read < times[1] - times[0] < 2.5 * read


def test_prompts_pass_through_the_draft_too():
    plain, drafting = model(), model(speculation=SMALL)
    work = Work(((2048, 0),), 0, 0)
    share = drafting.step(work).seconds / plain.step(work).seconds - 1.0
    assert 0.1 < share < 0.4  # a model of 1.2 B parameters beside one of 8 B


# -- what it is worth ------------------------------------------------------------
def gain(speculation, batch, context=600, **engine):
    """Tokens per second with speculation over those without, of steps that only decode."""
    work = Work((), batch, batch * context)
    spec = model(speculation=speculation, framework="sglang", **engine)
    return spec.pace * model(framework="sglang").step(work).seconds / spec.step(work).seconds


def test_gain_falls_with_batch_and_turns_negative():
    gains = [gain(SMALL, batch) for batch in (1, 16, 64, 128, 256)]
    assert all(later < earlier for earlier, later in itertools.pairwise(gains))
    assert gains[0] > 1.5
    assert gains[-1] < 1.0
    assert gain(NGRAM, 1) > 1.3
    assert gain(NGRAM, 256) < 0.8


def test_eagle3_of_8b_on_h100_is_near_what_sglang_showed():
    """SGLang, MT-Bench, one H100: 158 to 373 tokens/s at batch 1, 2.36 times; 1.38 times at batch 64 with drafts of 3 (arXiv 2503.01840).

    SGLang of that time scheduled synchronously when it speculated and ahead when it did not. Of a host that is never waited for steps alone
    give 2.3 at batch 1, and at batch 64 still 2.1; with the synchronous host's time 1.3 at batch 64, and at batch 1 too few.
    """
    assert gain(EAGLE3, 1) == pytest.approx(2.36, rel=0.05)
    ahead, waiting = gain(EAGLE3, 64), gain(EAGLE3, 64, async_scheduling=False)
    assert waiting == pytest.approx(1.38, rel=0.10)
    assert waiting < ahead < gain(EAGLE3, 1)


def test_mtp_of_deepseek_v3_is_near_what_its_report_says():
    """85 to 90 % accepted, 1.8 times the tokens per second (arXiv 2412.19437, section 5.4.3; no batch size is stated)."""
    one, two = (model(DEEPSEEK, "h200_sxm", {"tp": 8}, "fp8_block", options) for options in (None, MTP))
    work = Work((), 1, 1000)
    assert two.pace * one.step(work).seconds / two.step(work).seconds == pytest.approx(1.8, rel=0.10)


# -- what it holds ------------------------------------------------------------
def drafted(name, speculation, **rest):
    found = draft(llm(name), pooled(speculation=speculation, **rest))
    assert found is not None
    return found


def test_heads_weigh_what_is_published():
    """DeepSeek-V3's card counts 14 B for the MTP module, embedding and head included, and 11.5 B of its own; vLLM's EAGLE-3 head of
    Llama-3.1-8B has one layer, 2h-wide queries, keys and values, a 3h projection and 32,000 tokens of output.
    """
    assert drafted(DEEPSEEK, MTP).llm.params == pytest.approx(14e9, rel=0.05)
    assert drafted(DEEPSEEK, MTP, precision="bf16").weights / 2 == pytest.approx(11.5e9, rel=0.02)
    h, kv, wide = 4096, 1024, 14336
    own = 2 * h * (h + 2 * kv) + h * h + 3 * h * wide + 3 * h * h + 32000 * h
    assert drafted(LLAMA, EAGLE3).weights / 2 == pytest.approx(own, rel=1e-4)


def test_the_draft_takes_weights_and_blocks():
    plain = divide(llm(LLAMA), gpu("h100_sxm"), pooled())
    for speculation, weights, token in ((SMALL, 2.47e9, 16 * 2048), (EAGLE3, 0.849e9, 4096), (NGRAM, 0.0, 0)):
        found = divide(llm(LLAMA), gpu("h100_sxm"), pooled(speculation=speculation))
        assert found.weights - plain.weights == pytest.approx(weights, rel=0.01)
        assert found.per_block - plain.per_block == 16 * token
        assert found.blocks == plain.blocks if speculation is NGRAM else found.blocks < plain.blocks


def test_the_last_stage_holds_the_draft():
    stages = {"tp": 4, "pp": 2}
    plain, found = (divide(llm("meta-llama/Llama-3.1-70B"), gpu("h100_sxm"), pooled(parallel=stages, speculation=s)) for s in (None, SMALL))
    assert found.weights - plain.weights == pytest.approx(2 * llm(SMALL["model"]).params / 4, rel=0.01)


# -- bad input ------------------------------------------------------------
SCENARIO = """\
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - gpu: h100_sxm
      parallel: {tp: 2}
      engine:
        speculative_config:
          method: METHOD
          num_speculative_tokens: K
          acceptance: ACCEPTANCE
workloads:
  - {kind: poisson, rate: 4, num_requests: 20, lengths: {kind: fixed, input: 1000, output: 10}}
"""
CASES = [
    ("eagle3", "3", "1.2", 10, "found 1.2; a value of at most 1 is wanted"),
    ("eagle3", "3", "[0.7, -1, 0]", 10, "acceptance.1: found -1; a value of at least 0 is wanted"),
    ("eagle3", "3", "high", 10, "acceptance: found 'high'; a number is wanted"),
    ("eagle3", "3", "[0.7, 0.5]", 7, "acceptance has 2 entries; one for each of num_speculative_tokens (3) is wanted, or one number"),
    ("eagle3", "2", "[0.7, 0.8]", 7, "acceptance rises from 0.7 to 0.8"),
    ("eagle3", "0", "0.8", 9, "found 0; a value of at least 1 is wanted"),
    ("medusa", "3", "0.8", 8, "found 'medusa'"),
    ("ngram\n          model: x", "3", "0.8", 7, "model is for the methods draft_model, eagle and eagle3; ngram has no use for it"),
    ("draft_model", "3", "0.8", 7, "model is missing; method draft_model needs one"),
    ("draft_model\n          model: llama-3.2", "3", "0.8", 9, "unknown model 'llama-3.2'; did you mean"),
    ("draft_model\n          model: ./none.json", "3", "0.8", 9, "cannot be read"),
    ("draft_model\n          model: meta-llama/Llama-3.1-70B", "3", "0.8", 9, "70.6 billion parameters, more than the 8.03 billion of"),
    ("draft_model\n          model: Qwen/Qwen3-0.6B", "3", "0.8", 9, "a draft model of the same vocabulary is wanted"),
    ("eagle\n          draft_tensor_parallel_size: 4", "3", "0.8", 9, "found 4; 1 or tp of the target (2) is wanted"),
    ("mtp", "3", "0.8", 8, "meta-llama/Llama-3.1-8B has no layers that predict ahead"),
]


@pytest.mark.parametrize(("method", "k", "acceptance", "line", "says"), CASES)
def test_bad_input_is_named_with_its_line(tmp_path, method, k, acceptance, line, says):
    path = tmp_path / "bad.yaml"
    path.write_text(SCENARIO.replace("METHOD", method).replace("K\n", f"{k}\n").replace("ACCEPTANCE", acceptance), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        sim.load(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(path), line)
    assert says in str(problem)


def test_a_scenario_with_speculation_reads_back(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(SCENARIO.replace("METHOD", "eagle3").replace("K\n", "3\n").replace("ACCEPTANCE", "[0.7, 0.5, 0.3]"), encoding="utf-8")
    scenario = sim.load(path)
    again = tmp_path / "again.yaml"
    again.write_text(sim.dump(scenario), encoding="utf-8")
    assert sim.load(again) == scenario
