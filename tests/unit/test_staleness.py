"""Gates of staleness: each framework's rule by hand, and bounds that hold whatever the order in which groups end."""
from __future__ import annotations

import random

import pytest

from sim.core.ledger import Course, Ledger
from sim.core.registry import STALENESS
from sim.core.rollout import ACCEPTED, DONE, PARTIAL, PENDING, REJECTED, RUNNING, SCORED, STALE_DROPPED, Group, Prompt

BATCH = 4


def gate(kind, **options):
    checked, problems = STALENESS.check({"kind": kind, **options})
    assert not problems
    return STALENESS.make(checked)


class Play:
    """A loop without times: groups end and versions are published when the test says so."""

    def __init__(self, policy, batch=BATCH, samples=1, servers=1):
        self.gate, self.ledger = policy, Ledger(batch, samples, servers)
        self.lags, self.lost, self.waiting, self.count, self.untold = [], [], [], 0, None

    def start(self, most=10**6):
        """As many as may, at most; how many that were."""
        for group in self.ledger.live(PARTIAL):
            self.ledger.start(group)
        groups = min(self.gate.may_start(self.ledger).groups, most)
        for _ in range(groups):
            group = self.waiting.pop(0) if self.waiting else self._new()
            self.ledger.start(group)
            self.gate.started(self.ledger, group)
        return groups

    def _new(self):
        self.count += 1
        return Group(self.count, Prompt(self.count), 1)

    def running(self):
        return list(self.ledger.live(RUNNING))

    def end(self, group, accepted=True):
        if not self.gate.turn(self.ledger, group):
            return self._lose(group, "drop")
        one = group.trajectories[0]
        one.add(self.ledger.version, 10)
        group.end(one)
        self.ledger.move(group, DONE)
        self.ledger.move(group, SCORED)
        self.ledger.move(group, ACCEPTED if accepted else REJECTED)

    def train(self):
        """Take a batch, if there is one, and publish: whether there was."""
        ready = [group for group in self.ledger.live(ACCEPTED) if self.gate.takes(self.ledger, group)][: self.ledger.batch]
        if len(ready) < self.ledger.batch:
            return False
        if self.gate.publishes == "on_take" and self.lags:
            self.publish()
        self.lags += [group.trajectories[0].lags(self.ledger.version) for group in ready]
        self.ledger.take(ready)
        if self.gate.publishes == "after_update":
            self.publish()
        return True

    def publish(self):
        for group in self.running():
            group.trajectories[0].add(self.ledger.version, 5)
        self.ledger.version += 1
        for group, fate in self.gate.on_publish(self.ledger):
            self._lose(group, fate)

    def look(self):
        for group, fate in self.gate.look(self.ledger):
            self._lose(group, fate)

    def _lose(self, group, fate):
        self.lost.append((group.number, fate))
        if fate == "drop":
            return self.ledger.move(group, STALE_DROPPED)
        self.ledger.move(group, PENDING if fate == "restart" else PARTIAL)
        self.waiting += [group] if fate == "restart" else []


