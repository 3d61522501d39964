"""Orders that know which program a call belongs to, affinity by program, and what is kept of whose."""
from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.core.registry import ORDERS
from sim.core.request import Request
from sim.policy.order.least_attained import LeastAttained
from sim.policy.order.program_fcfs import ProgramFcfs
from sim.policy.order.shortest_program import ShortestProgram
from sim.policy.order.ttl_priority import TtlPriority
from sim.policy.route.session_affinity import SessionAffinity
from tests.contract.test_policies import Seen


def call(number, arrival, session=-1, program=-1, **more):
    one = Request(number, arrival, 100, 10, more.pop("workload", 0), session)
    one.program = program
    for name, value in more.items():
        setattr(one, name, value)
    return one


def ids(order, calls):
    waiting = order.queue()
    for one in calls:
        waiting.append(one)
    return [one.id for one in waiting]


def test_what_names_a_program():
    assert call(7, 0.0, session=3, program=1, workload=2).task == (2, 1)
    assert call(7, 0.0, session=3).task == (0, 3)
    assert call(7, 0.0).task == (0, -9)
    assert len({call(number, 0.0).task for number in range(5)} | {call(9, 0.0, session=s).task for s in range(5)}) == 10


class TestProgramFcfs:
    def test_a_call_ranks_with_the_first_of_its_program(self):
        """Sub-agents (sessions 11 and 12) belong to programs 1 and 2; the second call of program 1 goes before the first of 2."""
        order = ProgramFcfs()
        calls = [call(0, 1.0, 1, 1), call(1, 2.0, 12, 2), call(2, 3.0, 11, 1), call(3, 2.5), call(4, 4.0, 2, 2)]
        assert ids(order, calls) == [0, 2, 1, 4, 3]
        assert order.victim(dict(enumerate(calls))) is calls[3]
        assert order.victim({1: calls[1], 2: calls[2], 4: calls[4]}) is calls[4]

    def test_a_preempted_one_keeps_its_place(self):
        order = ProgramFcfs()
        waiting = order.queue()
        waiting.append(call(0, 1.0, 1))
        back = call(1, 2.0, 2)
        waiting.appendleft(back)
        assert [one.id for one in waiting] == [0, 1]

    def test_sessions_of_two_workloads_are_different_programs(self):
        assert ids(ProgramFcfs(), [call(0, 1.0, 5), call(1, 2.0, 6), call(2, 3.0, 5, workload=1), call(3, 4.0, 5)]) == [0, 3, 1, 2]


class TestTtlPriority:
    def test_preempted_then_in_time_then_by_program(self):
        order = TtlPriority()
        order.keeps(lambda request: {1: 5.0, 2: 2.0}.get(request.session, -math.inf))
        calls = [call(0, 1.0, 9), call(1, 3.0, 2), call(2, 4.0, 1), call(3, 6.0, 1), call(4, 7.0, 8, preemptions=1)]
        assert ids(order, calls) == [4, 2, 0, 1, 3]

    def test_where_nothing_is_kept_it_goes_by_program(self):
        calls = [call(0, 1.0, 1), call(1, 2.0, 2), call(2, 3.0, 1)]
        assert ids(TtlPriority(), calls) == ids(ProgramFcfs(), calls) == [0, 2, 1]

    def test_in_a_run_a_call_that_comes_in_time_overtakes(self):
        """One seat. While the poisson traffic keeps a queue, sessions that come back within a second go to its head."""
        def queued(order, seconds):
            lengths = {"kind": "fixed", "input": 200, "output": 50}
            engine = {"max_num_seqs": 1, "max_num_batched_tokens": 512, "batcher": {"kind": "vllm_v1", "order": {"kind": order}}}
            engine["retention"] = {"kind": "ttl", "seconds": seconds}
            turns = {"kind": "sessions", "rate": 1, "num_sessions": 10, "turns": 4, "turns_law": "fixed", "think_time": "300ms"}
            load = [turns | {"lengths": lengths}, {"kind": "poisson", "rate": 2.5, "num_requests": 30, "lengths": lengths}]
            cluster = {"pools": [{"gpu": "l4", "engine": engine}]}
            found = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": load}).requests
            found = found[(found.workload == "sessions") & (found.input_tokens > 200)]
            return (found.admitted - found.arrival).mean()

        assert queued("ttl_priority", "1s") < 0.5 * queued("fcfs", "1s")
        assert queued("ttl_priority", "100ms") == pytest.approx(queued("program_fcfs", "100ms"), rel=0.2)


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=5))
def test_an_oracle_of_programs_has_the_least_mean_time_of_all_orders(programs):
    """One seat, all there at the start, each program's next call there when its last is done: against every order of whole programs."""
    order, now, done = ShortestProgram(), 0, []
    waiting = order.queue()
    left = [list(calls) for calls in programs]

    def ask(program):
        output = left[program].pop(0)
        waiting.append(call(program, 0.0, program, ahead=float(sum(left[program])), output=output))

    for program in range(len(programs)):
        ask(program)
    while len(waiting):
        one = waiting.popleft()
        now += one.output
        if left[one.session]:
            ask(one.session)
        else:
            done.append(now)
    work = [sum(calls) for calls in programs]
    assert sum(done) == min(sum(itertools.accumulate(one)) for one in itertools.permutations(work))


