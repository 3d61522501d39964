"""Every gate in the registry keeps its contract. Dropping in a file subjects it to these."""
from __future__ import annotations

import pytest

from sim.core.registry import GATES
from sim.policy.gate.base import Room
from tests.unit.test_gate import Program, waits

ROOMS = [Room(2, 1000, 0), Room(5, 800, 100)]


def make(kind):
    options, problems = GATES.check({"kind": kind})
    assert not problems
    return GATES.make(options)


def crowd():
    """Programs under way, acting and waiting at two replicas, and at one that is gone."""
    active = [Program(i, 90 + 31 * i % 200, (2, 5, 7)[i % 3], running=i % 2, since=0.3 * i) for i in range(12)]
    return active + [waits(12 + i, 60 + 47 * i % 300, (2, -1, 7)[i % 3]) for i in range(9)]


@pytest.mark.parametrize("kind", GATES.names())
class TestGates:
    def test_pauses_the_active_and_resumes_those_that_ask_once_each(self, kind):
        pause, resume = make(kind).look(9.0, ROOMS, crowd())
        assert not any(program.paused for program in pause)
        assert all(program.paused and program.asking and not program.running for program, _ in resume)
        assert {replica for _, replica in resume} <= {2, 5}
        numbers = [program.number for program in pause] + [program.number for program, _ in resume]
        assert len(numbers) == len(set(numbers))

    def test_is_deterministic(self, kind):
        def changes():
            pause, resume = make(kind).look(9.0, ROOMS, crowd())
            return [program.number for program in pause], [(program.number, replica) for program, replica in resume]

        assert changes() == changes()

    def test_somebody_goes_on_where_nobody_is_let_in(self, kind):
        assert make(kind).look(9.0, ROOMS, [waits(0, 10**6), waits(1, 10**6, 7)]).resume

    def test_without_replicas_nobody_goes_on(self, kind):
        assert make(kind).look(9.0, [], crowd()).resume == []

    def test_to_ask_whether_one_may_enter_changes_nothing(self, kind):
        gate = make(kind)
        gate.look(0.0, ROOMS, [])
        assert [gate.enter(waits(0, 500)) for _ in range(9)] == [True] * 9

    def test_has_an_interval(self, kind):
        assert make(kind).every > 0
