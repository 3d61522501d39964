"""Graders on a cluster: programs and tests in sandboxes, judges on replicas."""
from __future__ import annotations

import numpy as np
import pytest
from graded import OPTIONS, case, in_order, known, run, scenario
from sandbox_world import IMAGES, POOL, Play

from sim.spec.load import loads
from sim.study.run import run as simulated
from sim.world.cluster import World
from workloads.rewards.graders import Graders

NS = 1e-6
CODE = {"kind": "code", "pool": "box", "tests": 10, "time": "1s", "timeout": "6s", "p_timeout_wrong": 1}
BIG = {"nodes": 8, "node": {"cores": 1000, "memory": "1TB", "disk": "1TB"}}


def graded(reward, cases, pool=(), cancel=(), until=float("inf"), **changes):
    """(rows, rows of sandboxes, what may be looked at) after (at, case) have been graded in sandboxes of a pool, some called off."""
    play = Play({**BIG, **dict(pool)}, **changes)
    play.graders = Graders(play.client, OPTIONS.validate_python([reward]), 11)
    play.verdicts, gradings = {}, {}

    def begin(at, one):
        yield play.env.timeout(at)
        done = play.env.event()
        gradings[one.group, one.number] = play.graders.grade(one, done.succeed)
        if (one.group, one.number) not in dict(cancel):
            play.verdicts[one.group, one.number] = yield done

    def stop(at, place):
        yield play.env.timeout(at)
        gradings[place].cancel()

    play.begin(*(begin(at, one) for at, one in cases), *(stop(at, place) for place, at in cancel)).end(until)
    if until == float("inf"):
        play.checked()
        assert play.pool.waiting == 0
        assert not any(play.pool.held.values())
    return in_order(play.world.recorder.tables), play.rows, play


def at_once(count, **more):
    return [(0, case(number, **more)) for number in range(count)]


# -- programs ------------------------------------------------------------
def test_wrong_programs_take_their_time_out():
    rows, boxes, play = graded(CODE, at_once(80))
    seconds = (rows.end - rows.start).round(6)
    right = rows.reward == 1
    assert (seconds[right] == 10).all()
    # The tests before the one that hangs, which is any of the ten.
    assert set(seconds[~right] - 6) == set(range(10))
    assert (rows.outcome == np.where(right, "ok", "timeout")).all()
    assert (right.to_numpy() == [one.right for _, one in at_once(80)]).all()
    assert (boxes.outcome == "released").all()
    # A wrong one that fails by itself stops there, or goes on.
    rows, *_ = graded({**CODE, "p_timeout_wrong": 0}, at_once(80, right=0.0))
    assert set((rows.end - rows.start).round(6)) == set(range(1, 11))
    assert set(rows.outcome) == {"ok"}
    every, _, play = graded({**CODE, "every": True}, at_once(80, right=0.0))
    failed = 10 - (rows.end - rows.start).round(6) + 1
    assert (every.end - every.start).round(6).tolist() == (10 - failed + 6 * failed).tolist()
    assert not any(verdict.masked for verdict in play.verdicts.values())


def test_time_outs_are_most_of_the_work_of_cpus():
    """As is seen of code rewards: half of the programs are wrong, and hang, and they are nearly all of the time."""
    options = {**CODE, "tests": 15, "time": {"median": "50ms", "sigma": 1}, "p_timeout_wrong": 0.8}
    rows, *_ = graded(options, at_once(200))
    seconds = rows.end - rows.start
    late = rows.outcome == "timeout"
    assert 0.3 < late.mean() < 0.5
    assert seconds[late].sum() > 0.8 * seconds.sum()


def test_an_answer_that_was_cut_has_no_program():
    rows, boxes, play = graded(CODE, [(1, case(0, right=False, cut=True))])
    assert (rows.start[0], rows.end[0], rows.reward[0], len(boxes)) == (1, 1, 0, 0)
    assert not play.verdicts[0, 0].masked


