"""A gate: whom it pauses and resumes, what that does to a run, and what it refuses."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import sim
from sim.core.registry import GATES
from sim.policy.gate.base import Room
from tests.unit.scenarios import good, problems_of, written


@dataclass
class Program:
    """A program as a gate sees it."""

    number: int
    tokens: int
    replica: int = 0
    running: int = 0
    since: float = 0.0
    paused: bool = False
    asking: bool = False


def gate(**options):
    checked, problems = GATES.check({"kind": "kv_capacity", **options})
    assert not problems
    return GATES.make(checked)


def waits(number, tokens, replica=-1):
    return Program(number, tokens, replica, paused=True, asking=True)


def numbers(programs):
    return [program.number for program in programs]


ONE = (Room(0, 1000, 0),)


def look(policy, *programs, now=10.0, rooms=ONE):
    """Numbers of those paused, and (number, replica) of those that go on."""
    pause, resume = policy.look(now, rooms, programs)
    return numbers(pause), [(program.number, replica) for program, replica in resume]


class TestKvCapacity:
    def test_who_comes_back_to_a_full_replica_is_not_let_in_for_the_room_of_another(self):
        """It would be sent to the full one: that it goes elsewhere is for the next look to say."""
        policy, rooms = gate(), (Room(0, 1000, 1000), Room(1, 1000, 0))
        back = waits(1, 400, replica=0)
        assert look(policy, Program(0, 1000, running=1), rooms=rooms) == ([], [])
        assert not policy.enter(back)
        assert policy.enter(waits(2, 400, replica=1))
        assert policy.enter(waits(3, 400))
        assert look(policy, Program(0, 1000, running=1), back, rooms=rooms) == ([], [(1, 1)])

    def test_who_fits_stays(self):
        assert look(gate(), Program(0, 400), Program(1, 600, running=1)) == ([], [])

    def test_the_smallest_that_act_are_paused_first_and_then_those_with_a_call_under_way(self):
        acting = [Program(0, 300), Program(1, 200), Program(2, 500)]
        assert look(gate(), *acting, Program(3, 400, running=1)) == ([1, 0], [])
        running = [Program(i, 500, running=1) for i in range(4)]
        assert look(gate(), Program(4, 100), *running) == ([4, 0, 1], [])

    def test_one_is_never_paused_for_lack_of_room_for_itself(self):
        assert look(gate(), Program(0, 5000, running=1)) == ([], [])

    @pytest.mark.parametrize(("options", "acted", "paused"), [
        ({"acting_token_weight": 0.1}, 1.0, []), ({"acting_token_weight": 1.0}, 1.0, [0]), ({"half_life": 1.0}, 1.0, []),
        ({"half_life": 1.0}, 0.5, [0]), ({"forget": 5.0}, 6.0, []), ({"fill": 1.5}, 1.0, []),
    ])  # fmt: skip
    def test_programs_that_act_weigh_as_they_are_said_to(self, options, acted, paused):
        """500 tokens that act beside 700 under way, of 1000; 2^(-0.5) x 500 > 300 > 2^(-1) x 500."""
        assert look(gate(**options), Program(0, 500, since=10.0 - acted), Program(1, 700, running=1))[0] == paused

    def test_best_fit_decreasing(self):
        """700 goes to the only place that has it, 300 to what it fits most tightly, 200 to what is left."""
        rooms = [Room(0, 800, 0), Room(1, 500, 0), Room(2, 1000, 650)]
        assert look(gate(), waits(0, 200), waits(1, 700), waits(2, 300), rooms=rooms) == ([], [(1, 0), (2, 2), (0, 1)])

    def test_without_migration_a_program_waits_for_its_own_replica(self):
        rooms = [Room(0, 1000, 900), Room(1, 1000, 0)]
        busy = Program(9, 900, 0, running=1)
        assert look(gate(migrate=False), busy, waits(1, 300, 0), waits(2, 100, 0), waits(3, 300), rooms=rooms) == ([], [(3, 1), (2, 0)])
        assert look(gate(), busy, waits(1, 300, 0), rooms=rooms) == ([], [(1, 1)])
        gone = [Room(1, 1000, 0)]
        assert look(gate(migrate=False), waits(1, 300, 0), rooms=gone) == ([], [(1, 1)])

    def test_whose_call_is_under_way_does_not_go_on(self):
        half = Program(0, 100, 0, running=1, paused=True, asking=True)
        assert look(gate(), half) == ([], [])

    def test_what_fits_nowhere_goes_to_an_empty_replica(self):
        large = [waits(0, 4000), waits(1, 5000)]
        assert look(gate(), *large) == ([], [(0, 0)])
        assert look(gate(), *large, Program(2, 100, running=1)) == ([], [])
        assert look(gate(), *large, Program(2, 100)) == ([], [])
        assert look(gate(), *large, Program(2, 100), now=700.0) == ([], [(0, 0)])
        assert look(gate(), *large, rooms=()) == ([], [])
        assert look(gate(), *large, waits(2, 600), rooms=[Room(0, 1000, 0), Room(3, 500, 0)]) == ([], [(2, 0), (0, 3)])

    def test_blocks_in_use_count_where_they_are_more_than_what_is_known_of_programs(self):
        assert look(gate(), Program(0, 100, running=1), waits(1, 500), rooms=[Room(0, 1000, 600)])[1] == []
        assert look(gate(), Program(0, 100, running=1), waits(1, 500), rooms=[Room(0, 1000, 400)])[1] == [(1, 0)]

    def test_between_two_looks_it_counts_who_comes_and_goes(self):
        policy = gate()
        look(policy, Program(0, 400, running=1))
        first, second = Program(1, 500), Program(2, 200)
        assert policy.enter(first)
        policy.entered(first)
        assert not policy.enter(second)
        policy.left(first, 500)
        assert policy.enter(second)

    def test_before_it_has_looked_nobody_enters(self):
        assert not gate().enter(Program(0, 1))


ENGINE = {"num_gpu_blocks_override": 100, "max_model_len": 1500, "max_num_seqs": 16}


def scenario(gate=None, turns=3, **changes):
    """Sessions of 500 tokens a turn; a cache of 1600 tokens."""
    lengths = {"kind": "fixed", "input": 400, "output": 100}
    traffic = {"kind": "sessions", "concurrency": 3, "num_sessions": 3, "turns": turns, "turns_law": "fixed", "lengths": lengths}
    cluster = {"pools": [{"gpu": "l4", "engine": ENGINE | changes}]} | ({"gate": gate} if gate else {})
    return {"model": "Qwen/Qwen2.5-0.5B", "cluster": cluster, "workloads": [traffic | {"think_time": "500ms"}]}


class TestARun:
    def test_contexts_that_do_not_fit_together_take_turns(self):
        """Three contexts grow to 1500 tokens in a cache of 1600: with a gate that looks often, one after the other ends."""
        free, gated = sim.run(scenario()), sim.run(scenario({"kind": "kv_capacity", "every": "100ms"}))
        assert free.summary["gate"] is None
        found = gated.summary["gate"]
        assert found["calls_held"] == len(gated.tables["gate"]) > 0
        assert found["calls_of_paused_programs"] > 0
        assert found["still_held"] == 0
        assert gated.summary["requests"]["completed"] == free.summary["requests"]["completed"] == 9
        assert gated.summary["kv"]["prefix_hit_rate"] > free.summary["kv"]["prefix_hit_rate"] + 0.1
        assert all(check["ok"] for check in gated.summary["audit"].values())

    def test_a_gate_that_never_closes_changes_nothing(self):
        free, gated = sim.run(scenario()), sim.run(scenario({"kind": "kv_capacity", "fill": 100, "every": "100ms"}))
        assert np.array_equal(free.tables["requests"]["last_token"], gated.tables["requests"]["last_token"])
        assert gated.summary["gate"]["calls_held"] == 0
        assert gated.summary["gate"]["held_s"] is None

    def test_what_is_larger_than_the_cache_shares_goes_alone(self):
        """No program fits a tenth of the cache; each is let in when nothing else is under way."""
        result = sim.run(scenario({"kind": "kv_capacity", "fill": 0.1, "every": "200ms"}, turns=2))
        assert result.summary["requests"]["completed"] == 6
        table = result.tables["requests"]
        order = np.argsort(table["admitted"])
        assert (table["admitted"][order][1:] >= table["last_token"][order][:-1]).all()

    def test_calls_held_are_called_off_and_found_at_the_end(self):
        """With patience of 50 ms the second and third user leave while held; cut off after 50 ms they are unfinished."""
        options = scenario({"kind": "kv_capacity", "fill": 0.3, "every": "10s"}, turns=1)
        patient = options["workloads"][0] | {"client": {"timeout": "50ms"}}
        result = sim.run(options | {"workloads": [patient]})
        assert result.summary["requests"]["failed"] >= 2
        assert np.allclose((result.tables["gate"]["end"] - result.tables["gate"]["start"]), 0.05)
        cut = sim.run(options | {"duration": 0.05})
        assert cut.summary["gate"]["still_held"] == 2
        assert cut.summary["requests"]["unfinished"] == 3

    def test_what_is_kept_for_a_paused_program_is_given_up(self):
        """Kept for ever, caches of paused programs would be the last to go, after those of the programs that run."""
        kept = sim.run(scenario({"kind": "kv_capacity", "every": "100ms"}, retention={"kind": "keep"}))
        assert kept.summary["requests"]["completed"] == 9
        assert kept.summary["gate"]["calls_held"] > 0
        assert all(check["ok"] for check in kept.summary["audit"].values())

    def test_a_resumed_program_goes_where_the_gate_says(self):
        options = scenario({"kind": "kv_capacity", "every": "100ms"})
        options["cluster"]["pools"][0]["replicas"] = 2
        options["workloads"][0] |= {"concurrency": 6, "num_sessions": 6}
        result = sim.run(options | {"cluster": options["cluster"] | {"router": {"kind": "round_robin"}}})
        held, table = result.tables["gate"], result.tables["requests"]
        first = {number: at for number, at in zip(held["program"].tolist(), held["end"].tolist(), strict=True) if at == at}
        assert first
        assert result.summary["requests"]["completed"] == 18
        paused = [number for number, at in zip(held["program"].tolist(), held["paused"].tolist(), strict=True) if at == at]
        for number in set(first) - set(paused):
            after = (table["session"] == number) & (table["arrival"] >= first[number])
            assert len(set(table["replica"][after].tolist())) <= 1


def test_bad_input(tmp_path):
    path = written(tmp_path, good("router:", "gate: {kind: kv_capacity, every: 0, fill: 0, half_life: 1s, acting: 1}\n  router:"))
    found = [(problem.path, problem.message) for problem in problems_of(path)]
    assert [path for path, _ in found] == ["cluster.gate.every", "cluster.gate.fill", "cluster.gate.acting"]
    assert "did you mean acting_token_weight?" in found[2][1]
    path = written(tmp_path, good("router:", "gate: {kind: kv_capacity, half_life: 1s, acting_token_weight: 0}\n  router:"))
    assert "not used here: acting_token_weight is 0" in problems_of(path)[0].message
    path = written(tmp_path, good("router:", "gate: {kind: kv}\n  router:"))
    assert "unknown gate kind 'kv'" in problems_of(path)[0].message


def test_pools_that_share_a_cache_have_no_gate():
    options = scenario({"kind": "kv_capacity"})
    pool = options["cluster"]["pools"][0]
    pools = [pool | {"name": "a", "role": "prefill"}, pool | {"name": "b", "role": "decode"}]
    with pytest.raises(sim.BadInput, match="leave out the gate or the roles"):
        sim.run(options | {"cluster": options["cluster"] | {"pools": pools}})
