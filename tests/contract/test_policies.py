"""Every router, admission and batcher in the registry keeps its contract. Dropping in a file subjects it to these."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from sim.core.registry import ADMISSIONS, BATCHERS, ORDERS, ROUTERS
from sim.core.request import Request
from sim.core.rng import Draws, stream
from sim.policy.batch.base import Limits
from sim.policy.kv.paged import Paged
from sim.spec.engine import EngineOptions

OPTIONS = {
    "max_queue": {"limit": 3}, "token_bucket": {"rate": 2.0, "burst": 5.0}, "spill_over": {"threshold": 3},
    "shed": {"limits": [{"priority": 0, "queue": 2, "kv": 0.9}, {"priority": 1, "queue": 8}]},
}  # fmt: skip


@dataclass
class Seen:
    """A replica as a router sees it."""

    index: int
    in_flight: int = 0
    queued: int = 0
    weight: float = 1.0
    room: int = 4800
    block_size: int = 16
    away: float = 0.0
    held: int = 0

    @property
    def kv_used(self):
        return min(self.in_flight * 10 / self.room, 1.0)

    def distance(self, request):
        return self.away

    def cached(self, request):
        return self.held


def make(family, kind):
    options, problems = family.check({"kind": kind, **OPTIONS.get(kind, {})})
    assert not problems
    policy = family.make(options)
    if hasattr(policy, "seed"):
        policy.seed(Draws(stream(7, kind)))
    return policy


def picks(kind, n=4, count=200, session=lambda i: i % 11):
    router, views = make(ROUTERS, kind), [Seen(i) for i in range(n)]
    chosen = []
    for i in range(count):
        pick = router.pick(Request(i, float(i), 10, 10, 0, session(i)), views)
        views[pick].in_flight += 1 + i % 3
        chosen.append(pick)
    return chosen


@pytest.mark.parametrize("kind", ROUTERS.names())
class TestRouters:
    def test_picks_one_of_the_views(self, kind):
        assert set(picks(kind)) <= {0, 1, 2, 3}

    def test_is_deterministic(self, kind):
        assert picks(kind) == picks(kind)

    def test_uses_every_replica(self, kind):
        assert set(picks(kind)) == {0, 1, 2, 3}

    def test_knows_replicas_by_index_not_by_place(self, kind):
        router = make(ROUTERS, kind)
        views = [Seen(5), Seen(9)]
        assert {router.pick(Request(i, 0.0, 1, 1, 0, i), views) for i in range(20)} <= {5, 9}

    def test_works_with_one_replica(self, kind):
        assert set(picks(kind, n=1, count=5)) == {0}


def test_round_robin_takes_turns():
    assert picks("round_robin", count=6) == [0, 1, 2, 3, 0, 1]


def test_least_loaded_takes_the_least():
    router = make(ROUTERS, "least_loaded")
    assert router.pick(Request(0, 0.0, 1, 1), [Seen(0, 4), Seen(1, 2), Seen(2, 2)]) == 1


def test_power_of_two_balances_better_than_random():
    """The longest queue of n balls in n bins: log log n against log n / log log n."""
    def most(kind):
        router, views = make(ROUTERS, kind), [Seen(i) for i in range(500)]
        for i in range(500):
            views[router.pick(Request(i, 0.0, 1, 1), views)].in_flight += 1
        return max(view.in_flight for view in views)

    assert most("power_of_two") <= 3 < 5 <= most("random")


def test_session_affinity_is_sticky_and_moves_little():
    router = make(ROUTERS, "session_affinity")
    four, three = [Seen(i) for i in range(4)], [Seen(i) for i in range(3)]
    homes = {s: router.pick(Request(0, 0.0, 1, 1, 0, s), four) for s in range(1000)}
    assert homes == {s: router.pick(Request(1, 9.0, 1, 1, 0, s), four) for s in range(1000)}
    moved = [s for s, home in homes.items() if router.pick(Request(2, 0.0, 1, 1, 0, s), three) != home]
    assert all(homes[s] == 3 for s in moved)
    assert 180 < sum(home == 3 for home in homes.values()) < 320


@pytest.mark.parametrize("kind", ADMISSIONS.names())
class TestAdmissions:
    def test_admits_somebody_and_is_deterministic(self, kind):
        def answers():
            policy, views = make(ADMISSIONS, kind), [Seen(0, 0, 0), Seen(1, 0, 0)]
            return [policy.admit(Request(i, i * 0.1, 1, 1), views, i * 0.1) for i in range(50)]

        assert answers() == answers()
        assert answers()[0] is True


def test_max_queue_turns_away_when_all_queues_are_full():
    policy = make(ADMISSIONS, "max_queue")
    assert policy.admit(Request(0, 0.0, 1, 1), [Seen(0, 9, 3), Seen(1, 9, 2)], 0.0)
    assert not policy.admit(Request(0, 0.0, 1, 1), [Seen(0, 9, 3), Seen(1, 9, 3)], 0.0)


def test_token_bucket_lets_the_burst_and_then_the_rate_through():
    policy = make(ADMISSIONS, "token_bucket")
    at_once = [policy.admit(Request(i, 0.0, 1, 1), [Seen(0)], 0.0) for i in range(8)]
    assert at_once == [True] * 5 + [False] * 3
    later = [policy.admit(Request(i, 0.1 * i, 1, 1), [Seen(0)], 0.1 * i) for i in range(1, 101)]
    assert sum(later) == 20


@dataclass
class State:
    """An engine as a batcher reads it."""

    waiting: deque
    prefilling: list
    running: dict
    decoders: int = 0
    admit: bool = True
    crossing: int = 0
    ready: list = field(default_factory=list)

    def next_blocks(self) -> int:
        return self.crossing


@pytest.mark.parametrize("kind", BATCHERS.names())
class TestBatchers:
    limits = Limits(4, 100, True, 0, longest=100)

    def plan(self, kind, state, free=100, limits=None):
        """The plan, and the blocks it took."""
        kv = Paged(free, 16)
        before = (len(state.waiting), len(state.running), list(state.prefilling))
        plan = make(BATCHERS, kind).plan(state, kv, limits or self.limits, 0.0)
        assert before == (len(state.waiting), len(state.running), list(state.prefilling)), "the engine carries out what is decided"
        assert not (plan.preempt and kv.taken), "who preempts takes nothing"
        return plan, kv.taken

    def test_says_what_engines_and_scenarios_ask(self, kind):
        batcher = make(BATCHERS, kind)
        assert isinstance(batcher.overtakes, bool)
        assert isinstance(batcher.pads, bool)
        assert not set(batcher.refuses) & set(batcher.needs)
        assert set(batcher.refuses) | set(batcher.needs) <= set(EngineOptions.model_fields) | {"role"}
        assert batcher.order.queue is not None
        assert len(batcher.queue()) == 0

    def test_empty_state_gives_an_empty_plan(self, kind):
        plan, taken = self.plan(kind, State(deque(), [], {}))
        assert not plan.chunks
        assert not plan.preempt
        assert not taken

    def test_stays_within_budget_and_seats(self, kind):
        waiting = deque(Request(i, 0.0, 30, 5) for i in range(9))
        plan, _ = self.plan(kind, State(waiting, [], {}, decoders=0))
        assert sum(tokens for _, tokens in plan.chunks) <= 100
        assert 1 <= len(plan.chunks) <= 4
        assert all(tokens >= 1 for _, tokens in plan.chunks)

    def test_takes_the_blocks_of_its_chunks_and_no_more_than_are_free(self, kind):
        waiting = deque(Request(i, 0.0, 30, 5) for i in range(9))
        plan, taken = self.plan(kind, State(waiting, [], {}), free=3)
        assert taken == sum(-(-tokens // 16) for _, tokens in plan.chunks) <= 3
        assert plan.chunks

    def test_preempts_when_the_running_do_not_fit(self, kind):
        if kind == "static":
            pytest.skip("finds room for a whole batch before it starts")
        running = {i: Request(i, 0.0, 30, 5) for i in range(1, 4)}
        plan, _ = self.plan(kind, State(deque(), [], running, decoders=3, crossing=2), free=1)
        assert plan.preempt
        assert not plan.chunks

    def test_a_step_that_preempted_admits_nobody(self, kind):
        running = {1: Request(1, 0.0, 30, 5)}
        plan, _ = self.plan(kind, State(deque([Request(2, 0.0, 30, 5)]), [], running, decoders=1, admit=False))
        assert plan == ([], [], True)


@pytest.mark.parametrize("kind", ORDERS.names())
class TestOrders:
    def requests(self):
        made = [Request(i, i * 0.25, 10 + 7 * i % 30, 5 + 11 * i % 40, i % 3, i % 4 - 1) for i in range(20)]
        for request in made:
            request.priority = request.id * 5 % 3
        return made

    def filled(self, kind):
        order, requests = make(ORDERS, kind), self.requests()
        waiting = order.queue()
        for request in requests:
            waiting.append(request)
        order.at(0)
        return order, waiting, requests

    def test_everybody_comes_out_once(self, kind):
        _, waiting, requests = self.filled(kind)
        assert len(waiting) == 20
        out = [waiting.popleft() for _ in requests]
        assert len(waiting) == 0
        assert sorted(r.id for r in out) == list(range(20))

    def test_iterating_shows_the_order_of_admission_and_changes_nothing(self, kind):
        order, waiting, _ = self.filled(kind)
        seen = list(waiting)
        assert len(waiting) == 20
        for request in seen:
            assert waiting[0] is request
            assert waiting.popleft() is request
            order.admitted(request)

    def test_removes_anybody(self, kind):
        _, waiting, requests = self.filled(kind)
        for request in requests[3::4]:
            waiting.remove(request)
        left = [waiting.popleft().id for _ in range(len(waiting))]
        assert sorted(left) == [i for i in range(20) if i % 4 != 3]

    def test_one_who_was_preempted_is_queued_again(self, kind):
        order, waiting, _ = self.filled(kind)
        first = waiting.popleft()
        order.admitted(first)
        order.left(first, 0)
        waiting.appendleft(first)
        assert len(waiting) == 20
        assert first in list(waiting)

    def test_the_victim_runs(self, kind):
        order, waiting, _ = self.filled(kind)
        running = {place: waiting.popleft() for place in range(1, 8)}
        assert order.victim(running) in running.values()

    def test_only_an_order_that_keeps_to_arrivals_never_overtakes(self, kind):
        _, waiting, requests = self.filled(kind)
        assert make(ORDERS, kind).overtakes or list(waiting) == requests


def test_vllm_v1_order_of_a_step():
    """Budget 100: two decoders take 2, the prompt under way its last 50, the head of the queue what is left, and nobody after it."""
    under_way = Request(1, 0.0, 80, 5)
    under_way.computed, under_way.order = 30, 3
    head, second = Request(2, 0.0, 60, 5), Request(3, 0.0, 10, 5)
    state = State(deque([head, second]), [under_way], {1: Request(8, 0, 1, 1), 2: Request(9, 0, 1, 1), 3: under_way}, decoders=2)
    plan = make(BATCHERS, "vllm_v1").plan(state, Paged(100, 16), Limits(8, 100, True, 0), 0.0)
    assert plan.chunks == [(under_way, 50), (head, 48)]


def test_vllm_v1_without_chunked_prefill_waits_for_room():
    head, second = Request(2, 0.0, 60, 5), Request(3, 0.0, 10, 5)
    state = State(deque([head, second]), [], {}, decoders=50)
    plan = make(BATCHERS, "vllm_v1").plan(state, Paged(100, 16), Limits(80, 100, False, 0), 0.0)
    assert plan.chunks == []


def test_vllm_v1_preempts_the_newest():
    running = {i: Request(i, 0.0, 30, 5) for i in (4, 7, 9)}
    plan = make(BATCHERS, "vllm_v1").plan(State(deque(), [], running, decoders=3, crossing=3), Paged(2, 16), Limits(8, 100, True, 0), 0.0)
    assert plan.preempt == [running[9]]
