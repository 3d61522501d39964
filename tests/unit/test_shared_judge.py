"""Who gives rewards, in whole runs: a pool of judges that two runs of reinforcement learning share, and several graders in one run."""
from __future__ import annotations

import numpy as np
import pytest
from rl_runs import played, rows

import sim

RL = {
    "kind": "rl", "mode": "sync_disaggregated", "steps": 2, "prompts": 16, "samples": 4, "data_prompts": 64,
    "prompt": {"median": 200, "sigma": 0.3}, "answers": {"mean": 200, "sigma": 0.5, "cap": 1000},
}  # fmt: skip
JUDGE = {"kind": "judge", "model": "judges", "rubric": 400, "output": 150, "concurrency": 16}
CODE = {"kind": "code", "pool": "box", "tests": 4, "time": "200ms", "timeout": "2s", "p_timeout_wrong": 0.5}
NODES = {"name": "box", "nodes": 1, "node": {"cores": 16, "memory": "64GB", "disk": "200GB"}, "cores": 1, "memory": "1GB", "boot": "500ms"}


def scenario(*runs, rewards=(JUDGE,), **cluster):
    """Each run with a trainer and rollouts of its own, and one replica that judges for all."""
    pools = [{"name": f"of_{run}", "gpu": "h100_sxm"} for run in runs]
    pools.append({"name": "judges", "gpu": "l40s", "engine": {"max_num_seqs": 16}})
    trainers = [{"name": f"train_{run}", "gpu": "h100_sxm", "gpus": 2} for run in runs]
    workloads = [RL | {"name": run, "rollout": f"of_{run}", "trainer": f"train_{run}", "rewards": list(rewards)} for run in runs]
    return {"model": "Qwen/Qwen2.5-0.5B", "seed": 3, "cluster": {"pools": pools, "trainers": trainers, **cluster}, "workloads": workloads}


def run(*runs, **options):
    """The result of a run of which the audit has nothing to say, and in which no request was lost."""
    result = sim.run(scenario(*runs, **options))
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    counts = result.summary["requests"]
    assert counts["arrived"] == counts["completed"]
    return result


@pytest.fixture(scope="module")
def alone():
    return run("one")


@pytest.fixture(scope="module")
def both():
    return run("one", "two")


def grades(result, name):
    table = result.tables["rl_grades"].to_pandas()
    return table[table["workload"] == name].sort_values(["group", "number"], ignore_index=True)


# -- a judge for two ------------------------------------------------------------
def test_answers_are_judged_later_where_two_share_a_judge(alone, both):
    before, now = (grades(result, "one") for result in (alone, both))
    assert before[["group", "number", "reward"]].equals(now[["group", "number", "reward"]])
    waits = [(rows["end"] - rows["start"]).mean() for rows in (before, now)]
    assert waits[1] > 1.1 * waits[0]
    first, second = (result.summary["rl"]["one"] for result in (alone, both))
    assert second["step_s"]["mean"] > first["step_s"]["mean"]
    assert second["exposed_reward_s"] > first["exposed_reward_s"] > 0
    # Each run has a line of its own, the pool one for both: more at a time than either may ask.
    asked = [most_at_once(rows["arrival"], rows["last_token"]) for rows in (judged(alone), judged(both))]
    assert asked[0] == JUDGE["concurrency"] < asked[1]


def judged(result):
    """The requests that the pool of judges served."""
    names = [result.tables["replicas"].labels["pool"][code] for code in result.tables["replicas"]["pool"]]
    return result.requests[result.requests["replica"].isin([number for number, name in enumerate(names) if name == "judges"])]


def most_at_once(start, end):
    times = np.concatenate([np.asarray(end), np.asarray(start)])
    change = np.concatenate([-np.ones(len(end)), np.ones(len(start))])
    return int(np.cumsum(change[np.lexsort((change, times))]).max())


