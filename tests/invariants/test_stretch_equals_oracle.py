"""The fast engine equals the plain one: every request time to 1e-9, every preemption, every KV peak, over random loads on tight engines."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.content import Content
from sim.core.record import Table
from sim.core.request import COMPLETED, Request
from sim.core.tables import tables
from sim.physics.base import Cost, Work
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine

TIMES = ("arrival", "admitted", "first_token", "last_token")


class Kinked:
    """A step model with a sliding window (a kink in the tokens held) and a floor (a second kink): small numbers, easily crossed."""

    def __init__(self, window: int, floor: float):
        self.window, self.floor = window, floor

    def step(self, work: Work) -> Cost:
        tokens = work.decoders + sum(n for n, _ in work.chunks)
        seconds = 0.002 + 1.1e-5 * tokens + 3.1e-6 * min(work.held, self.window * work.decoders)
        seconds += sum(1e-7 * n * (before + (n + 1) / 2) for n, before in work.chunks)
        return Cost(max(seconds, self.floor), seconds, 0.0, 0.0, 0.0)

    def line(self, decoders: int, held: int) -> tuple[float, float, int]:
        full = self.window * decoders
        left = full - held
        seconds = 0.002 + 1.1e-5 * decoders + 3.1e-6 * min(held, full)
        slope, steps = (3.1e-6 * decoders, left // decoders + 1) if left > 0 else (0.0, 1 << 60)
        if seconds < self.floor:
            return self.floor, 0.0, min(steps, int((self.floor - seconds) / slope) + 1) if slope else steps
        return seconds, slope, steps

    def mixed(self, decoders, held, chunks):
        return self.step(Work(tuple((n, request.computed) for request, n in chunks), decoders, held)).seconds


def drive(kind, model, limits: Limits, kv, load, until=None, shared=0) -> tuple[dict[str, Table], object]:
    """Requests of `load` through one engine; with `shared`, so many tokens of a prompt are one of three common beginnings."""
    env, out = Clock(), tables()

    def ended(request: Request) -> None:
        out["requests"].append((
            request.id, 0, -1, 0, request.arrival, request.admitted, request.first, request.last, request.prompt, request.generated,
            request.output, request.preemptions, COMPLETED, 0, request.cached, 0, 0.0,
        ))  # fmt: skip

    engine = kind(env, 0, model, kv, (VllmV1(), limits, None), (out["stretches"], out["stalls"], ended))

    def arrivals():
        for number, (gap, prompt, output) in enumerate(load):
            if gap:
                yield env.timeout(gap)
            request = Request(number, env.now, prompt, output)
            if shared:
                request.content, request.reply = Content((number % 3 + 1,), (min(shared, prompt),), shared), -number - 100
            engine.submit(request)
        yield env.timeout(0)

    env.process(arrivals())
    env.run(until=until)
    for request in engine.settle():
        ended(request)
    return out, engine


def same(fast: Table, exact: Table) -> None:
    a, b = np.argsort(fast["request"]), np.argsort(exact["request"])
    assert np.array_equal(fast["request"][a], exact["request"][b])
    for column in ("output_tokens", "preemptions", "cached_tokens"):
        assert np.array_equal(fast[column][a], exact[column][b]), column
    for column in TIMES:
        np.testing.assert_allclose(fast[column][a], exact[column][b], rtol=1e-9, atol=1e-12, err_msg=column)


REQUEST = st.tuples(
    st.one_of(st.just(0.0), st.floats(1e-4, 0.3).map(lambda gap: gap * math.sqrt(2) / 1.4)), st.integers(1, 90), st.integers(1, 60)
)


@settings(max_examples=400, deadline=None)
@given(
    load=st.lists(REQUEST, min_size=1, max_size=40),
    block_size=st.sampled_from([1, 4, 16]),
    room=st.integers(150, 600),
    seats=st.integers(1, 12),
    budget=st.integers(0, 60),
    chunked=st.booleans(),
    longest=st.sampled_from([0, 7, 32]),
    window=st.sampled_from([5, 37, 10_000]),
    floor=st.sampled_from([0.0, 0.0024, 0.003]),
    horizon=st.one_of(st.none(), st.floats(0.01, 2.0)),
    lookahead=st.booleans(),
    shared=st.sampled_from([0, 0, 5, 40]),
    cache=st.sampled_from([Paged, Radix]),
)
def test_random_loads(load, block_size, room, seats, budget, chunked, longest, window, floor, horizon, lookahead, shared, cache):
    budget = seats + budget if chunked else max(seats, 200)
    limits = Limits(seats, budget, chunked, longest, lookahead)
    blocks = math.ceil(room / block_size)
    model = Kinked(window, floor)
    fast, fast_engine = drive(Engine, model, limits, cache(blocks, block_size), load, horizon, shared)
    exact, exact_engine = drive(ExactEngine, model, limits, cache(blocks, block_size), load, horizon, shared)
    same(fast["requests"], exact["requests"])
    assert fast_engine.preemptions == exact_engine.preemptions
    assert fast_engine.kv.peak == exact_engine.kv.peak
    assert fast_engine.kv.taken - fast_engine.kv.returned == blocks - fast_engine.kv.free
    if horizon is None:
        assert fast_engine.kv.free == blocks
        assert len(fast["stalls"]) == len(exact["stalls"])
        for column in ("start", "end"):
            np.testing.assert_allclose(fast["stalls"][column], exact["stalls"][column], rtol=1e-9)
        busy, plain = fast["stretches"], exact["stretches"]
        assert busy["steps"].sum() == plain["steps"].sum()
        assert (busy["steps"] * busy["decoders"]).sum() == plain["decoders"].sum()
        np.testing.assert_allclose(busy["seconds"].sum(), plain["seconds"].sum(), rtol=1e-9)


def test_preemption_happens_in_these_loads():
    """The property above would be worth little if the cache never ran out: this load must preempt, in both engines alike."""
    load = [(0.0, 40, 60)] * 8
    limits = Limits(8, 64, True, 0)
    fast, engine = drive(Engine, Kinked(10_000, 0.0), limits, Paged(20, 16), load)
    exact, plain = drive(ExactEngine, Kinked(10_000, 0.0), limits, Paged(20, 16), load)
    assert engine.preemptions == plain.preemptions > 0
    same(fast["requests"], exact["requests"])
    assert len(fast["stalls"]) > 0


def test_lookahead_lets_newcomers_wait_one_step_more():
    """Two requests decode in steps of equal length; a third comes in the middle of one, and is first computed two steps on, not one."""
    step = Kinked(10_000, 0.01).step(Work((), 2, 20)).seconds
    load = [(0.0, 1, 50), (0.0, 1, 50), (0.25 + 0.4 * step, 1, 2)]
    waits = []
    for lookahead in (False, True):
        limits = Limits(8, 64, True, 0, lookahead)
        fast, _ = drive(Engine, Kinked(10_000, 0.01), limits, Paged(100, 16), load)
        exact, _ = drive(ExactEngine, Kinked(10_000, 0.01), limits, Paged(100, 16), load)
        same(fast["requests"], exact["requests"])
        table = fast["requests"]
        row = int(np.argmax(table["arrival"]))
        waits.append(float(table["admitted"][row] - table["arrival"][row]))
    assert waits[0] < step
    assert waits[1] == pytest.approx(waits[0] + step, rel=1e-6)