def test_without_a_word_of_what_is_ahead_a_call_is_all_there_is():
    assert ids(ShortestProgram(), [call(0, 0.0, ahead=50.0), call(1, 1.0), call(2, 2.0, ahead=0.0, output=5)]) == [2, 1, 0]


def test_sessions_say_what_is_ahead():
    from tests.unit.driven import driven

    options = {"kind": "sessions", "rate": 1, "num_sessions": 3, "turns": 3, "turns_law": "fixed"}
    options["lengths"] = {"kind": "uniform", "input": [5, 9], "output": [5, 90]}
    requests = driven(options).requests
    for session in range(3):
        mine = [one for one in requests if one.session == session]
        assert [one.ahead for one in mine] == [mine[1].output + mine[2].output, mine[2].output, 0]


def served(order, one, tokens):
    order.admitted(one)
    one.computed, one.generated = one.prompt, tokens
    order.left(one, 0)


class TestLeastAttained:
    def test_by_program_sub_agents_share_and_by_session_they_do_not(self):
        for by, first in (("program", [1, 0]), ("session", [0, 1])):
            order = LeastAttained(by=by)
            served(order, call(9, 0.0, 5, 1), 3)
            assert ids(order, [call(0, 1.0, 6, 1), call(1, 2.0, 7, 2)]) == first if by == "program" else [0, 1]
            assert order.level(call(0, 1.0, 6, 1)) == (106.0 if by == "program" else 0.0)

    def test_forgotten_service_halves_every_half_life(self):
        """100 units at 0 s are worth 25 at 20 s, less than 30 given then; with half the half-life 6, which 5 given then do not undo."""
        order = LeastAttained(half_life=10.0, input_weight=0.0, output_weight=1.0)
        served(order, call(0, 0.0, 1), 100)
        served(order, call(1, 20.0, 2), 30)
        assert ids(order, [call(2, 20.0, 1), call(3, 20.0, 2), call(4, 21.0, 3)]) == [4, 2, 3]
        assert order.level(call(2, 20.0, 1)) == pytest.approx(math.log2(25) + 2)
        served(order, call(5, 20.0, 1), 10)
        assert 2 ** (order.level(call(6, 20.0, 1)) - 2) == pytest.approx(25 + 10)

    def test_with_aging_who_waited_long_enough_goes_first(self):
        order = LeastAttained(aging=50.0, input_weight=0.0, output_weight=1.0)
        served(order, call(0, 0.0, 1), 100)
        assert ids(order, [call(1, 1.0, 1), call(2, 2.9, 2)]) == [2, 1]
        assert ids(order, [call(1, 1.0, 1), call(2, 3.1, 2)]) == [1, 2]

    def test_options_that_exclude_each_other_are_refused(self):
        problems = ORDERS.check({"kind": "least_attained", "half_life": "1s", "quantum": 5, "aging": 1})[1]
        assert [problem.path for problem in problems] == ["quantum", "aging"]


def test_affinity_by_program_keeps_sub_agents_together():
    views = [Seen(i) for i in range(8)]
    agents = [call(number, 0.0, session=number, program=3) for number in range(3, 40)]
    assert len({SessionAffinity(by="program").pick(one, views) for one in agents}) == 1
    assert len({SessionAffinity().pick(one, views) for one in agents}) == 8
    alone = call(0, 0.0, session=7)
    assert SessionAffinity(by="program").pick(alone, views) == SessionAffinity().pick(alone, views)


def test_sessions_of_two_workloads_do_not_end_what_is_kept_for_each_other():
    """Both workloads number their sessions from 0. What one keeps is found as it would be without the other, on a cache that holds all."""
    def hits(names):
        lengths = {"kind": "fixed", "input": 160, "output": 32}
        turns = {"kind": "sessions", "rate": 2, "num_sessions": 6, "turns": 3, "turns_law": "fixed", "think_time": "1s", "lengths": lengths}
        cluster = {"pools": [{"gpu": "l4", "engine": {"retention": {"kind": "keep"}}}]}
        load = [turns | {"name": name} for name in names]
        result = sim.run({"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": load})
        return result.requests.groupby("workload").cached_tokens.sum().to_dict(), result.tables["replicas"]["kept_block_seconds"][0]

    alone, kept = hits(["one"])
    both, kept_both = hits(["one", "two"])
    assert both["one"] == alone["one"] > 0
    assert kept_both > 1.9 * kept
