"""Graders without a cluster: rules, lines, serverless judges, and who grades what."""
from __future__ import annotations

import math
import time
from heapq import heapreplace

import numpy as np
import pytest
import yaml
from graded import Bare, case, known, scenario
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_world import POOL

import sim
from sim.core.errors import BadInput
from sim.core.rng import Luck, mix
from workloads.rewards.base import Verdict

EXACT = {"kind": "rule", "time": "2s", "p_timeout": 0}


def poisson(count, rate, key=3):
    """Arrival times."""
    return np.cumsum([-math.log1p(-Luck(mix(key, number)).next()) / rate for number in range(count)]).tolist()


# -- rules ------------------------------------------------------------
def test_a_line_of_several_servers_is_that_of_kiefer_and_wolfowitz():
    """With exponential times it is M/M/c, whose mean wait Erlang's formula gives."""
    servers, rate, count = 4, 2.8, 8_000
    bare, times = Bare({"kind": "rule", "workers": servers, "time": {"mean": "1s"}, "p_timeout": 0, "timeout": "1h"}), poisson(count, rate)
    for number, at in enumerate(times):
        bare.grade(at, case(number))
    rows = bare.end()
    free = [0.0] * servers
    for start, queued, end in zip(rows.start, rows.queued, rows.end, strict=True):
        service = end - start - queued
        assert start + queued == pytest.approx(max(start, free[0]), abs=1e-6)
        heapreplace(free, max(start, free[0]) + service)
    terms = [rate**k / math.factorial(k) for k in range(servers)]
    last = rate**servers / math.factorial(servers) * servers / (servers - rate)
    # Three standard deviations of such a sample: 12 % of the mean, 5 % of the share.
    assert rows.queued.mean() == pytest.approx(last / (sum(terms) + last) / (servers - rate), rel=0.36)
    assert (rows.queued > 0).mean() == pytest.approx(last / (sum(terms) + last), rel=0.15)


def test_without_workers_nobody_waits():
    bare = Bare(EXACT)
    for number in range(3):
        bare.grade(0.5, case(number))
    rows = bare.end()
    assert rows.end.tolist() == [2.5] * 3
    assert rows.queued.tolist() == [0] * 3


def test_the_same_luck_is_the_same_time_in_any_order():
    def taken(order, **more):
        bare = Bare({"kind": "rule", "p_timeout": 0.2, **more})
        for at, number in enumerate(order):
            bare.grade(0.01 * at, case(number))
        rows = bare.end()
        return (rows.end - rows.start - rows.queued).tolist(), rows.reward.tolist(), rows.outcome.tolist()

    there, back, alone = taken(range(60)), taken(reversed(range(60))), taken(range(60), workers=2)
    for other in (back, alone):
        assert other[0] == pytest.approx(there[0], abs=1e-9)
        assert other[1:] == there[1:]


def test_what_hangs_is_cut_and_wrong():
    bare = Bare({"kind": "rule", "p_timeout": 0.3, "timeout": "5s", "time": "1s"})
    for number in range(300):
        bare.grade(0, case(number, right=1.0))
    rows = bare.end()
    hung = rows.outcome == "timeout"
    assert hung.mean() == pytest.approx(0.3, abs=0.08)
    assert (rows.end[hung] == 5).all()
    assert (rows.end[~hung] == 1).all()
    assert (rows.reward == (~hung).astype(float)).all()
    assert not any(verdict.masked for verdict in bare.verdicts.values())
    # What takes too long of itself is cut as well.
    slow = Bare({"kind": "rule", "p_timeout": 0, "timeout": "5s", "time": "7s"}).grade(0, case(0, right=1.0)).end()
    assert (slow.outcome[0], slow.end[0], slow.reward[0]) == ("timeout", 5, 0)


def test_who_is_called_off_leaves_the_line_and_the_server():
    bare = Bare({**EXACT, "workers": 1})
    for number in range(4):
        bare.grade(0, case(number))
    # The first while it is graded, the third in line.
    rows = bare.cancel(0.5, (0, 0)).cancel(1, (2, 0)).cancel(1, (2, 0)).end()
    assert rows.outcome.tolist() == ["cancelled", "ok", "cancelled", "ok"]
    assert rows.end.tolist() == [0.5, 2.5, 1, 4.5]
    assert rows.queued.tolist() == [0, 0.5, 1, 2.5]
    assert set(bare.verdicts) == {(1, 0), (3, 0)}
    # A free server serves at once again, and nothing happens to who is done.
    bare.gradings[1, 0].cancel()
    assert len(bare.world.tables["rl_grades"]) == 4


