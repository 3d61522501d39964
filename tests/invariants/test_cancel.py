"""Requests that are called off: the fast engine equals the plain one, nothing is left behind, and audits hold."""
from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_batchers_equal_oracle import batcher_of
from test_stretch_equals_oracle import Kinked, same

import sim
from sim.core.content import Content
from sim.core.registry import BATCHERS, ORDERS
from sim.core.request import COMPLETED, FAILED, Request
from sim.core.tables import tables
from sim.physics.speculation import Acceptance
from sim.policy.batch.base import Limits
from sim.policy.kv.contiguous import Contiguous
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from sim.spec.engine import Speculation
from sim.spec.lora import Lora
from sim.study.audit import audit
from sim.world.adapters import Adapters
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.timer import Deadline
from tests.invariants.test_autoscaling import POOL as SCALED
from tests.invariants.test_autoscaling import TRAFFIC, same_scaling
from tests.invariants.test_modern_engine import BATCHERS as EVERY_BATCHER
from tests.invariants.test_modern_engine import CACHES, MORE, SESSIONS, SHARING
from tests.invariants.test_modern_engine import engine as options_of
from tests.invariants.test_scenarios import ADMISSION, POOL, ROUTER, WORKLOAD, both, equal
from tests.invariants.test_services_equal_oracle import Priced


def drive(kind, batcher, limits, cache, load, law=None):
    """Requests of `load` (gap, prompt, output, seconds until it is called off or None) through one engine."""
    env, out = Clock(), tables()

    def ended(request):
        failed = request.last != request.last
        out["requests"].append((
            request.id, request.workload, request.session, 0, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, FAILED if failed else COMPLETED, 0, request.cached,
            0, 0.0,
        ))  # fmt: skip
        if failed:
            out["losses"].append((request.id, 0, env.now, request.stalled, request.computed))

    # Drafts make contexts grow by fractions, which this model of steps does not know: then no step looks at them.
    engine = kind(env, 0, Kinked(37 if law is None else 0, 0.0024), cache, (batcher, limits, law), (out["stretches"], out["stalls"], ended))
    if limits.max_loras:
        engine.adapters = Adapters(Lora(max_loras=limits.max_loras, max_cpu_loras=limits.max_loras + 1), Priced(), 1, (0, out["adapters"]))

    def cancel(request):
        if request.last != request.last:
            request.reason = "timeout"
            engine.cancel(request)

    def arrivals():
        for number, (gap, prompt, output, patience) in enumerate(load):
            if gap:
                yield env.timeout(gap)
            request = Request(number, env.now, prompt, output, number * 7 % 3, number * 5 % 4 - 1)
            request.priority = number * 11 % 3
            if limits.max_loras:
                request.adapter = number * 13 % 5 - 1
            if number % 2:
                request.content, request.reply = Content((number % 3 + 1,), (min(40, prompt),), 40), number + 100
            engine.submit(request)
            if patience is not None:
                Deadline(env, env.now + patience, request, cancel)
        yield env.timeout(0)

    env.process(arrivals())
    env.run()
    assert not engine.settle()
    assert engine.in_flight == engine.queued == 0
    assert engine.kv.free == engine.kv.blocks
    return out, engine


SMALL = "Qwen/Qwen2.5-0.5B"
GAP = st.one_of(st.just(0.0), st.floats(1e-4, 0.3).map(lambda gap: gap * math.sqrt(2) / 1.4))
PATIENCE = st.one_of(st.none(), st.floats(1e-4, 1.0).map(lambda wait: wait * math.sqrt(3) / 1.7))
REQUEST = st.tuples(GAP, st.integers(1, 90), st.integers(1, 60), PATIENCE)
DRAFT = Speculation(method="ngram", num_speculative_tokens=3, acceptance=0.6, sampling="sampled")