@pytest.mark.parametrize("eta", [0, 1, 4])
def test_areal_starts_eta_versions_ahead(eta):
    """The paper's form: the N-th group may start at version v when floor((N - 1) / B) <= v + eta."""
    play = Play(gate("areal", eta=eta))
    for version in range(4):
        play.start()
        assert play.count == max(n for n in range(1, 100) if (n - 1) // BATCH <= version + eta)
        assert play.gate.may_start(play.ledger) == (0, True)
        for group in play.running():
            play.end(group)
        assert play.train()
    assert max(lag.submit for lag in play.lags) <= eta


def test_who_is_rejected_makes_room_and_seats_are_no_bound():
    play = Play(gate("areal", eta=1, max_concurrent=5))
    assert play.start() == 5
    assert play.gate.may_start(play.ledger) == (0, False)
    play.end(play.running()[0], accepted=False)
    play.end(play.running()[0])
    assert play.start() == 2
    play.end(play.running()[0])
    assert play.gate.may_start(play.ledger) == (1, False)


def test_a_recovered_run_does_not_start_all_that_was_trained():
    ledger = Ledger(BATCH, 1)
    ledger.version = 100
    assert gate("areal", eta=1).may_start(ledger).groups == 102 * BATCH
    ledger.recover(100)
    assert gate("areal", eta=1).may_start(ledger).groups == 2 * BATCH
    assert gate("one_step_off").may_start(ledger).groups == BATCH


def test_skyrl_counts_steps_from_one():
    play = Play(gate("skyrl", staleness=2, workers=100))
    assert play.start() == (2 + 1) * BATCH
    assert Play(gate("skyrl", workers=7)).start() == 7


def test_a_long_trajectory_may_exceed_the_bound_of_areal():
    play = Play(gate("areal", eta=1))
    play.start()
    slow = play.running()[0]
    for _ in range(3):
        for group in [group for group in play.running() if group is not slow]:
            play.end(group)
        play.train()
        play.start()
    play.end(slow)
    assert slow.lags(play.ledger.version)[0].submit > 1


def test_verl_by_its_formulas():
    """B 32, threshold 0.5: 48 may be started or queued; 2 servers run 32 of them at a time."""
    play = Play(gate("verl", staleness_threshold=0.5), batch=32, servers=2)
    assert play.start() == 32
    assert play.gate.may_start(play.ledger) == (0, False)
    for group in play.running()[:20]:
        play.end(group, accepted=False)
    assert play.start() == 16
    # Rejected ones count until the next publication: 48 were started.
    assert play.gate.may_start(play.ledger) == (0, True)
    play.publish()
    # 28 are active: 20 more until 48, of which 4 find a seat.
    assert play.gate.may_start(play.ledger) == (4, False)
    assert play.gate.poll == 10.0


def test_verl_stops_while_the_queue_is_full():
    play = Play(gate("verl", staleness_threshold=0.0), servers=9)
    play.start()
    for group in play.running():
        play.end(group)
    play.publish()
    assert play.gate.may_start(play.ledger) == (0, True)


def test_verl_with_threshold_0_and_1():
    for threshold, lag in ((0.0, 0), (1.0, 1)):
        play = Play(gate("verl", staleness_threshold=threshold), servers=9)
        for _ in range(6):
            play.start()
            for group in play.running():
                play.end(group)
            play.train()
        assert max(one.submit for one in play.lags) == lag


def test_prime_rl_drops_what_is_too_old_also_from_the_queue():
    play = Play(gate("prime_rl", max_off_policy_steps=2, max_inflight=6))
    assert play.start() == 6
    first = play.running()
    for group in first[:3]:
        play.end(group)
    for _ in range(2):
        play.publish()
    assert play.lost == []
    play.start()
    play.publish()
    assert play.lost == [(group.number, "drop") for group in first]
    assert len(play.running()) == 3


def test_prime_rl_grows_once_per_turnover_and_shrinks_with_the_cache():
    play = Play(gate("prime_rl", initial=8, max_inflight=1000))
    policy, ledger = play.gate, play.ledger

    def turn():
        play.start()
        for group in play.running():
            play.end(group)
        play.look()
        return policy.limit(ledger)

    assert [turn() for _ in range(3)] == [10.0, 12.5, 15.625]
    play.start()
    play.look()
    assert policy.limit(ledger) == 15.625
    ledger.kv = 0.7
    assert turn() == 15.625
    play.start()
    ledger.kv = 0.84
    play.look()
    assert (policy.limit(ledger), play.lost) == (12, [])
    ledger.kv = 0.95
    youngest = [group.number for group in play.running()][11:]
    play.look()
    assert play.lost == [(number, "restart") for number in youngest]
    assert policy.limit(ledger) == len(play.running()) == 11
    ledger.kv, ledger.preemptions = 0.7, 1
    play.look()
    play.look()
    assert policy.limit(ledger) == 5.5


def test_nemo_rl_waits_for_what_was_meant_for_the_step():
    play = Play(gate("nemo_rl"))
    assert play.start() == 2 * BATCH
    for group in play.running()[1:]:
        play.end(group)
    assert play.ledger.queued > BATCH
    assert not play.train()
    play.end(play.running()[0])
    assert play.train()
    assert play.start() == BATCH
    # A place that was given back is taken again, the earliest first.
    play.end(play.running()[0], accepted=False)
    assert play.start() == 1
    assert play.train()
    play.end(play.running()[-1])
    for group in play.running():
        play.end(group)
    assert play.train()
    assert {lag.submit for lag in play.lags} == {0, 1}


def test_rollart_looks_at_every_turn():
    play = Play(gate("rollart"))
    assert play.start() == 2 * BATCH
    slow, queued = play.running()[0], play.running()[1]
    play.end(queued)
    play.publish()
    assert play.gate.turn(play.ledger, slow)
    play.publish()
    assert not play.gate.turn(play.ledger, slow)
    assert play.lost == [(queued.number, "drop")]
    assert Play(gate("rollart", alpha=0.5)).start() == 6


@pytest.mark.parametrize(("policy", "tokens"), [("restart", 10), ("resume", 15), ("drop", 10)])
def test_slime_aborts_all_that_run(policy, tokens):
    play = Play(gate("slime", abort_policy=policy))
    play.start()
    first = play.running()
    play.end(first[0])
    play.publish()
    assert play.lost == [(group.number, policy) for group in first[1:]]
    play.start()
    again = play.running()[0]
    assert (again is first[1]) == (policy != "drop")
    play.end(again)
    assert again.tokens == tokens
    assert again.waste == ({"restarted": 5} if policy == "restart" else {})
    assert first[1].v_submit == (1 if policy == "restart" else 0)


def test_one_step_off_is_off_by_exactly_one():
    play = Play(gate("one_step_off"))
    for _ in range(5):
        assert play.start() == BATCH
        assert play.gate.may_start(play.ledger) == (0, True)
        for group in reversed(play.running()):
            play.end(group)
        assert play.train()
    assert [lag.submit for lag in play.lags] == [0] * BATCH + [1] * 4 * BATCH


HARD = {"prime_rl": ({"max_off_policy_steps": 2}, "oldest", 2), "nemo_rl": ({"max_trajectory_age_steps": 2}, "submit", 2),
        "rollart": ({"alpha": 2}, "submit", 2), "one_step_off": ({}, "submit", 1), "areal": ({}, "submit", 0)}  # fmt: skip


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("seed", range(5))
def test_bounds_that_hold_in_any_order(kind, seed):
    """What drops, reserves or waits bounds the lag of everything trained on, however groups overtake each other."""
    options, lag, bound = HARD[kind]
    play = Play(gate(kind, **options))
    scramble(play, random.Random(seed), 300)
    assert play.lags
    assert max(one._asdict()[lag] for one in play.lags) <= bound


@pytest.mark.parametrize("kind", sorted(set(STALENESS.names()) - {"unbounded"}))
def test_trainers_go_on_whatever_the_order(kind):
    # By its formulas a bound of 1.1 batches is no whole group more than a batch of 4, and one rejected would be missing for ever.
    play = Play(gate(kind, **({"staleness_threshold": 0.5} if kind == "verl" else {})), servers=2)
    scramble(play, random.Random(kind), 400)
    assert play.ledger.version >= 5


def scramble(play, luck, steps):
    """Groups start and end in any order, one in five is rejected, and the trainer takes what it can now and then."""
    for _ in range(steps):
        play.start(luck.randint(0, 6))
        running = play.running()
        if running:
            play.end(luck.choice(running), luck.random() < 0.8)
        if luck.random() < 0.3:
            play.train()
        play.look()


STUCK = [
    ("prime_rl", {"max_inflight": 8}, Course(4, 16), "has 0, but no more than 0 may start"),
    ("verl", {"staleness_threshold": 0.1}, Course(32, 16, 4, accepts=0.7), "the trainer waits for 32 groups to take and has"),
    ("verl", {"staleness_threshold": 0.5}, Course(32, 16, 4, accepts=0.7), ""),
    ("slime", {"max_queue": 3}, Course(4, 1), "has 3"),
    ("areal", {"eta": 0}, Course(4, 1, 4, accepts=0.3), ""),
    ("areal", {"eta": 4}, Course(4, 1, cap=3), "the buffer holds 3 groups"),
    ("areal", {"eta": 4}, Course(4, 1, cap=4), ""),
    ("areal", {"eta": 4}, Course(4, 1, cap=20), ""),
    ("areal", {"eta": 1}, Course(4, 1, accepts=0.0), "groups, of which 0 pass the filter, do not make the 4"),
    ("nemo_rl", {}, Course(4, 1, 2, accepts=0.5), ""),
]


@pytest.mark.parametrize(("kind", "options", "course", "words"), STUCK)
def test_deadlocks_are_named_before_the_run(kind, options, course, words):
    policy = gate(kind, **options)
    before = repr(policy)
    found = policy.stuck(course)
    assert words in found
    assert bool(found) == bool(words)
    assert repr(policy) == before


def test_marks_out_of_order_are_refused():
    _, problems = STALENESS.check({"kind": "prime_rl", "soft": 0.5})
    assert [problem.path for problem in problems] == ["target"]