def test_what_is_open_at_the_end_is_written_down():
    bare = Bare({**EXACT, "workers": 1})
    rows = bare.grade(0, case(0)).grade(1, case(1)).grade(1, case(2)).end(until=3)
    assert rows.outcome.tolist() == ["ok", "unfinished", "unfinished"]
    assert rows.queued.tolist() == [0, 1, 2]
    assert np.isnan(rows.end[1:]).all()
    assert np.isnan(rows.reward[1:]).all()


ORDERS = st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None)
@given(ORDERS, st.integers(1, 3), st.booleans())
def test_nobody_waits_beside_a_free_server(orders, workers, serverless):
    """Cases that come, and some that are called off: at any time as many are served as there are servers, or all."""
    said = {"kind": "judge", "time": {"mean": "5s"}, "concurrency": workers, "keep": "1h"}
    bare = Bare(said if serverless else {"kind": "rule", "workers": workers, "time": {"mean": "5s"}, "timeout": "1h"})
    for number, (at, patience) in enumerate(orders):
        bare.grade(at, case(number))
        if patience is not None:
            bare.cancel(at + patience + 0.5, (number, 0))
    rows = bare.end()
    assert len(rows) == len(orders)
    begun = rows.start + rows.queued
    for at in sorted({*rows.start, *rows.end}):
        now = at + 1e-6
        served = ((begun <= now) & (rows.end > now)).sum()
        there = ((rows.start <= now) & (rows.end > now)).sum()
        assert served == min(there, workers)


# -- serverless judges ------------------------------------------------------------
SERVERLESS = {"kind": "judge", "time": "2s", "cold_start": "10s", "keep": "5s", "price_per_hour": 3}


def served(orders, **more):
    """(queued, end) of cases that come at these times."""
    bare = Bare({**SERVERLESS, **more})
    for number, at in enumerate(orders):
        bare.grade(at, case(number, right=1.0))
    rows = bare.end()
    assert (rows.reward == 1).all()
    return list(zip(rows.queued.tolist(), rows.end.tolist(), strict=True))


def test_instances_start_when_wanted_and_go_when_idle():
    # The second finds the first's instance idle, the third finds it gone.
    assert served([0, 15, 30]) == [(10, 12), (0, 17), (10, 42)]
    assert served([0, 15, 30], keep=0) == [(10, 12), (10, 27), (10, 42)]
    # At its limit it is there still.
    assert served([0, 17]) == [(10, 12), (0, 19)]


def test_the_instance_used_last_is_used_again():
    # Of two instances one alone is wanted from 14 on, so that the other goes at 17: the last case waits for the one that is left.
    assert served([0, 0, 14, 16.5, 21, 21]) == [(10, 12), (10, 12), (0, 16), (0, 18.5), (0, 23), (2, 25)]


def test_instances_are_as_many_as_may_run():
    assert served([0, 0, 0], concurrency=2) == [(10, 12), (10, 12), (12, 14)]
    # One that is free before another is up takes who is first in line; the other finds nobody.
    assert served([0, 11, 13.5], concurrency=2) == [(10, 12), (1, 14), (0.5, 16)]


def test_who_waits_for_an_instance_may_go():
    bare = Bare(SERVERLESS).grade(0, case(0)).cancel(4, (0, 0)).grade(12, case(1))
    rows = bare.end()
    assert rows.queued.tolist() == [4, 0]
    assert rows.end.tolist() == [4, 14]


def test_a_serverless_judge_that_takes_too_long_is_asked_again():
    bare = Bare({"kind": "judge", "time": {"dist": "uniform", "min": "0s", "max": "2s"}, "timeout": "1s", "retries": 1})
    for number in range(400):
        bare.grade(0, case(number))
    rows = bare.end()
    failed = rows.outcome == "failed"
    assert failed.mean() == pytest.approx(0.25, abs=0.06)
    assert (rows.end[failed] == 2).all()
    assert (rows.end[~failed] < 2).all()
    assert np.isnan(rows.reward[failed]).all()
    masked = {place[0] for place, verdict in bare.verdicts.items() if verdict.masked}
    assert masked == set(rows.group[failed])