def test_a_time_out_adapts_by_all_that_is_known_when_tests_begin():
    """Both are asked at once; there is room for one, so that the second knows how long the tests of the first took."""
    options = {**CODE, "time": "1s", "timeout": "10s", "adaptive": {"factor": 2, "min": "0.5s"}}
    pair = [(0, case(0, samples=2, right=1.0)), (0, case(1, samples=2, right=0.0))]
    one = {"nodes": 1, "node": {"cores": 1, "memory": "1GB", "disk": "100GB"}}
    first, second = (graded(options, pair, pool)[0] for pool in ({}, one))
    assert first.outcome.tolist() == second.outcome.tolist() == ["ok", "timeout"]
    work = [(rows.end - rows.start - rows.queued)[1] for rows in (first, second)]
    assert work[0] - work[1] == pytest.approx(10 - 2)


def test_an_adaptive_time_out_cuts_the_tail():
    options = {**CODE, "time": {"median": "0.2s", "sigma": 0.5}, "timeout": "10s"}
    cases = [(5 * number, case(number, samples=8)) for number in range(160)]
    plain, *_ = graded(options, cases)
    adaptive, _, play = graded({**options, "adaptive": {"factor": 2, "min": "0.5s"}}, cases)
    wrong = plain.reward == 0
    assert (plain.end - plain.start)[wrong].quantile(0.25) > 10
    # But for those that came before the first right one of their prompt.
    assert (adaptive.end - adaptive.start)[wrong].median() < 3
    alike = plain.reward == adaptive.reward
    assert alike.mean() > 0.9, "a right answer twice as slow as the slowest before it is called wrong"
    assert (plain.reward[~alike] == 1).all()
    assert ((adaptive.end - adaptive.start) <= (plain.end - plain.start) + NS).all()
    limits = [play.graders._graders[0].limit(prompt) for prompt in range(20)]
    assert min(limits) >= 0.5
    assert max(limits) <= 10
    # No answer of a prompt was right: nothing is known of it.
    solved = plain.groupby("group").reward.max()
    assert [limit == 10 for limit in limits] == (solved == 0).tolist()


def test_cores_that_are_asked_for_twice_make_right_programs_late():
    """Each test takes 1 s alone, and 4 s where four share one core: above the limit of 3 s."""
    options, cases = {**CODE, "timeout": "3s"}, at_once(4, right=1.0)
    crowded = {"nodes": 1, "node": {"cores": 1, "memory": "4GB", "disk": "100GB"}, "oversubscription": {"cpu": 4}}
    rows, *_ = graded(options, cases, crowded)
    assert rows.outcome.tolist() == ["timeout"] * 4
    rows, *_ = graded({**options, "timeout": "5s"}, cases, crowded)
    assert rows.outcome.tolist() == ["ok"] * 4
    assert rows.end.tolist() == pytest.approx([40] * 4, abs=NS)
    rows, *_ = graded({**options, "cores": 0.25}, cases, crowded)
    assert rows.end.tolist() == pytest.approx([10] * 4, abs=NS)


def test_sandboxes_are_few_and_cases_wait_in_line():
    # Room for four; the line is served in order.
    rows, *_ = graded(CODE, at_once(6, right=1.0), {"nodes": 1, "node": POOL["node"], "boot": "2s"})
    assert rows.queued.tolist() == pytest.approx([2, 2, 2, 2, 14, 14], abs=NS)
    assert rows.end.tolist() == pytest.approx([12, 12, 12, 12, 24, 24], abs=NS)


# -- environments that fail ------------------------------------------------------------
def test_an_environment_that_fails_masks_and_costs_its_time_out():
    rows, boxes, play = graded({**CODE, "failure": 1, "retries": 2}, at_once(2, right=1.0))
    assert rows.outcome.tolist() == ["failed"] * 2
    assert rows.reward.isna().all()
    assert rows.end.tolist() == pytest.approx([3 * 10 * 6] * 2, abs=NS)
    assert len(boxes) == 6
    assert all(verdict.masked for verdict in play.verdicts.values())
    half, *_ = graded({**CODE, "failure": 0.5, "retries": 1}, at_once(200, right=1.0))
    assert (half.outcome == "failed").mean() == pytest.approx(0.25, abs=0.08)
    assert (half.reward[half.outcome == "ok"] == 1).all()


