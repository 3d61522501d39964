"""Engines that are paused, forget what they cached and go on: the fast one equals the plain one, nothing is left behind."""
from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batchers_equal_oracle import batcher_of
from test_cancel import DRAFT, PATIENCE
from test_services_equal_oracle import Priced
from test_stretch_equals_oracle import Kinked, same

from sim.core.content import Content
from sim.core.registry import BATCHERS, ORDERS
from sim.core.request import COMPLETED, FAILED, Request
from sim.core.tables import tables
from sim.physics.speculation import Acceptance
from sim.policy.batch.base import Limits
from sim.policy.kv.contiguous import Contiguous
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from sim.spec.lora import Lora
from sim.world.adapters import Adapters
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from sim.world.timer import Deadline


class Run:
    """Requests of `load` (gap, prompt, output, seconds until it is called off or None) through one engine that is paused now and then:
    `pauses` are (gap, seconds, what is forgotten). `seen` is what `progress` said, `stood` what was seen at each end of a pause.
    """

    def __init__(self, kind, batcher, limits, cache, load, pauses, law=None):
        self.env, self.out, self.requests, self.seen, self.stood = Clock(), tables(), [], [], []
        # Drafts make contexts grow by fractions, which this model of steps does not know: then no step looks at them.
        model, record = Kinked(37 if law is None else 0, 0.0024), (self.out["stretches"], self.out["stalls"], self.ended)
        self.engine = kind(self.env, 0, model, cache, (batcher, limits, law), record)
        if limits.max_loras:
            lora = Lora(max_loras=limits.max_loras, max_cpu_loras=limits.max_loras + 1)
            self.engine.adapters = Adapters(lora, Priced(), 1, (0, self.out["adapters"]))
        self.env.process(self.arrivals(load, limits.max_loras))
        self.env.process(self.trainer(pauses))
        self.env.run()

    def ended(self, request):
        failed = request.last != request.last
        self.out["requests"].append((
            request.id, request.workload, request.session, 0, request.arrival, request.admitted, request.first, request.last,
            request.prompt, request.generated, request.output, request.preemptions, FAILED if failed else COMPLETED, 0, request.cached,
            0, 0.0,
        ))  # fmt: skip
        if failed:
            self.out["losses"].append((request.id, 0, self.env.now, request.stalled, request.computed))

    def cancel(self, request):
        if request.last != request.last:
            request.reason = "timeout"
            self.engine.cancel(request)

    def arrivals(self, load, slots):
        for number, (gap, prompt, output, patience) in enumerate(load):
            if gap:
                yield self.env.timeout(gap)
            request = Request(number, self.env.now, prompt, output, number * 7 % 3, number * 5 % 4 - 1)
            request.priority = number * 11 % 3
            if slots:
                request.adapter = number * 13 % 5 - 1
            if number % 2:
                request.content, request.reply = Content((number % 3 + 1,), (min(40, prompt),), 40), number + 100
            self.requests.append(request)
            self.engine.submit(request)
            if patience is not None:
                Deadline(self.env, self.env.now + patience, request, self.cancel)
        yield self.env.timeout(0)

    def wait(self, seconds):
        done = self.env.event()
        Deadline(self.env, self.env.now + seconds, None, done.succeed)
        return done

    def trainer(self, pauses):
        engine = self.engine
        for gap, seconds, what in pauses:
            yield self.wait(gap)
            self.look()
            asked, stopped = self.env.now, self.env.event()
            engine.pause(stopped.succeed)
            yield stopped
            before = self.env.now
            yield self.wait(seconds / 2)
            self.look()
            forgotten = engine.forget(what == "all") if what else 0
            if what == "all":
                assert engine.kv.free == engine.kv.blocks
                assert not engine.running
            if what and isinstance(engine.kv, Radix):
                held = engine.kv.blocks - engine.kv.free
                assert held or not engine.kv._root.children
            yield self.wait(seconds / 2)
            self.look()
            worked = engine.worked
            self.stood.append((asked, before, self.env.now, engine.decoders, engine.queued, engine.used, forgotten, worked))
            engine.resume()

    def look(self):
        self.seen.append(tuple(self.engine.progress(request) for request in self.requests))


