"""Every batcher, order and kind of cache: the engine that runs stretches equals the one that makes every step, over random loads."""
from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stretch_equals_oracle import REQUEST, Kinked, same

from sim.core.registry import BATCHERS, ORDERS
from sim.core.request import COMPLETED, Request
from sim.core.rng import Draws, stream
from sim.core.tables import tables
from sim.policy.batch.base import Limits
from sim.policy.kv.contiguous import Contiguous
from sim.policy.kv.paged import Paged
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine

OPTIONS = {
    "shortest_job": {"sigma": 0.7}, "slo": {"classes": {1: 0.05, 2: 0.3}}, "least_attained": {"quantum": 20.0},
    "sarathi": {"chunk_size": 9},
}  # fmt: skip


def batcher_of(kind, order):
    options = {"kind": kind, **OPTIONS.get(kind, {})}
    if kind != "static":
        options["order"] = {"kind": order, **OPTIONS.get(order, {})}
    checked, problems = BATCHERS.check(options)
    assert not problems
    made = BATCHERS.make(checked)
    if kind != "static":
        made.order.seed(Draws(stream(3, "batcher")))
    return made


def drive(kind, batcher, model, limits, kv, load):
    env, out = Clock(), tables()

    def ended(request):
        out["requests"].append((
            request.id, request.workload, request.session, 0, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, COMPLETED, 0, request.cached, 0, 0.0,
        ))  # fmt: skip

    engine = kind(env, 0, model, kv, (batcher, limits, None), (out["stretches"], out["stalls"], ended))

    def arrivals():
        for number, (gap, prompt, output) in enumerate(load):
            if gap:
                yield env.timeout(gap)
            request = Request(number, env.now, prompt, output, number * 7 % 3, number * 5 % 4 - 1)
            request.priority = number * 11 % 3
            request.program, request.ahead = max(number * 3 % 5 - 2, -1), number * 13 % 7 * 10
            engine.submit(request)
        yield env.timeout(0)

    env.process(arrivals())
    env.run()
    assert not engine.settle()
    return out, engine


@settings(max_examples=150, deadline=None)
@given(
    load=st.lists(REQUEST, min_size=1, max_size=30),
    kind=st.sampled_from(BATCHERS.names()),
    order=st.sampled_from(ORDERS.names()),
    cache=st.sampled_from(["paged", "paged", "max", "pow2", "oracle"]),
    room=st.integers(150, 500),
    block_size=st.sampled_from([1, 4, 16]),
    seats=st.integers(1, 10),
    lookahead=st.booleans(),
)
def test_random_policies(load, kind, order, cache, room, block_size, seats, lookahead):
    chunked = kind in ("vllm_v1", "sarathi")
    limits = Limits(seats, seats + 30 if chunked else 200, chunked, 0, lookahead, longest=150)
    blocks = math.ceil(room / block_size)

    def made():
        return Paged(blocks, block_size) if cache == "paged" else Contiguous(blocks, block_size, 150, cache)

    model = Kinked(37, 0.0024)
    fast, engine = drive(Engine, batcher_of(kind, order), model, limits, made(), load)
    exact, oracle = drive(ExactEngine, batcher_of(kind, order), model, limits, made(), load)
    same(fast["requests"], exact["requests"])
    assert engine.preemptions == oracle.preemptions
    assert cache == "paged" or engine.preemptions == 0
    assert engine.kv.peak == oracle.kv.peak
    assert engine.kv.free == oracle.kv.free == blocks
    for column in ("decoders", "paused"):
        busy, plain = fast["stretches"], exact["stretches"]
        assert (busy["steps"] * busy[column]).sum() == plain[column].sum()
    # Decoders and those that pause, over time, are the requests between their first and last tokens.
    rows, steps = fast["requests"], fast["stretches"]
    sojourn = (rows["last_token"] - rows["first_token"]).sum() - sum(fast["stalls"]["end"] - fast["stalls"]["start"])
    np.testing.assert_allclose(sojourn, ((steps["decoders"] + steps["paused"]) * steps["seconds"]).sum(), rtol=1e-9, atol=1e-9)
    assert Counter(rows["output_tokens"].tolist()) == Counter(output for _, _, output in load)