def test_who_gets_no_sandbox_is_masked():
    rows, boxes, play = graded({**CODE, "retries": 1}, at_once(3, right=1.0), {"quota": {"work": 2}})
    assert rows.outcome.tolist() == ["ok", "ok", "failed"]
    assert (boxes.outcome == "quota").sum() == 2
    assert play.verdicts[2, 0].masked
    rows, boxes, _ = graded(CODE, at_once(1), {"boot": "10s", "boot_timeout": "20s", "fail": 0.999})
    assert (rows.outcome[0], boxes.outcome[0]) == ("failed", "boot_failed")
    assert rows.end[0] == pytest.approx(20, abs=NS)


def test_a_sandbox_that_crashes_is_replaced_and_a_program_that_is_killed_is_wrong():
    rows, boxes, _ = graded({**CODE, "retries": 50}, at_once(20, right=1.0), {"crash": 180.0})
    assert (boxes.outcome == "crashed").sum() > 5
    assert rows.reward.tolist() == [1] * 20
    bursts = {"memory": {"base": "1GB", "burst": {"median": "1GB", "sigma": 1}}, "limit": "2GB"}
    rows, _, play = graded(CODE, at_once(20, right=1.0), bursts)
    killed = rows.reward == 0
    assert 4 <= killed.sum() <= 16
    assert set(rows.outcome) == {"ok"}
    assert not any(verdict.masked for verdict in play.verdicts.values())


def test_who_is_called_off_holds_nothing():
    """In line, while its sandbox boots, and while it runs."""
    small = {"nodes": 1, "node": {**POOL["node"], "memory": "2GB"}, "boot": "2s"}
    rows, boxes, play = graded(CODE, at_once(4, right=1.0), small, cancel=[((0, 0), 1), ((1, 0), 5), ((3, 0), 0.5)])
    assert rows.outcome.tolist() == ["cancelled", "cancelled", "ok", "cancelled"]
    assert rows.end.tolist() == pytest.approx([1, 5, 13, 0.5], abs=NS)
    assert rows.queued.tolist() == pytest.approx([1, 2, 3, 0.5], abs=NS)
    assert boxes.outcome.tolist() == ["withdrawn", "released", "released", "withdrawn"]
    assert set(play.verdicts) == {(2, 0)}


def test_what_is_graded_at_the_end_is_written_down():
    rows, *_ = graded(CODE, at_once(1, right=1.0), {"boot": "2s"}, until=5)
    assert (rows.outcome[0], rows.queued[0]) == ("unfinished", 2)


# -- tests of repositories ------------------------------------------------------------
TESTS = {"kind": "tests", "pool": "box", "patch": "3s", "time": "60s"}


def test_tests_run_in_an_image_of_the_prompt():
    cases = [(0, case(number, samples=2, right=1.0)) for number in range(4)]
    one = {"nodes": 1, "images": IMAGES, "boot": "5s"}
    rows, boxes, _ = graded(TESTS, cases, one)
    assert boxes.image.tolist() == [0, 0, 1, 1]
    # Two images of 10 GB share 1 GB/s.
    assert rows.end.tolist() == pytest.approx([20 + 5 + 3 + 60] * 4, abs=NS)
    rows, boxes, _ = graded({**TESTS, "image": "shared"}, cases, one)
    assert set(boxes.image) == {0}
    assert rows.end.tolist() == pytest.approx([10 + 5 + 3 + 60] * 4, abs=NS)


def test_tests_that_hang_are_cut():
    rows, *_ = graded({**TESTS, "p_timeout_wrong": 1}, at_once(20))
    seconds = rows.end - rows.start
    assert seconds[rows.reward == 1].tolist() == pytest.approx([63] * int((rows.reward == 1).sum()), abs=NS)
    assert seconds[rows.reward == 0].tolist() == pytest.approx([603] * int((rows.reward == 0).sum()), abs=NS)
    # Whoever takes longer than the limit is late, right or not.
    rows, _, play = graded({**TESTS, "time": "700s"}, at_once(3, right=1.0))
    assert rows.outcome.tolist() == ["timeout"] * 3
    assert not any(verdict.masked for verdict in play.verdicts.values())
    rows, _, play = graded({**TESTS, "failure": 1}, at_once(1))
    assert (rows.end[0], play.verdicts[0, 0].masked) == (pytest.approx(600, abs=NS), True)


# -- judges ------------------------------------------------------------
JUDGE = {"kind": "judge", "model": "judges", "rubric": 480, "output": 20}


