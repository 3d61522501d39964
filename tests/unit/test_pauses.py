"""One engine that somebody pauses: how long that takes, what recomputing costs, and who is gone."""
from __future__ import annotations

import math

import numpy as np
import pytest

from sim.core.content import Content
from sim.core.request import Request
from sim.core.tables import tables
from sim.physics.base import Work
from sim.policy.batch.base import Limits
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.paged import Paged
from sim.policy.kv.radix import Radix
from sim.world.clock import Clock
from sim.world.engine import Engine
from sim.world.exact import ExactEngine
from tests.invariants.test_stretch_equals_oracle import Kinked

MODEL = Kinked(10_000, 0.0)
BOTH = pytest.mark.parametrize("kind", [Engine, ExactEngine])


class Stopped:
    """One engine with requests of these prompts, decoding, that is paused in the middle of a step."""

    def __init__(self, kind, prompts, cache, budget=10_000, contents=None, at=0.2):
        self.env, self.out, self.left = Clock(), tables(), []
        limits = Limits(len(prompts) or 1, budget, True, 0)
        self.engine = kind(self.env, 0, MODEL, cache, (VllmV1(), limits, None), (self.out["stretches"], self.out["stalls"], self.ended))
        self.requests = [Request(number, 0.0, prompt, 500) for number, prompt in enumerate(prompts)]
        for number, request in enumerate(self.requests):
            if contents:
                request.content, request.reply = contents[number], 1000 + number
            self.engine.submit(request)
        self.env.run(at)
        self.asked, self.stopped = self.env.now, math.nan
        self.engine.pause(self.stop)
        self.env.run(at + 1.0)

    def stop(self):
        self.stopped = self.env.now

    def ended(self, request):
        self.left.append(request)

    def first_step(self, then):
        """The first stretch that begins after a time: when, how long, tokens of its prompts."""
        table = self.out["stretches"]
        row = int(np.flatnonzero(table["start"] >= then)[0])
        return table["start"][row], table["seconds"][row] / table["steps"][row], int(table["prefill_tokens"][row])


@BOTH
def test_a_pause_takes_what_is_left_of_the_step_and_keeps_everything(kind):
    run = Stopped(kind, [100, 200, 300], Paged(500, 16))
    before = [run.engine.progress(request) for request in run.requests]
    step = MODEL.step(Work((), 3, sum(request.prompt + n for request, n in zip(run.requests, before, strict=True)))).seconds
    assert run.asked < run.stopped <= run.asked + step
    assert (run.engine.paused, run.engine.decoders, len(set(before))) == (True, 3, 1)
    late = Request(9, run.env.now, 50, 5)
    run.engine.submit(late)
    run.env.run(2.0)
    assert [run.engine.progress(request) for request in run.requests] == before
    assert late.admitted != late.admitted
    used = run.engine.used
    run.engine.resume()
    run.env.run()
    assert used == sum(math.ceil((prompt + before[0] - 1) / 16) for prompt in (100, 200, 300))
    assert run.out["stretches"]["prefill_tokens"].sum() == 600 + 50 == sum(request.prompt for request in run.left)
    assert run.engine.kv.free == run.engine.kv.blocks


@BOTH
def test_an_idle_engine_stops_at_once_and_goes_on_with_who_came_meanwhile(kind):
    run = Stopped(kind, [], Paged(500, 16))
    assert run.stopped == run.asked
    run.engine.submit(late := Request(0, run.env.now, 50, 5))
    run.env.run(3.0)
    run.engine.resume()
    run.env.run()
    assert late.admitted == pytest.approx(3.0, abs=1e-8)
    assert run.engine.worked == pytest.approx(float(run.out["stretches"]["seconds"].sum()), abs=1e-8)


@BOTH
def test_recomputing_prefills_every_context_again_in_one_step_where_it_fits(kind):
    run = Stopped(kind, [100, 200, 300], Paged(500, 16))
    made = run.engine.progress(run.requests[0])
    contexts = [prompt + made - 1 for prompt in (100, 200, 300)]
    assert run.engine.forget(True) == sum(contexts)
    assert run.engine.kv.free == run.engine.kv.blocks
    run.engine.resume()
    resumed = run.env.now
    run.env.run()
    # The newest token, whose keys and values were not computed yet, comes with them.
    chunks = tuple((context + 1, 0) for context in contexts)
    _, seconds, tokens = run.first_step(resumed)
    assert tokens == sum(contexts) + 3
    assert seconds == pytest.approx(MODEL.step(Work(chunks, 0, 0)).seconds, rel=1e-12)
    stalls = run.out["stalls"]
    np.testing.assert_allclose(stalls["start"], run.stopped, rtol=1e-9)
    np.testing.assert_allclose(stalls["end"], resumed + seconds, rtol=1e-9)
    assert [request.preemptions for request in run.left] == [0, 0, 0]
    assert run.engine.preemptions == 0


@BOTH
def test_recomputing_in_chunks_competes_with_those_that_decode_again(kind):
    run = Stopped(kind, [100, 200, 300], Paged(500, 16), budget=64)
    contexts = [request.prompt + run.engine.progress(request) for request in run.requests]
    run.engine.forget(True)
    run.engine.resume()
    resumed = run.env.now
    run.env.run()
    table = run.out["stretches"]
    mine = (table["start"] >= resumed) & (table["prefill_tokens"] > 0)
    # By hand: 64 tokens a step, less one for each that decodes, in order of admission.
    expected, left, done = [], list(contexts), [0, 0, 0]
    held, decoders = 0, 0
    while any(left):
        budget, chunks = 64 - decoders, []
        for number in range(3):
            tokens = min(left[number], budget)
            if tokens:
                chunks.append((tokens, done[number], number))
                budget -= tokens
        expected.append(MODEL.step(Work(tuple(chunk[:2] for chunk in chunks), decoders, held)).seconds)
        held += decoders
        for tokens, _, number in chunks:
            left[number] -= tokens
            done[number] += tokens
            if not left[number]:
                held, decoders = held + contexts[number], decoders + 1
    assert table["prefill_tokens"][mine].sum() == sum(contexts)
    np.testing.assert_allclose(table["seconds"][mine], expected, rtol=1e-9)


@BOTH
def test_a_group_computes_its_prompt_once_again(kind):
    contents = [Content((7,), (160,), 160)] * 4
    run = Stopped(kind, [160] * 4, Radix(500, 16), contents=contents)
    made = run.engine.progress(run.requests[0])
    lost = run.engine.forget(True)
    assert lost == 4 * (160 + made - 1)
    assert not run.engine.kv._root.children
    run.engine.resume()
    resumed = run.env.now
    run.env.run()
    assert run.first_step(resumed)[2] == 4 * (160 + made) - 3 * 160


@BOTH
def test_what_runs_keeps_its_cache_when_only_the_rest_is_forgotten(kind):
    run = Stopped(kind, [160, 160], Radix(500, 16), contents=[Content((7,), (160,), 160), Content((8,), (160,), 160)])
    run.engine.cancel(run.requests[1])
    assert run.left == [run.requests[1]]
    known = run.engine.kv.holds(Content((8,), (160,), 160)), run.engine.kv.holds(Content((7,), (160,), 160))
    assert known == (160, 160)
    assert run.engine.forget(False) == 0
    known = run.engine.kv.holds(Content((8,), (160,), 160)), run.engine.kv.holds(Content((7,), (160,), 160))
    assert known == (0, 160)
    run.engine.resume()
    run.env.run()
    assert run.out["stretches"]["prefill_tokens"].sum() == 320
