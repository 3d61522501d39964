"""Orders on queues small enough to sort by hand, and fair share against the service it counts, the bound of its paper, and starvation."""
from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.request import Request
from sim.core.rng import Draws, stream
from sim.policy.order.fair_share import FairShare
from sim.policy.order.fcfs import Fcfs
from sim.policy.order.least_attained import LeastAttained
from sim.policy.order.priority import Priority
from sim.policy.order.shortest_job import ShortestJob
from sim.policy.order.slo import Slo


def request(number, arrival=0.0, prompt=10, output=5, **more):
    made = Request(number, arrival, prompt, output, more.get("workload", 0), more.get("session", -1))
    made.priority = more.get("priority", 0)
    return made


def ids(order, requests):
    waiting = order.queue()
    for one in requests:
        waiting.append(one)
    order.at(0)
    return [one.id for one in waiting]


def serve(order, arrivals, seats, watch=lambda step, running: None):
    """{request: step of admission}. `arrivals` maps a step to who comes before it; each step admits to the free seats, gives every decoder
    a token and computes the prompts of the admitted, as an engine does.
    """
    waiting, running, admitted, step = order.queue(), [], {}, 0
    left = dict(arrivals)
    while left or len(waiting) or running:
        for one in left.pop(step, []):
            waiting.append(one)
        order.at(step)
        newcomers = list(itertools.islice(waiting, seats - len(running)))
        for one in newcomers:
            waiting.remove(one)
            order.admitted(one)
            admitted[one.id] = step
        watch(step, running)
        step += 1
        for one in running:
            one.generated += 1
        for one in [one for one in running if one.generated == one.output]:
            running.remove(one)
            order.left(one, step)
        for one in newcomers:
            one.computed, one.generated = one.prompt, 1
            if one.output == 1:
                order.left(one, step)
            else:
                running.append(one)
                order.joined(one, step)
    return admitted


def test_fcfs_puts_the_preempted_first_and_preempts_the_newest():
    order = Fcfs()
    waiting = order.queue()
    waiting.append(request(1))
    waiting.appendleft(request(0))
    assert [one.id for one in waiting] == [0, 1]
    running = {4: request(4, 9.0), 7: request(7, 1.0)}
    assert order.victim(running) is running[7]


def test_priority_is_higher_first_then_arrival():
    queue = [request(0, 0.0), request(1, 1.0, priority=2), request(2, 2.0, priority=2), request(3, 3.0, priority=-1)]
    assert ids(Priority(), queue) == [1, 2, 0, 3]
    assert Priority().victim({1: queue[3], 2: queue[1]}) is queue[3]
    assert Priority().victim({1: queue[1], 2: queue[2]}) is queue[2]


def test_slo_is_earliest_deadline_first():
    """Due at 0 + 3, 1 + 1 and 2.5 + 0.2 seconds."""
    order = Slo(ttft=3.0, classes={1: 1.0, 2: 0.2})
    queue = [request(0, 0.0), request(1, 1.0, priority=1), request(2, 2.5, priority=2)]
    assert ids(order, queue) == [1, 2, 0]
    assert order.victim(dict(enumerate(queue))) is queue[0]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_an_oracle_of_lengths_has_the_least_mean_wait_of_all_orders(outputs):
    """One seat: waits against those of every permutation."""
    admitted = serve(ShortestJob(), {0: [request(i, output=output) for i, output in enumerate(outputs)]}, 1)
    least = min(sum(itertools.accumulate(order[:-1])) for order in itertools.permutations(outputs))
    assert sum(admitted.values()) == least


def test_a_noisy_predictor_errs_by_its_sigma_and_keeps_to_its_word():
    order, other = ShortestJob(sigma=0.5), ShortestJob(sigma=0.5)
    errors = np.array([math.log(order.predicted(request(i, output=100)) / 100) for i in range(20_000)])
    assert abs(errors.mean()) < 4 * 0.5 / math.sqrt(20_000)
    assert errors.std() == pytest.approx(0.5, rel=0.02)
    assert other.predicted(request(7, output=100)) == order.predicted(request(7, output=100))
    other.seed(Draws(stream(1, "batcher")))
    assert other.predicted(request(7, output=100)) != order.predicted(request(7, output=100))


def test_who_was_preempted_has_less_left_to_do():
    one = request(0, output=30)
    one.generated = 25
    assert ids(ShortestJob(), [request(1, output=6), one]) == [0, 1]


class TestLeastAttained:
    def served(self, order, one, generated):
        order.admitted(one)
        one.computed, one.generated = one.prompt + generated - 1, generated
        order.left(one, 0)

    def test_sessions_with_less_service_go_first(self):
        order = LeastAttained()
        self.served(order, request(0, prompt=100, output=50, session=1), 50)
        self.served(order, request(1, prompt=10, output=5, session=2), 5)
        queue = [request(2, 0.0, session=1), request(3, 1.0, session=2), request(4, 2.0), request(5, 3.0, session=3)]
        assert ids(order, queue) == [4, 5, 3, 2]
        assert [order.level(one) for one in queue] == [100 + 2 * 50, 10 + 2 * 5, 0, 0]

    def test_what_was_found_in_the_cache_is_no_service(self):
        order, one = LeastAttained(), request(0, prompt=100, session=1)
        one.computed = 90
        self.served(order, one, 5)
        assert order.level(request(1, session=1)) == 10 + 2 * 5

    def test_levels_end_at_1_3_7_quanta(self):
        order = LeastAttained(quantum=10.0, output_weight=0.0)
        levels = []
        for _ in range(8):
            levels.append(order.level(request(9, session=1)))
            self.served(order, request(0, prompt=10, output=1, session=1), 1)
        assert levels == [0, 1, 1, 2, 2, 2, 2, 3]