@settings(max_examples=150, deadline=None)
@given(
    load=st.lists(REQUEST, min_size=1, max_size=30),
    kind=st.sampled_from(BATCHERS.names()),
    order=st.sampled_from(ORDERS.names()),
    cache=st.sampled_from(["paged", "radix", "radix", "max", "oracle"]),
    room=st.integers(150, 500),
    block_size=st.sampled_from([1, 4, 16]),
    seats=st.integers(1, 10),
    lookahead=st.booleans(),
    drafts=st.booleans(),
    slots=st.sampled_from([0, 0, 2]),
)
def test_requests_called_off_on_random_engines(load, kind, order, cache, room, block_size, seats, lookahead, drafts, slots):
    static, chunked = kind == "static", kind in ("vllm_v1", "sarathi")
    tokens = 4 if drafts else 1
    slots = 0 if static else slots
    limits = Limits(seats, seats * tokens + 30 if chunked else 200, chunked, 0, lookahead, tokens, 150, slots)
    blocks = math.ceil(room / block_size)
    law = Acceptance(DRAFT, 5) if drafts else None

    def made():
        if cache == "paged" or static:
            return Paged(blocks, block_size)
        return Radix(blocks, block_size) if cache == "radix" else Contiguous(blocks, block_size, 150, cache)

    (fast, engine), (exact, oracle) = (drive(one, batcher_of(kind, order), limits, made(), load, law) for one in (Engine, ExactEngine))
    same(fast["requests"], exact["requests"])
    a, b = (table["losses"]["request"].argsort() for table in (fast, exact))
    for column in ("request", "computed"):
        assert np.array_equal(fast["losses"][column][a], exact["losses"][column][b]), column
    for column in ("time", "stalled"):
        np.testing.assert_allclose(fast["losses"][column][a], exact["losses"][column][b], rtol=1e-9)
    assert engine.preemptions == oracle.preemptions
    assert engine.kv.peak == oracle.kv.peak
    assert (engine.kv.taken, engine.kv.returned) == (oracle.kv.taken, oracle.kv.returned)
    for column in ("decoders", "paused"):
        busy, plain = fast["stretches"], exact["stretches"]
        assert (busy["steps"] * busy[column]).sum() == plain[column].sum()
    np.testing.assert_allclose(fast["stretches"]["seconds"].sum(), exact["stretches"]["seconds"].sum(), rtol=1e-9)


CLIENT = st.fixed_dictionaries({}, optional={
    "timeout": st.sampled_from(["300ms", "2s", {"median": "200ms", "p99": "2s"}]),
    "first_token_timeout": st.sampled_from(["100ms", "1s", {"mean": "200ms"}, {"median": "50ms", "p99": "1s"}]),
    "retries": st.fixed_dictionaries(
        {"max": st.integers(1, 4), "backoff": st.sampled_from([{"first": "100ms"}, {"first": 0, "jitter": 0}, {"first": 0.01}])},
        optional={"budget": st.sampled_from([0.1, 1.0])},
    ),
    "hedge": st.fixed_dictionaries({"after": st.sampled_from(["30ms", "200ms", "p50", "p90"])}, optional={
        "max": st.integers(1, 3), "budget": st.just(0.3),
    }),
}).filter(lambda client: "retries" in client or (client.get("timeout"), client.get("first_token_timeout")) != ("300ms", "1s"))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    pools=st.lists(POOL, min_size=1, max_size=2), workloads=st.lists(st.one_of(WORKLOAD, SESSIONS, SHARING), min_size=1, max_size=3),
    batcher=st.sampled_from(EVERY_BATCHER), cache=CACHES, more=MORE, ways=st.tuples(ROUTER, ADMISSION),
    split=st.sampled_from([None, None, 0, 100]), clients=st.tuples(CLIENT, CLIENT, CLIENT),
    seed=st.integers(0, 99), duration=st.sampled_from([None, None, 0.7, 3.0]),
)  # fmt: skip
def test_callers_with_patience_in_random_scenarios(pools, workloads, batcher, cache, more, ways, split, clients, seed, duration):
    pools = [pool | {"name": f"pool{i}", "engine": options_of(pool["engine"], batcher, cache, more)} for i, pool in enumerate(pools)]
    workloads = [
        workload | ({"client": client} if client else {}) | {"priority": number}
        for number, (workload, client) in enumerate(zip(workloads, clients, strict=False))
    ]
    if more[3] and batcher["kind"] != "static":
        workloads = [workload | {"adapters": {"count": 4, "share": 0.7}} for workload in workloads]
    cluster = {"router": ways[0], "admission": ways[1]}
    if split is not None and batcher["kind"] != "static":
        pools = [pools[0] | {"role": "prefill"}, pools[-1] | {"name": "decode", "role": "decode", "model": pools[0]["model"]}]
        cluster |= {"disaggregation": {"short_prompt": split, "bandwidth": "1GB/s", "latency": "1ms"}}
    scenario = {"model": pools[0]["model"], "seed": seed, "cluster": cluster | {"pools": pools}, "workloads": workloads}
    try:
        fast, exact = both(scenario | ({"duration": duration} if duration else {}))
    except sim.BadInput as error:
        assume("no request arrived" not in str(error) and "fewer than the smallest request" not in str(error))
        raise
    agree(fast, exact)


def agree(fast, exact):
    """Both runs have the same tables, and nothing is wrong with either."""
    equal(fast, exact)
    for name, times in (("attempts", ("start", "end")), ("losses", ("time", "stalled"))):
        a, b = fast.tables[name], exact.tables[name]
        i, j = a["request"].argsort(), b["request"].argsort()
        for column in a.columns:
            if column.name in times:
                np.testing.assert_allclose(a[column.name][i], b[column.name][j], rtol=1e-9, atol=1e-12, err_msg=column.name)
            else:
                assert np.array_equal(a[column.name][i], b[column.name][j]), column.name
    for result in (fast, exact):
        failed = {name: check for name, check in audit(result).items() if not check["ok"]}
        assert not failed