def test_a_judge_is_asked_so_many_at_a_time():
    result, rows = run({**JUDGE, "concurrency": 3}, cases=30, gap=0.02)
    begun = (rows.start + rows.queued).to_numpy()
    busy = [((begun <= at + NS) & (rows.end > at + NS)).sum() for at in begun]
    assert max(busy) == 3
    assert (np.diff(begun) >= -NS).all(), "first come, first served"
    # Who waits begins as another one ends.
    waited = rows.queued > NS
    assert waited.sum() > 10
    assert all(np.abs(rows.end - at).min() < NS for at in begun[waited])
    requests = result.tables["requests"].to_pandas()
    assert requests.input_tokens.tolist() == [480 + 100 + 200] * 30
    assert requests.output_tokens.tolist() == [20] * 30
    _, free = run(JUDGE, cases=30, gap=0.02)
    assert (free.queued == 0).all()
    assert free.reward.tolist() == rows.reward.tolist()


def test_the_rubric_and_the_question_are_found_in_the_cache():
    result, _ = run(JUDGE, cases=12, gap=1.0, samples=4, contents=True)
    cached = result.tables["requests"]["cached_tokens"]
    # Blocks of 16 tokens: the first case finds nothing, the first of a prompt the rubric, its others the question as well.
    assert cached.tolist() == [0, *[576] * 3, *([480] + [576] * 3) * 2]
    result, _ = run(JUDGE, cases=3, gap=1.0)
    assert result.tables["requests"]["cached_tokens"].tolist() == [0, 480, 480]
    result, _ = run({**JUDGE, "rubric": 0}, cases=2, gap=1.0)
    assert result.tables["requests"]["cached_tokens"].tolist() == [0, 0]


def test_an_answer_that_is_judged_again_is_in_the_cache():
    """A time-out ends the first try; the second finds the prompt there."""
    result, rows = run({**JUDGE, "output": 400, "timeout": "1s", "retries": 1}, cases=1, contents=True)
    requests = result.tables["requests"].to_pandas()
    assert requests.cached_tokens.tolist() == [0, 768]
    assert requests.reason.tolist() == ["timeout"] * 2
    assert (rows.outcome[0], rows.end[0]) == ("failed", pytest.approx(2.0, abs=0.05))


def test_an_answer_too_long_for_the_judge_is_masked():
    small = {"pools": [{"name": "judges", "gpu": "l40s", "engine": {"max_model_len": 500}}]}
    result, rows = run({**JUDGE, "retries": 1}, cases=2, cluster=small)
    assert rows.outcome.tolist() == ["failed"] * 2
    assert result.tables["requests"].to_pandas().reason.tolist() == ["max_model_len"] * 4


def test_a_judge_that_is_called_off_is_not_asked_any_more():
    with known():
        world = World(loads(scenario(JUDGE, cases=1)))
    world.start()
    options = OPTIONS.validate_python([{**JUDGE, "concurrency": 1, "name": "other"}])
    graders, gradings, heard = Graders(world._clients[0], options, 5), [], []

    def drive():
        for number in range(10, 13):
            gradings.append(graders.grade(case(number), heard.append))
        yield world.env.timeout(0.05)
        gradings[0].cancel()
        gradings[2].cancel()

    world.env.process(drive())
    world.env.advance()
    world.close()
    requests = world.recorder.tables["requests"].to_pandas().sort_values("request")
    # That of the workload, the one that was called off, and the one behind it.
    assert requests.status.tolist() == ["completed", "failed", "completed"]
    assert len(heard) == 1
    assert all(engine.kv.free == engine.kv.blocks for engine in world.engines)


def test_two_runs_share_a_judge():
    """Twice the work on one pool: each run's judge is slower than alone."""
    pair = scenario({**JUDGE, "output": 100}, cases=60)
    pair["workloads"] = [{**pair["workloads"][0], "name": name} for name in ("one", "two")]
    with known():
        both = in_order(simulated(loads(pair)).tables)
    _, alone = run({**JUDGE, "output": 100}, cases=60)
    assert both.workload.value_counts().to_dict() == {"one": 60, "two": 60}
    assert (both.end - both.start).mean() > 1.1 * (alone.end - alone.start).mean()