@pytest.mark.parametrize("agreement", [1.0, 0.8, 0.0])
def test_judges_err(agreement):
    bare, cases = Bare({"kind": "judge", "time": "1s", "agreement": agreement}), [case(number) for number in range(500)]
    for one in cases:
        bare.grade(0, one)
    bare.end()
    alike = [bare.verdicts[one.group, 0] == Verdict(float(one.right), False) for one in cases]
    assert np.mean(alike) == pytest.approx(agreement, abs=0.05)


# -- several graders ------------------------------------------------------------
def test_each_prompt_has_one_grader_by_its_share():
    bare = Bare({"kind": "rule", "share": 3}, {"kind": "judge", "time": "1s", "name": "style"}, {"kind": "rule", "name": "units"})
    for number in range(2000):
        bare.grade(0, case(number, samples=4))
    rows = bare.end()
    assert (rows.groupby("group").grader.nunique() == 1).all()
    shares = rows.grader.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"rule": 0.6, "style": 0.2, "units": 0.2}, abs=0.05)
    assert rows.workload.unique().tolist() == ["test"]


def test_a_name_does_not_move_a_prompt():
    options = Bare({"kind": "rule"}, {"kind": "judge", "time": "1s"}).graders, Bare({"kind": "rule", "name": "a"}, EXACT).graders
    assert [options[0].whose(prompt) for prompt in range(100)] == [options[1].whose(prompt) for prompt in range(100)]


# -- what may be written ------------------------------------------------------------
BOX = {"kind": "code", "pool": "box", "time": "1s", "p_timeout_wrong": 0.5}


@pytest.mark.parametrize(("rewards", "path", "message"), [
    ([{"kind": "judge"}], "", "a judge is told by model"),
    ([{"kind": "judge", "model": "judges", "time": "1s"}], "", "a judge is told by model"),
    ([{"kind": "judge", "model": "judges", "keep": "1s"}], "", "keep: not used here"),
    ([{"kind": "judge", "time": "1s", "output": 9}], "", "output: not used here"),
    ([{"kind": "judge", "model": "judge"}], ".model", "no pool serves 'judge'; did you mean judges?"),
    ([BOX], ".pool", "no pool of sandboxes is named 'box'; cluster.sandboxes has none"),
    ([{"kind": "tests", "time": "1s"}], ".pool", "missing"),
    ([{**BOX, "adaptive": {"min": "9s"}}], "", "adaptive.min (9 s) is above timeout (6 s)"),
    ([{"kind": "rul"}], "", "unknown kind 'rul'; did you mean rule?"),
    ([{"time": "1s"}], "", "no 'kind' given; known: rule, code, tests, judge"),
    ([{"kind": "judge", "modle": "judges"}], ".modle", "unknown key of rewards.0; did you mean model?"),
    ([{"kind": "judge", "model": "judges", "concurrency": True}], ".concurrency", "found true; a number is wanted"),
])  # fmt: skip
def test_what_is_wrong_is_said(rewards, path, message):
    with known(), pytest.raises(BadInput) as caught:
        sim.run(sim.loads(scenario(*rewards, cases=1)))
    assert [problem.path for problem in caught.value.problems] == [f"workloads.0.rewards.0{path}"]
    assert message in caught.value.problems[0].message


def test_graders_have_names_of_their_own():
    twice = [{"kind": "rule"}, {"kind": "rule"}]
    for rewards, path, said in (([], "", "at least one grader"), (twice, ".1.name", "another grader is called 'rule'")):
        with known(), pytest.raises(BadInput) as caught:
            sim.loads(scenario(*rewards, cases=1))
        assert caught.value.problems[0].path == f"workloads.0.rewards{path}"
        assert said in caught.value.problems[0].message


def test_what_was_written_is_read_back():
    judges = {"kind": "judge", "model": "judges", "output": {"mean": 20}}, {**SERVERLESS, "name": "rented"}
    said = [{"kind": "rule", "workers": 3}, *judges, BOX]
    with known():
        first = sim.loads(scenario(*said, cases=1, cluster={"sandboxes": [POOL]}))
        assert sim.loads(yaml.safe_load(sim.dump(first))) == first


@pytest.mark.parametrize("workers", [None, 64])
def test_a_grade_costs_little(workers, calm):
    spent, count = [], 5_000
    for _ in range(3):
        bare, cases = Bare({"kind": "rule", "workers": workers}), [case(number) for number in range(count)]
        begun = time.process_time()
        for one in cases:
            bare.graders.grade(one, bare.world.remarks.append)
        bare.env.run()
        spent.append((time.process_time() - begun) / count)
        assert len(bare.world.remarks) == count
    assert min(spent) < 60e-6, "15 us on a quiet machine"
