"""Adapters and cascades: the fast engine equals the plain one, those passed over, loads, verdicts and later stages included."""
from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.request import COMPLETED, Request
from sim.core.tables import tables
from sim.policy.batch.base import Limits
from sim.policy.batch.orca import Orca
from sim.policy.batch.prefill_first import PrefillFirst
from sim.policy.batch.sarathi import Sarathi
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.spec.lora import Lora
from sim.world.adapters import Adapters
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from tests.invariants.test_scenarios import both, equal
from tests.invariants.test_stretch_equals_oracle import Kinked, same


class Priced:
    """Loads of 7 and 31 ms; a step pays for each adapter and each token."""

    load, read = 0.0071, 0.0313

    def seconds(self, tokens, adapters):
        return 1.7e-6 * tokens + 1.3e-4 * adapters if tokens else 0.0


def drive(kind, batcher, limits: Limits, kv, load, kept):
    """Requests of `load` (gap, prompt, output, adapter) through one engine."""
    env, out = Clock(), tables()

    def ended(request: Request) -> None:
        out["requests"].append((
            request.id, 0, -1, 0, request.arrival, request.admitted, request.first, request.last, request.prompt, request.generated,
            request.output, request.preemptions, COMPLETED, 0, request.cached, 0, 0.0,
        ))  # fmt: skip

    engine = kind(env, 0, Kinked(37, 0.0024), kv, (batcher(), limits, None), (out["stretches"], out["stalls"], ended))
    lora = Lora(max_loras=limits.max_loras, max_cpu_loras=limits.max_loras + kept)
    engine.adapters = Adapters(lora, Priced(), 1, (0, out["adapters"]))

    def arrivals():
        for number, (gap, prompt, output, adapter) in enumerate(load):
            if gap:
                yield env.timeout(gap)
            request = Request(number, env.now, prompt, output)
            request.adapter = adapter
            engine.submit(request)
        yield env.timeout(0)

    env.process(arrivals())
    env.run()
    assert not engine.running
    assert not engine.adapters.active
    assert not engine.adapters.running
    return out, engine


GAP = st.one_of(st.just(0.0), st.floats(1e-4, 0.3).map(lambda gap: gap * math.sqrt(2) / 1.4))
REQUEST = st.tuples(GAP, st.integers(1, 90), st.integers(1, 60), st.integers(-1, 4))


@settings(max_examples=60, deadline=None)
@given(
    load=st.lists(REQUEST, min_size=1, max_size=30),
    seats=st.integers(1, 12),
    budget=st.integers(150, 220),
    room=st.integers(150, 600),
    slots=st.integers(1, 3),
    kept=st.integers(0, 2),
    lookahead=st.booleans(),
    batcher=st.sampled_from([VllmV1, VllmV1, PrefillFirst, Orca, Sarathi]),
)
def test_adapters_on_random_loads(load, seats, budget, room, slots, kept, lookahead, batcher):
    limits = Limits(seats, budget, True, 0, lookahead, max_loras=slots)
    runs = [drive(kind, batcher, limits, Paged(math.ceil(room / 16), 16), load, kept) for kind in (Engine, ExactEngine)]
    (fast, engine), (exact, plain) = runs
    same(fast["requests"], exact["requests"])
    assert engine.preemptions == plain.preemptions
    assert len(fast["adapters"]) == len(exact["adapters"])
    for column in ("request", "adapter", "source", "seconds"):
        assert np.array_equal(fast["adapters"][column], exact["adapters"][column]), column
    np.testing.assert_allclose(fast["adapters"]["time"], exact["adapters"]["time"], rtol=1e-9)
    np.testing.assert_allclose(fast["stretches"]["seconds"].sum(), exact["stretches"]["seconds"].sum(), rtol=1e-9)


LENGTHS = {"kind": "uniform", "input": [1, 400], "output": [1, 80]}
SMALL, LARGE = "Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-3B"


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 99),
    engine=st.fixed_dictionaries({
        "max_num_seqs": st.integers(1, 8), "num_gpu_blocks_override": st.integers(40, 90), "async_scheduling": st.booleans(),
    }),
    verifier=st.sampled_from([{"seconds": 0}, {"seconds": 0.02}, {"model": "large", "output_tokens": 3}, {"model": "small"}]),
    escalate=st.sampled_from([0.5, {"by": "output_tokens", "above": 40}, {"classes": {"a": 0.7}}]),
    answer=st.booleans(),
    speculate=st.booleans(),
    gap=st.sampled_from(["poisson", "closed"]),
)
def test_cascades_with_adapters(seed, engine, verifier, escalate, answer, speculate, gap):
    common = engine | {"max_num_batched_tokens": 256, "max_model_len": 600}
    drafts = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "acceptance": 0.6, "sampling": "sampled"}}
    adapted = common | {"lora": {"max_loras": 2, "max_cpu_loras": 3}} | (drafts if speculate else {})
    traffic = {"kind": "poisson", "rate": 60} if gap == "poisson" else {"kind": "closed", "concurrency": 6}
    scenario = {
        "seed": seed, "model": SMALL,
        "cluster": {
            "pools": [
                {"name": "small", "gpu": "l4", "replicas": 2, "engine": adapted},
                {"name": "large", "model": LARGE, "gpu": "l40s", "engine": common},
            ],
            "cascades": [{"from": "small", "to": "large", "escalate": escalate, "verifier": verifier, "include_answer": answer}],
        },
        "workloads": [
            {**traffic, "name": "a", "num_requests": 25, "lengths": LENGTHS, "shared_prefix": 48, "adapters": {"count": 4}},
            {"kind": "gamma", "cv": 2, "rate": 15, "name": "b", "model": "large", "num_requests": 8, "lengths": LENGTHS},
        ],
    }  # fmt: skip
    fast, exact = both(scenario)
    equal(fast, exact)
    a, b = fast.tables["stages"], exact.tables["stages"]
    for column in ("request", "root", "stage", "part", "service", "outcome"):
        assert np.array_equal(a[column], b[column]), column
    for column in ("start", "end"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-9)
    for result in (fast, exact):
        assert all(check["ok"] for check in result.summary["audit"].values())