MOVING = st.sampled_from([
    {"preemption_mode": "swap", "swap_space": "4GB"}, {"preemption_mode": "swap", "swap_space": "20MB"},
    {"kv_tiers": [{"kind": "ssd", "capacity": "2GB", "bandwidth": "500MB/s"}], "kv_reload": "always"},
    {"kv_tiers": [{"kind": "host", "capacity": "200MB", "latency": "20ms"}], "retention": {"kind": "offload"}, "kv_reload": "always"},
    {"kv_tiers": [{"kind": "ssd", "capacity": "2GB", "bandwidth": "500MB/s"}], "preemption_mode": "swap", "kv_offload": "on_evict"},
    {"retention": {"kind": "keep"}},
])  # fmt: skip
TURNS = st.fixed_dictionaries({
    "kind": st.just("sessions"), "num_sessions": st.integers(2, 12), "turns": st.just(3), "think_time": st.just("50ms"),
    "rate": st.floats(5, 60), "lengths": st.just({"kind": "uniform", "input": [1, 150], "output": [1, 90]}), "max_context": st.just(600),
})  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    engine=st.fixed_dictionaries({
        "max_num_seqs": st.integers(2, 12), "max_num_batched_tokens": st.integers(24, 300), "num_gpu_blocks_override": st.integers(42, 70),
        "max_model_len": st.just(640), "async_scheduling": st.booleans(),
    }),
    moving=MOVING, workload=TURNS, client=CLIENT.filter(bool), split=st.sampled_from([None, "100MB/s", "1GB/s"]), seed=st.integers(0, 99),
    duration=st.sampled_from([None, None, 1.5]), replicas=st.integers(1, 2),
)  # fmt: skip
def test_called_off_while_caches_are_full_and_on_the_move(engine, moving, workload, client, split, seed, duration, replicas):
    pools = [{"name": "a", "gpu": "h100_sxm", "replicas": replicas, "engine": engine | moving}]
    cluster = {"pools": pools, "router": {"kind": "round_robin"}}
    if split is not None:
        cluster["pools"] = [pools[0] | {"role": "prefill"}, pools[0] | {"name": "b", "role": "decode"}]
        cluster["disaggregation"] = {"bandwidth": split}
    scenario = {"model": "meta-llama/Llama-3.1-8B", "seed": seed, "cluster": cluster, "workloads": [workload | {"client": client}]}
    agree(*both(scenario | ({"duration": duration} if duration else {})))


@settings(max_examples=20, deadline=None)
@given(
    router=st.sampled_from([
        {"kind": "least_loaded"}, {"kind": "prefix_aware", "index": "events"}, {"kind": "kv_aware", "index": "events"},
        {"kind": "spill_over", "threshold": 2},
    ]),
    views=st.sampled_from([{}, {"views": {"period": "50ms", "delay": "330ms", "own_count": False}}, {"views": {"period": "300ms"}}]),
    workload=st.one_of(WORKLOAD, TURNS), client=CLIENT.filter(bool), seed=st.integers(0, 99),
)  # fmt: skip
def test_called_off_on_the_way_from_another_region(router, views, workload, client, seed):
    engine = {"max_num_seqs": 6, "max_num_batched_tokens": 200, "num_gpu_blocks_override": 80, "max_model_len": 1000}
    pools = [{"name": name, "gpu": "l4", "replicas": 2, "engine": engine, "region": name} for name in ("x", "y")]
    cluster = {"pools": pools, "router": router, "regions": [{"between": ["x", "y"], "latency": "37ms"}]} | views
    workloads = [workload | {"client": client, "name": name, "region": name} for name in ("x", "y")]
    agree(*both({"model": SMALL, "seed": seed, "cluster": cluster, "workloads": workloads}))


@settings(max_examples=20, deadline=None)
@given(pool=SCALED, traffic=TRAFFIC, client=CLIENT.filter(bool), seed=st.integers(0, 99), split=st.booleans())
def test_called_off_while_replicas_come_and_go(pool, traffic, client, seed, split):
    if not pool["engine"]["enable_prefix_caching"]:
        pool = pool | {"engine": pool["engine"] | {"retention": {"kind": "lru"}}}
    pools = [pool | {"name": role, "role": role} for role in ("prefill", "decode")] if split else [pool]
    lengths = {"kind": "uniform", "input": [1, 400], "output": [1, 80]}
    workload = traffic | {"lengths": lengths, "client": client}
    fast, exact = both({"model": SMALL, "seed": seed, "duration": 60, "cluster": {"pools": pools}, "workloads": [workload]})
    agree(fast, exact)
    same_scaling(fast, exact)
