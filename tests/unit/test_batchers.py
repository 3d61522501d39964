"""Each batcher on queues small enough to plan by hand, and the options it goes with."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from scenarios import good, problems_of, written

from sim.core.registry import BATCHERS
from sim.core.request import Request
from sim.policy.batch.base import Limits
from sim.policy.batch.orca import Orca
from sim.policy.batch.prefill_first import PrefillFirst
from sim.policy.batch.sarathi import Sarathi
from sim.policy.batch.static import Static
from sim.policy.batch.vllm_v1 import VllmV1
from sim.policy.kv.contiguous import Contiguous
from sim.policy.kv.paged import Paged
from sim.spec.load import dump, load

LIMITS = Limits(8, 100, False, 0, longest=100)


@dataclass
class State:
    waiting: deque
    prefilling: list = field(default_factory=list)
    running: dict = field(default_factory=dict)
    decoders: int = 0
    admit: bool = True
    crossing: int = 0
    ready: list = field(default_factory=list)

    def next_blocks(self) -> int:
        return self.crossing


def request(number, prompt, output=5, order=-1):
    made = Request(number, float(number), prompt, output)
    made.order = order
    return made


def decoding(count):
    return {place: request(100 + place, 10, 50, place) for place in range(1, count + 1)}


def lengths(plan):
    return [(r.id, tokens) for r, tokens in plan.chunks]


class TestPrefillFirst:
    def test_prompts_alone_while_somebody_fits(self):
        state = State(deque(request(i, 40) for i in range(4)), running=decoding(3), decoders=3)
        plan = PrefillFirst().plan(state, Paged(100, 16), LIMITS, 0.0)
        assert lengths(plan) == [(0, 40), (1, 40)]
        assert not plan.decode

    def test_decoders_alone_when_nobody_does(self):
        for waiting, kv in ((deque(), Paged(100, 16)), (deque([request(0, 40)]), Paged(2, 16))):
            plan = PrefillFirst().plan(State(waiting, running=decoding(3), decoders=3), kv, LIMITS, 0.0)
            assert plan == ([], [], True)

    def test_the_watermark_holds_but_in_an_empty_engine(self):
        batcher = PrefillFirst(watermark=0.5)
        busy = State(deque([request(0, 96)]), running=decoding(1), decoders=1)
        assert not batcher.plan(busy, Paged(10, 16), LIMITS, 0.0).chunks
        assert lengths(batcher.plan(State(deque([request(0, 96)])), Paged(6, 16), LIMITS, 0.0)) == [(0, 96)]

    def test_leaves_room_for_the_next_tokens_of_all(self):
        state = State(deque([request(0, 32)]), running=decoding(3), decoders=3, crossing=2)
        assert not PrefillFirst(watermark=0.0).plan(state, Paged(3, 16), LIMITS, 0.0).chunks
        assert PrefillFirst(watermark=0.0).plan(state, Paged(4, 16), LIMITS, 0.0).chunks


class TestOrca:
    def test_whole_prompts_beside_decoders(self):
        state = State(deque([request(0, 60), request(1, 30), request(2, 30)]), running=decoding(5), decoders=5)
        plan = Orca().plan(state, Paged(100, 16), LIMITS, 0.0)
        assert lengths(plan) == [(0, 60), (1, 30)]
        assert plan.decode

    def test_the_batch_is_bounded_by_requests(self):
        state = State(deque(request(i, 1) for i in range(9)), running=decoding(5), decoders=5)
        assert len(Orca().plan(state, Paged(100, 16), LIMITS, 0.0).chunks) == 3

    def test_reserving_the_maximum_admits_fewer(self):
        """Of 30 blocks, two ranges of 7 for 100 tokens are left beside two; a paged cache has room for all three prompts."""
        kv = Contiguous(30, 16, 100)
        for held in decoding(2).values():
            kv.grow(held, 10)
        waiting = deque(request(i, 20) for i in range(3))
        assert len(Orca().plan(State(waiting, running=decoding(2), decoders=2), kv, LIMITS, 0.0).chunks) == 2
        assert len(Orca().plan(State(waiting, running=decoding(2), decoders=2), Paged(30, 16), LIMITS, 0.0).chunks) == 3


class TestSarathi:
    def test_a_chunk_beside_every_decoder(self):
        under_way = request(9, 50, order=3)
        under_way.computed = 30
        state = State(deque([request(0, 60)]), [under_way], {**decoding(2), 3: under_way}, decoders=2)
        plan = Sarathi(chunk_size=32).plan(state, Paged(100, 16), Limits(8, 100, True, 0), 0.0)
        assert lengths(plan) == [(9, 20), (0, 12)]
        assert plan.decode

    def test_decoders_go_before_the_chunk(self):
        state = State(deque([request(0, 60)]), running=decoding(90), decoders=90)
        assert lengths(Sarathi(chunk_size=32).plan(state, Paged(100, 16), Limits(99, 100, True, 0), 0.0)) == [(0, 10)]

    def test_is_vllm_v1_when_the_chunk_is_the_budget(self):
        limits = Limits(8, 100, True, 0)

        def planned(batcher):
            waiting = deque(request(i, 17 * i + 3) for i in range(7))
            return lengths(batcher.plan(State(waiting, running=decoding(2), decoders=2), Paged(100, 16), limits, 0.0))

        assert planned(Sarathi(chunk_size=100)) == planned(VllmV1())


class TestStatic:
    def test_pads_to_the_longest_and_remembers(self):
        waiting = deque([request(0, 10, 40), request(1, 30, 5), request(2, 20, 20)])
        plan = Static().plan(State(waiting), Paged(100, 16), LIMITS, 0.0)
        assert lengths(plan) == [(0, 30), (1, 30), (2, 30)]
        assert [(r.prompt, r.output, r.asked) for r in waiting] == [(30, 40, (10, 40)), (30, 40, (30, 5)), (30, 40, (20, 20))]

    def test_admits_nobody_while_a_batch_runs(self):
        state = State(deque([request(0, 10)]), running=decoding(1), decoders=1)
        assert Static().plan(state, Paged(100, 16), LIMITS, 0.0) == ([], [], True)

    @pytest.mark.parametrize(("limits", "free", "members"), [
        (Limits(2, 100, False, 0, longest=100), 100, 2),  # seats
        (Limits(8, 45, False, 0, longest=100), 100, 3),  # three prompts of 10, and one of 20 would make four of 20
        (Limits(8, 100, False, 0, longest=100), 15, 3),  # 4 blocks each
        (Limits(8, 100, False, 0, longest=55), 100, 3),  # 20 + 40 tokens
    ])  # fmt: skip
    def test_a_batch_has_room_to_its_end(self, limits, free, members):
        waiting = deque([request(0, 10, 40), request(1, 10, 5), request(2, 10, 5), request(3, 20, 5)])
        plan = Static().plan(State(waiting), Paged(free, 16), limits, 0.0)
        assert [tokens for _, tokens in plan.chunks] == [10] * members
        assert [r.asked is None for r in waiting] == [place >= members for place in range(4)]

    def test_takes_the_first_whatever_its_size(self):
        assert lengths(Static().plan(State(deque([request(0, 90, 10)])), Paged(7, 16), LIMITS, 0.0)) == [(0, 90)]

    @pytest.mark.parametrize(("reservation", "members"), [("max", 2), ("pow2", 4), ("oracle", 5)])
    def test_contiguous_ranges_hold_the_padded(self, reservation, members):
        """20 blocks: 2 x 7 for 100 tokens, 4 x 5 for 10 + 64, and all five of 4 for 10 + 40."""
        waiting = deque(request(i, 10, 40) for i in range(5))
        kv = Contiguous(20, 16, 100, reservation)
        assert len(Static().plan(State(waiting), kv, LIMITS, 0.0).chunks) == members


@pytest.mark.parametrize("kind", ["orca", "prefill_first", "sarathi", "vllm_v1"])
def test_the_order_says_who_is_next_and_who_gives_way(kind):
    options, problems = BATCHERS.check({"kind": kind, "order": {"kind": "priority"}})
    assert not problems
    batcher = BATCHERS.make(options)
    assert batcher.overtakes
    assert not BATCHERS.make({"kind": kind}).overtakes
    low, high = request(0, 50), request(1, 50)
    high.priority = 1
    waiting = batcher.queue()
    waiting.append(low)
    waiting.append(high)
    limits = LIMITS._replace(enable_chunked_prefill=True)
    assert batcher.plan(State(waiting), Paged(100, 16), limits, 0.0).chunks[0][0] is high
    running = {1: low, 2: high}
    assert batcher.plan(State(deque(), running=running, decoders=2, crossing=2), Paged(1, 16), limits, 0.0).preempt == [low]


ENGINE = "        max_num_seqs: 128\n"


@pytest.mark.parametrize(("lines", "fragment"), [
    ("batcher: {kind: static}\n        enable_chunked_prefill: true", "batcher static has no use for it: it computes every prompt whole"),
    ("batcher: {kind: static}\n        enable_prefix_caching: true", "it pads prompts"),
    ("batcher: {kind: orca}\n        long_prefill_token_threshold: 9", "long_prefill_token_threshold (9) is set"),
    ("batcher: {kind: sarathi}\n        enable_chunked_prefill: false", "batcher sarathi needs it"),
    ("batcher: {kind: sarathi, chunk_size: 0}", "a value of at least 1"),
    ("batcher: {kind: vllm_v1, order: {kind: sjf}}", "unknown order kind 'sjf'"),
    ("batcher: {kind: vllm_v1, order: {kind: slo, ttft: 0s}}", "a value above 0"),
    ("batcher: {kind: static, order: {kind: fcfs}}", "unknown key"),
    ("paged: false\n        enable_prefix_caching: true", "a contiguous cache shares no blocks"),
    ("paged: false\n        preemption_mode: swap", "a contiguous cache preempts nobody"),
    ("kv_reservation: pow2", "set paged: false with it"),
])  # fmt: skip
def test_options_that_do_not_go_together(tmp_path, lines, fragment):
    (problem,) = problems_of(written(tmp_path, good(ENGINE, f"{ENGINE}        {lines}\n")))
    assert fragment in problem.message
    assert problem.line


@pytest.mark.parametrize("kind", BATCHERS.names())
def test_silence_is_filled_in_and_survives_a_round_trip(tmp_path, kind):
    lines = f"{ENGINE}        batcher: {{kind: {kind}}}\n        paged: false\n"
    scenario = load(written(tmp_path, good(ENGINE, lines)), lookup=False)
    engine = scenario.cluster.pools[0].engine
    assert not engine.enable_prefix_caching
    assert engine.kv_reservation == "max"
    assert engine.enable_chunked_prefill is (kind in ("sarathi", "vllm_v1"))
    assert load(written(tmp_path, dump(scenario), "again.yaml"), lookup=False) == scenario