def agree(fast: Run, exact: Run) -> None:
    """Both did the same, and have nothing left."""
    same(fast.out["requests"], exact.out["requests"])
    assert fast.seen == exact.seen
    np.testing.assert_allclose(fast.stood, exact.stood, rtol=1e-9, atol=1e-9)
    a, b = (run.out["losses"]["request"].argsort() for run in (fast, exact))
    for column in ("request", "computed"):
        assert np.array_equal(fast.out["losses"][column][a], exact.out["losses"][column][b]), column
    for column in ("time", "stalled"):
        np.testing.assert_allclose(fast.out["losses"][column][a], exact.out["losses"][column][b], rtol=1e-9)
    one, two = fast.engine, exact.engine
    assert (one.preemptions, one.kv.peak, one.kv.taken, one.kv.returned) == (two.preemptions, two.kv.peak, two.kv.taken, two.kv.returned)
    for column in ("decoders", "paused", "prefill_tokens", "prefills"):
        busy, plain = fast.out["stretches"], exact.out["stretches"]
        assert (busy["steps"] * busy[column]).sum() == plain[column].sum()
    np.testing.assert_allclose(fast.out["stretches"]["seconds"].sum(), exact.out["stretches"]["seconds"].sum(), rtol=1e-9)
    for run in (fast, exact):
        engine = run.engine
        assert not engine.settle()
        assert engine.in_flight == engine.queued == 0
        assert engine.kv.free == engine.kv.blocks
        stands_for_all_time(run)


def stands_for_all_time(run: Run) -> None:
    """No step overlaps a pause, and seconds between first and last tokens are those of decoders, of stalls, and of pauses."""
    rows, steps, stalls, losses = (run.out[name] for name in ("requests", "stretches", "stalls", "losses"))
    pauses = np.array([(before, after, decoders) for _, before, after, decoders, *_ in run.stood]).reshape(-1, 3)
    end = steps["start"] + steps["seconds"]
    for before, after, _ in pauses:
        assert not ((steps["start"] < after - 1e-9) & (end > before + 1e-9)).any()
    last = rows["last_token"].copy()
    left = {number: min(time, stalled) if stalled == stalled else time
            for number, time, stalled in zip(losses["request"], losses["time"], losses["stalled"], strict=True)}  # fmt: skip
    for row in np.flatnonzero(np.isnan(last)):
        last[row] = left[rows["request"][row]]
    decoded = np.nansum(last - rows["first_token"])
    stood = ((pauses[:, 1] - pauses[:, 0]) * pauses[:, 2]).sum()
    there = ((steps["decoders"] + steps["paused"]) * steps["seconds"]).sum() + (stalls["end"] - stalls["start"]).sum() + stood
    np.testing.assert_allclose(decoded, there, rtol=1e-7, atol=1e-6)


# Denser than elsewhere, so that somebody is there when a pause comes.
GAP = st.one_of(st.just(0.0), st.floats(1e-4, 0.05).map(lambda gap: gap * math.sqrt(2) / 1.4))
REQUEST = st.tuples(GAP, st.integers(1, 90), st.integers(1, 60), st.one_of(st.none(), PATIENCE))
PAUSE = st.tuples(
    st.floats(1e-4, 0.1).map(lambda gap: gap * math.sqrt(5) / 2.2), st.floats(1e-6, 0.2), st.sampled_from(["", "prefix", "all", "all"])
)


@settings(max_examples=120, deadline=None)
@given(
    load=st.lists(REQUEST, min_size=3, max_size=30),
    pauses=st.lists(PAUSE, min_size=1, max_size=5),
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
def test_random_engines(load, pauses, kind, order, cache, room, block_size, seats, lookahead, drafts, slots):
    static, chunked = kind == "static", kind in ("vllm_v1", "sarathi")
    tokens = 4 if drafts else 1
    slots = 0 if static else slots
    limits = Limits(seats, seats * tokens + 30 if chunked else 200, chunked, 0, lookahead, tokens, 150, slots)
    blocks = math.ceil(room / block_size)
    law = Acceptance(DRAFT, 5) if drafts else None
    if static:
        pauses = [(gap, seconds, "") for gap, seconds, _ in pauses]

    def made():
        if cache == "paged" or static:
            return Paged(blocks, block_size)
        return Radix(blocks, block_size) if cache == "radix" else Contiguous(blocks, block_size, 150, cache)

    agree(*(Run(one, batcher_of(kind, order), limits, made(), load, pauses, law) for one in (Engine, ExactEngine)))
