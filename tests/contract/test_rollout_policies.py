"""Every gate of staleness and every tail policy in the registry keeps its contract. Dropping in a file subjects it to these."""
from __future__ import annotations

import pytest

from sim.core.ledger import Course, Ledger
from sim.core.registry import STALENESS, TAILS
from sim.core.rollout import PARTIAL, PENDING, RUNNING, STALE_DROPPED, Group, Prompt
from sim.core.rounds import Batch, Left, Replica

OPTIONS = {"unbounded": {"max_concurrent": 9}, "truncate": {"max_len": 100}}
BATCHES = [Batch(1, 1), Batch(7, 3), Batch(128, 8)]
LEFTS = [Left(0, 0), Left(5, 0), Left(0, 130), Left(1000, 1000)]
SEEN = [Replica(3, 4, 0, 30, 100), Replica(5, 1, 0, 5, 100), Replica(8, 0, 0, 0, 100), Replica(9, 2, 0, 12, 100)]


def make(family, kind):
    options, problems = family.check({"kind": kind, **OPTIONS.get(kind, {})})
    assert not problems
    return family.make(options)


@pytest.mark.parametrize("kind", STALENESS.names())
class TestStaleness:
    def play(self, kind):
        """Started as may be, a few stopped half-way, and a version on."""
        gate, ledger = make(STALENESS, kind), Ledger(4, 2, 2)
        for number in range(gate.may_start(ledger).groups):
            group = Group(number, Prompt(number), 2)
            ledger.start(group)
            gate.started(ledger, group)
        ledger.move(next(ledger.live(RUNNING)), PARTIAL)
        ledger.version += 1
        return gate, ledger

    def test_to_ask_changes_nothing(self, kind):
        gate, ledger = self.play(kind)
        gate.on_publish(ledger)
        before = repr(gate)
        rooms = [gate.may_start(ledger) for _ in range(3)]
        assert len(set(rooms)) == 1
        assert rooms[0].groups >= 0
        assert [gate.turn(ledger, group) for group in ledger.live(RUNNING)] == [gate.turn(ledger, group) for group in ledger.live(RUNNING)]
        assert repr(gate) == before

    def test_some_may_start_at_first_and_the_trainer_is_never_stuck(self, kind):
        assert make(STALENESS, kind).may_start(Ledger(4, 2)).groups > 0
        assert make(STALENESS, kind).stuck(Course(4, 2)) == ""
        assert make(STALENESS, kind).stuck(Course(3, 2, 4, cap=40)) == ""

    def test_who_is_lost_was_live_and_moves_once_in_order_of_start(self, kind):
        gate, ledger = self.play(kind)
        for losses in (gate.on_publish(ledger), gate.look(ledger)):
            live = [group.number for group in ledger.live()]
            lost = [loss.group.number for loss in losses]
            assert lost == [number for number in live if number in lost]
            for group, fate in losses:
                ledger.move(group, {"drop": STALE_DROPPED, "restart": PENDING, "resume": PARTIAL}[fate])

    def test_is_deterministic(self, kind):
        def answers():
            gate, ledger = self.play(kind)
            return [(loss.group.number, loss.fate) for loss in gate.on_publish(ledger)], gate.may_start(ledger)

        assert answers() == answers()

    def test_says_when_it_publishes_and_how_often_it_looks(self, kind):
        gate = make(STALENESS, kind)
        assert gate.publishes in ("after_update", "on_take")
        assert gate.poll >= 0


@pytest.mark.parametrize("kind", TAILS.names())
class TestTails:
    @pytest.mark.parametrize("batch", BATCHES)
    @pytest.mark.parametrize("left", LEFTS)
    def test_a_round_can_be_filled_from_what_there_is(self, kind, batch, left):
        tail = make(TAILS, kind)
        launch = tail.launch(batch, left)
        assert min(launch) >= 0
        assert launch.resumed <= left.partial
        assert launch.again <= left.losers
        assert launch.samples >= batch.samples
        assert launch.groups >= launch.needed == batch.groups
        assert tail.launch(batch, left) == launch

    def test_a_round_ends_when_all_are_complete_and_not_before_anything_is(self, kind):
        tail = make(TAILS, kind)
        launch = tail.launch(Batch(7, 3), Left(0, 0))
        assert not tail.over(launch, 0)
        assert tail.over(launch, launch.groups)

    def test_what_is_left_has_a_fate_that_the_next_launch_knows(self, kind):
        tail = make(TAILS, kind)
        fate = tail.fate()
        assert fate in ("resume", "restart", "drop")
        if fate == "resume":
            assert tail.launch(Batch(7, 3), Left(3, 0)).resumed == 3
        if fate == "restart":
            assert tail.launch(Batch(7, 3), Left(0, 7)).again == 7

    def test_pieces_add_up(self, kind):
        tail, left, pieces = make(TAILS, kind), 10_000, 0
        while left:
            piece = tail.piece(left)
            assert 1 <= piece <= left
            left, pieces = left - piece, pieces + 1
        assert pieces >= 1
        assert 1 <= tail.limit(5) <= 5

    def test_moves_go_one_way(self, kind):
        tail = make(TAILS, kind)
        moves = tail.moves(SEEN)
        sources, homes = [one for one, _ in moves], [one for _, one in moves]
        assert len(set(sources)) == len(sources)
        assert not set(sources) & set(homes)
        assert set(sources) | set(homes) <= {one.number for one in SEEN}
        assert tail.moves([]) == []
        assert tail.every >= 0

    def test_a_home_is_one_of_those_seen_or_where_it_was(self, kind):
        tail, one = make(TAILS, kind), Group(0, Prompt(0), 1).trajectories[0]
        assert tail.home(one, 5, SEEN) in {one.number for one in SEEN}
        assert isinstance(tail.rank(one), tuple)
        assert tail.masks(one) is False