JOB = st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 30))


class TestFairShare:
    @settings(max_examples=100, deadline=None)
    @given(jobs=st.lists(JOB, min_size=1, max_size=40), seats=st.integers(1, 6), gap=st.integers(0, 5))
    def test_counters_are_the_service_given(self, jobs, seats, gap):
        """With nobody ever idle and back again, a counter is the tenant's prompts admitted and tokens out, weighed."""
        order = FairShare(input_weight=1.0, output_weight=2.0)
        requests = [request(i, i, prompt, output, workload=tenant) for i, (tenant, prompt, output) in enumerate(jobs)]
        order.lift = lambda tenant, waiting, before: None
        arrivals = {}
        for one in requests:
            arrivals.setdefault(one.id * gap, []).append(one)
        serve(order, arrivals, seats)
        for tenant in range(3):
            mine = [one for one in requests if one.workload == tenant]
            assert order.service(tenant) == sum(one.prompt + 2 * one.output for one in mine)

    @settings(max_examples=60, deadline=None)
    @given(
        lengths=st.tuples(*[st.tuples(st.integers(1, 60), st.integers(1, 40))] * 2),
        seats=st.integers(1, 8),
        weights=st.sampled_from([(1.0, 2.0), (1.0, 1.0), (0.0, 1.0)]),
    )
    def test_two_backlogged_tenants_stay_within_the_bound_of_the_paper(self, lengths, seats, weights):
        """Theorem 4.4: while both wait, service over any interval differs by at most 2 max(w_p L, w_q M)."""
        w_p, w_q = weights
        requests = [request(2 * i + t, i, *lengths[t], workload=t) for i in range(60) for t in (0, 1)]
        bound = 2 * max(w_p * max(prompt for prompt, _ in lengths), w_q * seats * max(p + o for p, o in lengths))
        order, gaps = FairShare(*weights), []

        def watch(step, running):
            if all(sum(one.workload == t and one.generated < 1 for one in requests) > seats for t in (0, 1)):
                given = [
                    sum(w_p * one.prompt * (one.generated > 0) + w_q * one.generated for one in requests if one.workload == t)
                    for t in (0, 1)
                ]
                gaps.append(given[0] - given[1])

        serve(order, {0: requests}, seats, watch)
        assert max(gaps, default=0) - min(gaps, default=0) <= bound

    def test_nobody_starves_beside_a_flood(self):
        """A hundred requests are queued when another tenant's three come: in order of arrival they would wait for all of them. Two seats
        become free every ten steps, and each time one of them is theirs.
        """
        def waits(order):
            flood = [request(i, 0.0, 20, 10, workload=0) for i in range(100)]
            few = [request(100 + i, 1.0, 20, 10, workload=1) for i in range(3)]
            admitted = serve(order, {0: flood, 5: few}, 2)
            return [admitted[one.id] - 5 for one in few]

        assert min(waits(Fcfs())) > 400
        assert waits(FairShare()) == [5, 15, 25]

    def test_idling_saves_nothing_up(self):
        """Tenant 1 comes after tenant 0 was served alone for long: from then on they take turns, it is not owed the past."""
        first = [request(i, 0.0, 20, 10, workload=0) for i in range(40)]
        late = [request(100 + i, 1.0, 20, 10, workload=1) for i in range(10)]
        admitted = serve(FairShare(), {0: first, 150: late}, 1)
        served = sorted((step, number >= 100) for number, step in admitted.items() if step >= 150)
        assert 4 <= sum(newcomer for _, newcomer in served[:10]) <= 6

    def test_a_prompt_computed_again_is_charged_once(self):
        order, one = FairShare(), request(0, prompt=30, output=9)
        order.queue()
        order.admitted(one)
        one.generated = 1
        order.joined(one, 1)
        one.generated = 4
        order.left(one, 4)
        one.preemptions = 1
        order.admitted(one)
        one.generated = 5
        order.joined(one, 5)
        one.generated = 9
        order.left(one, 9)
        assert order.service(0) == 30 + 2 * 9

    def test_tokens_that_come_several_in_a_step_are_counted_in_the_end(self):
        order, one = FairShare(), request(0, prompt=30, output=9)
        order.queue()
        order.admitted(one)
        one.generated = 1
        order.joined(one, 1)
        one.generated = 9
        order.left(one, 4)
        assert order.service(0) == 30 + 2 * 9

    def test_the_victim_is_of_the_tenant_that_got_most(self):
        order = FairShare()
        order.queue()
        running = {i: request(i, float(i), prompt, workload=i % 2) for i, prompt in ((1, 90), (2, 10), (3, 90), (4, 10))}
        for one in running.values():
            order.admitted(one)
        assert order.victim(running) is running[3]
