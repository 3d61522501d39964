"""Points of a sweep: what an axis holds, which points a method takes, and what is refused with its file and line."""
from __future__ import annotations

import doctest
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import GOOD, problems_of, written

import sim.spec.sweep
import sim.study.sweep.space
from sim.core.errors import BadInput
from sim.spec.keys import Keys
from sim.spec.load import load, loads, plain
from sim.spec.sweep import Axis, Range
from sim.study.sweep.space import at, values
from sim.study.sweep.sweep import given as document_of
from sim.study.sweep.sweep import order

REPLICAS, RATE, SEQS = "cluster.pools.0.replicas", "workloads.0.rate", "cluster.pools.0.engine.max_num_seqs"


def points(tmp_path, sweep, text=GOOD):
    return order(document_of(written(tmp_path, f"{text}sweep: {sweep}\n"))).points


def wrong(tmp_path, sweep):
    with pytest.raises(BadInput) as error:
        points(tmp_path, sweep)
    return [str(problem).replace(str(tmp_path), "") for problem in error.value.problems]


@pytest.mark.parametrize("module", [sim.spec.sweep, sim.study.sweep.space])
def test_examples(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


@given(st.integers(1, 50), st.integers(0, 500), st.integers(1, 60))
def test_a_linear_grid_is_min_and_steps_up_to_max(low, span, step):
    assert Range(min=low, max=low + span, step=step).values() == tuple(range(low, low + span + 1, step))


@given(st.floats(0.01, 10), st.floats(1.05, 4), st.integers(0, 40))
def test_a_logarithmic_grid_multiplies_and_reaches_max(low, step, count):
    found = Range(min=low, max=low * step**count, step=step, scale="log").values()
    assert len(found) == count + 1
    assert all(b / a == pytest.approx(step, rel=1e-9) for a, b in pairwise(found))


@given(st.integers(1, 100), st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.sampled_from(["linear", "log"]), st.booleans())
def test_a_draw_stays_within_its_range(low, span, share, scale, whole):
    value = at(Axis(range=Range(min=low, max=low + span, scale=scale)), share, whole)
    assert low <= value <= low + span
    assert isinstance(value, int) or not whole


def test_units_are_read_and_integers_stay_integers():
    assert values(Axis(range={"min": "40GB", "max": "80GB", "step": "20GB"})) == (40e9, 60e9, 80e9)
    assert values(Axis(range={"min": "100ms", "max": "1s", "step": "300ms"})) == (0.1, 0.4, 0.7, 1.0)
    assert [type(value) for value in values(Axis(range={"min": 1, "max": 4, "step": 3}))] == [int, int]
    assert values(Axis(range={"min": 1, "max": 10, "step": 1.3, "scale": "log"}), whole=True) == (1, 2, 3, 4, 5, 6, 8)


def test_a_grid_is_every_combination_in_order(tmp_path):
    found = points(tmp_path, f"{{space: {{{REPLICAS}: [1, 2], {RATE}: {{range: {{min: 1, max: 4, step: 2, scale: log}}}}}}}}")
    assert found == [{REPLICAS: replicas, RATE: rate} for replicas in (1, 2) for rate in (1, 2, 4)]


def test_a_list_is_taken_as_it_is(tmp_path):
    assert points(tmp_path, f"{{list: [{{{REPLICAS}: 1}}, {{{RATE}: 2.5, {REPLICAS}: 3}}]}}") == [{REPLICAS: 1}, {RATE: 2.5, REPLICAS: 3}]


def test_an_integer_key_is_drawn_in_integers_and_needs_no_step(tmp_path):
    assert points(tmp_path, f"{{space: {{{REPLICAS}: {{range: {{min: 2, max: 4}}}}}}}}") == [{REPLICAS: n} for n in (2, 3, 4)]
    found = points(tmp_path, f"{{method: random, points: 9, space: {{{REPLICAS}: {{range: {{min: 1, max: 9}}}}}}}}")
    assert sorted(point[REPLICAS] for point in found) == list(range(1, 10))  # each once


def test_a_latin_hypercube_meets_each_part_of_each_axis_once(tmp_path):
    axes = f"{RATE}: {{range: {{min: 1, max: 16, scale: log}}}}, {SEQS}: {{range: {{min: 1, max: 80}}}}"
    found = points(tmp_path, f"{{method: latin_hypercube, points: 16, space: {{{axes}}}}}")
    assert sorted(int(4 * math.log2(point[RATE])) for point in found) == list(range(16))
    assert sorted((point[SEQS] - 1) // 5 for point in found) == list(range(16))


def test_a_further_key_does_not_move_the_draws_of_others_and_the_seed_does(tmp_path):
    def rates(more, seed=""):
        return [point[RATE] for point in points(
            tmp_path, f"{{method: random, points: 5{seed}, space: {{{RATE}: {{range: {{min: 1, max: 9}}}}{more}}}}}")]  # fmt: skip

    assert rates("") == rates(f", {SEQS}: {{range: {{min: 1, max: 500}}}}") != rates("", ", seed: 9")


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("{}", "sweep.space: is empty; a sweep needs a key and its values, such as workloads.0.rate: {choices: [1, 2, 4]}"),
        (f"{{space: {{{RATE}: []}}}}", f"sweep.space.{RATE}: found no choices; at least 1 is wanted"),
        (f"{{space: {{{RATE}: [1, 2, 1]}}}}", f"sweep.space.{RATE}: the choice 1 is given twice"),
        (f"{{space: {{{RATE}: 3}}}}", "a list of values is wanted, {choices: [...]}, or {range: {min: ..., max: ..., step: ...}}"),
        (f"{{space: {{{RATE}: {{choices: [1], range: {{min: 1, max: 2}}}}}}}}", "found choices and a range; one of them is wanted"),
        (f"{{space: {{{RATE}: {{range: {{min: 4, max: 2, step: 1}}}}}}}}", "found min 4 and max 2; min is the smaller one"),
        (f"{{space: {{{RATE}: {{range: {{min: 0, max: 2, step: 2, scale: log}}}}}}}}", "found min 0; with scale log it must be above 0"),
        (f"{{space: {{{RATE}: {{range: {{min: 1, max: 2, step: 1, scale: log}}}}}}}}", "found step 1; with scale log it must be above 1"),
        (f"{{space: {{{RATE}: {{range: {{min: 1, max: 2}}}}}}}}", "a grid needs to know the step; give one, such as step: 1"),
        (f"{{space: {{{RATE}: {{range: {{min: 1, max: 1e9, step: 1}}}}}}}}", "are 1,000,000,000 values; 100,000 are the most"),
        (f"{{space: {{{REPLICAS}: {{range: {{min: 1.2, max: 1.8}}}}}}}}", "takes integers, and there is none from 1.2 to 1.8"),
        (f"{{space: {{{RATE}: {{range: {{min: 2 apples, max: 3}}}}}}}}", "found '2 apples'; a number is wanted, or a quantity such as"),
        (f"{{points: 3, space: {{{RATE}: [1]}}}}", "sweep.points: is given, but method grid does not draw"),
        (f"{{method: random, space: {{{RATE}: [1]}}}}", "sweep.points: missing; method random needs to know how many"),
        (f"{{method: random, points: 3, space: {{{RATE}: [1, 2]}}}}", "asks for 3 points, and 2 different ones were found"),
        (f"{{method: list, space: {{{RATE}: [1]}}}}", "sweep.list: is empty; method list needs points"),
        (f"{{method: grid, list: [{{{RATE}: 1}}], space: {{{RATE}: [1]}}}}", "sweep.list: is given, and method grid draws from space"),
        ("{method: girid, space: {seed: [1]}}", "did you mean grid?"),
        ("{space: {cluster.pools.0.replica: [1]}}", "unknown key 'replica' of cluster.pools.0; did you mean replicas?"),
        ("{space: {workload.0.rate: [1]}}", "unknown key 'workload' of the scenario; did you mean workloads?"),
        ("{space: {workloads.0.concurrency: [1]}}", "unknown key 'concurrency' of workloads.0; known: adapters"),
        ("{list: [{seed: 1}, {sede: 1}]}", "sweep.list.1.sede: unknown key 'sede' of the scenario; did you mean seed?"),
        ("{space: {cluster.pools.3.replicas: [1]}}", "cluster.pools has no item '3'; an index from 0 to 0 is wanted"),
        ("{space: {cluster.pools.x.replicas: [1]}}", "unknown key 'x' of cluster.pools; its items go by their numbers, from 0"),
        ("{space: {sweep.points: [1]}}", "a key of what is run is wanted, such as cluster.pools.0.replicas"),
        ("{space: {cluster.pools.0.parallel: [{tp: 1}], cluster.pools.0.parallel.tp: [2]}}", "lies within cluster.pools.0.parallel"),
        (f"{{figures: [a, a], space: {{{RATE}: [1]}}}}", "a figure is named twice"),
        (f"{{space: {{{RATE}: {{range: {{min: 1, max: 1000, step: 1}}}}, seed: {{range: {{min: 1, max: 999}}}}}}}}", "has 999,000 points"),
    ],
)  # fmt: skip
def test_empty_and_contradictory_spaces_are_refused_at_their_line(tmp_path, sweep, said):
    problems = wrong(tmp_path, sweep)
    assert len(problems) == 1
    assert said in problems[0]
    assert problems[0].startswith(f"/x.yaml:{GOOD.count(chr(10)) + 1}: sweep")


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    assert len(wrong(tmp_path, "{method: random, space: {a.b: [1], seed: {range: {min: 1.5, max: 1.6}}}}")) == 3


def test_a_sweep_and_a_curve_are_two_scenarios(tmp_path):
    both = written(tmp_path, f"{GOOD}sweep: {{space: {{{RATE}: [1]}}}}\ncurve: {{concurrency: [1]}}\n")
    assert "there are a curve and a sweep; give one of them" in str(problems_of(both)[0])


def test_a_sweep_is_read_back_as_it_was_written(tmp_path):
    text = f"{GOOD}sweep: {{method: random, points: 3, space: {{{RATE}: {{range: {{min: 1s, max: 2m}}}}}}}}\n"
    scenario = load(written(tmp_path, text))
    assert loads(plain(scenario)).sweep == scenario.sweep
    assert scenario.sweep.space[RATE].range == Range(min=1, max=120)


def test_keys_go_by_the_kind_that_is_written_unless_it_changes_too():
    data = {"cluster": {"router": {"kind": "round_robin"}}}
    with pytest.raises(BadInput, match="unknown key 'capacity' of cluster"):
        Keys(data).whole("cluster.router.capacity")
    keys = Keys(data, ("cluster.router.kind", "cluster.router.capacity"))
    assert keys.whole("cluster.router.capacity")
    assert not keys.whole("cluster.router.kind")
