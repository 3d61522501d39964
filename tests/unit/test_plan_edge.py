"""The run that decides an answer: which one it is, and that levers and the tornado go by it."""
from __future__ import annotations

import pytest
from plans import layouts, problem

import sim
from sim.report.plan import block, render
from sim.study.plan.bench import Bench
from sim.study.plan.edge import edge
from sim.study.plan.trial import Trial

ALONE = {"gpu": ["h100_sxm"], "parallel": [{"tp": 1}], "replicas": [1, 2, 4], "replications": 4, "short": 0.5}


class Told:
    """A ledger that knows by (replicas, share, number) which runs fail."""

    def __init__(self, *fail):
        self.fail = fail

    def one(self, key, scenario):
        return Trial(key[1:2] + key[3:] not in self.fail, "stable", (), None, None, (), {})

    def many(self, keys, scenario):
        return [self.one(key, scenario) for key in keys]


@pytest.mark.parametrize(
    ("asked", "count", "fail", "found"),
    [
        # All runs of the answer, and those of the next smaller that were made.
        ([(4, 4), (2, 4)], 4, [(2, 1.0, 2)], (2, (1.0, 2))),
        ([(4, 4), (2, 4)], 4, [(2, 1.0, 0), (2, 1.0, 2)], (2, (1.0, 0))),
        # With the first seed both fail, so that it tells nothing about the difference.
        ([(4, 4), (2, 4)], 4, [(4, 1.0, 0), (2, 1.0, 0), (2, 1.0, 1)], (2, (1.0, 1))),
        # The search began with half of the traffic, which alone failed.
        ([(4, 4)], 4, [(2, 0.5, 0)], (2, (0.5, 0))),
        # Nothing is known to fail, or to be smaller.
        ([(4, 4)], 4, [(4, 1.0, 0)], (2, (1.0, 1))),
        ([(1, 4)], 1, [], (None, (1.0, 0))),
    ],
)
def test_the_edge_is_the_first_run_with_which_the_answer_holds_and_fewer_do_not(asked, count, fail, found):
    made = problem(ALONE | {"meets": 0.5})
    bench = Bench(layouts(made), sim.loads(made).plan, Told(*fail))
    for replicas in (2, 4) if count > 1 else ():
        bench.one(0, replicas, 1.0, 0.5)
    for replicas, runs in asked:
        bench.many(0, replicas, 1.0, runs)
    near = edge(bench, 0, count, 1.0)
    assert (near.fewer, near.draw) == found
    assert (near.failed is None) == ((near.fewer, *near.draw) not in fail)


def test_what_an_answer_hangs_on_is_asked_of_the_seed_that_decided_it():
    work = {"kind": "gamma", "cv": 3, "rate": 80, "num_requests": 250}
    found = sim.plan(problem(ALONE | {"replicas": [3, 4, 5], "short": 1.0}, work, seed=3))
    best = found.best
    assert (best["replicas"], best["short"], best["share"]) == (4, 3, 1.0)
    own = {row["replication"]: row["met"] for row in found.runs if row["replicas"] == 3 and row["changed"] is None}
    number = next(number for number, met in own.items() if not met)
    assert number > 0
    assert own[0]
    assert {row["was_replicas"] for row in found.tornado} == {4}
    assert {row["was_usd_per_hour"] for row in found.tornado} == {best["usd_per_hour"]}
    levers = [row for row in found.runs if str(row["changed"]).startswith("lever: ")]
    assert {(row["replicas"], row["replication"]) for row in levers} == {(3, number)}
    assert [row["met"] for row in found.relax] == sorted((row["met"] for row in levers), reverse=True)
    swings = [row for row in found.runs if " x " in str(row["changed"])]
    assert {row["replication"] for row in swings} == {number}
    assert "With 3 the run of the first seed holds, but not enough of the others do. By one that fails: " in best["binds_text"]
    assert "by a run of the seed that fails" in render(found)
    assert "of the traffic, which decided it" not in render(found)
    assert "3 replicas" in block(found)


def test_of_a_part_of_the_traffic_that_decided_it_the_page_tells():
    work = {"rate": 120, "num_requests": 200}
    found = sim.plan(problem(ALONE | {"replicas": [1, 2, 3, 4], "replications": 1}, work))
    assert found.relax
    found.best["share"] = 0.5
    assert render(found).count("under the first 50% of the traffic, which decided it") == 2