def test_each_run_has_the_grades_of_its_own_samples_and_one_request_for_each(both):
    table, samples = both.tables["rl_grades"].to_pandas(), both.tables["rl_samples"].to_pandas()
    assert len(table) == len(judged(both)) == 2 * 2 * 16 * 4
    for name in ("one", "two"):
        rows, own = grades(both, name), samples[samples["workload"] == name].sort_values(["group", "number"], ignore_index=True)
        assert rows[["group", "number"]].to_numpy().tolist() == own[["group", "number"]].to_numpy().tolist()
        np.testing.assert_array_equal(rows["reward"], own["reward"])
        np.testing.assert_allclose(rows["end"], own["scored"], rtol=0, atol=1e-9)
        asked = judged(both)
        assert (asked["workload"] == name).sum() == len(rows)
    one, two = (samples[samples["workload"] == name]["reward"].to_numpy() for name in ("one", "two"))
    assert (one != two).any(), "each run has luck of its own"


def test_the_answer_of_one_run_is_not_in_the_cache_for_another(both):
    """What they have in common at the judge is nothing: each has a rubric of its own."""
    asked = judged(both).sort_values("arrival")
    first = asked.groupby("workload").head(1)
    assert first["cached_tokens"].tolist() == [0, 0]
    assert (asked["cached_tokens"] > 0).any()


# -- several graders in one run ------------------------------------------------------------
def graders(concurrency):
    return [{"kind": "rule"}, CODE, JUDGE | {"share": 2, "concurrency": concurrency}]


@pytest.fixture(scope="module")
def mixed():
    return run("one", rewards=graders(2), sandboxes=[NODES])


def test_each_grader_has_its_prompts_and_a_queue_of_its_own(mixed):
    rows = grades(mixed, "one")
    groups = rows.groupby("group")["grader"].nunique()
    assert (groups == 1).all(), "all samples of a prompt have one grader"
    share = rows["grader"].value_counts(normalize=True)
    assert set(share.index) == {"rule", "code", "judge"}
    assert share["judge"] == pytest.approx(0.5, abs=0.2)
    by = {name: rows[rows["grader"] == name] for name in share.index}
    assert (by["rule"]["queued"] == 0).all()
    # Two at a time at the judge; a boot and room for 16 sandboxes at the tests.
    judge = by["judge"]
    assert most_at_once(judge["start"] + judge["queued"] + 1e-6, judge["end"]) == 2
    assert judge["queued"].mean() > 1.0
    assert (by["code"]["queued"] >= 0.5 - 1e-6).all()
    assert by["code"]["queued"].mean() < judge["queued"].mean()
    assert len(judged(mixed)) == len(judge)
    assert len(mixed.tables["sandboxes"]) >= len(by["code"]) > 0
    assert set(mixed.summary["rl"]["one"]["rewards"]) == {"rule", "code", "judge"}


def test_a_long_line_at_one_grader_delays_only_its_own(mixed):
    """With a judge that takes many at a time the others' grades are the same, and the judge's are there sooner."""
    rows, wider = (grades(result, "one") for result in (mixed, run("one", rewards=graders(200), sandboxes=[NODES])))
    first, other = rows[rows["group"] < 16], wider[wider["group"] < 16]
    assert first[["grader", "reward"]].equals(other[["grader", "reward"]])
    same, judge = first["grader"] != "judge", first["grader"] == "judge"
    np.testing.assert_allclose((first["end"] - first["start"])[same], (other["end"] - other["start"])[same], rtol=1e-6)
    assert (other["end"] - other["start"])[judge].mean() < 0.8 * (first["end"] - first["start"])[judge].mean()


def test_a_judge_on_the_gpus_of_the_rollouts_asks_before_they_sleep():
    judge = [{"kind": "judge", "model": "rollouts", "rubric": 200, "output": 20}]
    result = played(colocated=True, rollout="rollouts", rewards=judge)
    steps, grades, states = (rows(result, name) for name in ("rl_steps", "rl_grades", "train_states"))
    assert len(grades) == 3 * 8 * 4
    assert (steps["reward"] > 0).all()
    awake = states[states["state"] == "update"]
    assert len(awake) == 3
    for begin, end in zip(awake["start"], awake["end"], strict=True):
        assert not ((grades["start"] < end) & (grades["end"] > begin)).any()
