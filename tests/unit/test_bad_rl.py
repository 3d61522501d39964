"""What is wrong with a run of reinforcement learning is told before it begins: by key and line, with what was found and what would do."""
from __future__ import annotations

import pytest
import yaml
from rl_runs import scenario
from scenarios import problems_of, written

import sim
from sim.core.errors import BadInput

BETA = {"solving": {"solve_rate_beta": [0.6, 0.6]}}
FILTER = {"dynamic_sampling": {}}
ASYNC = {"mode": "async"}


def areal(**more):
    return ASYNC | {"staleness": {"kind": "areal", "eta": 1}} | more


def gate(kind, **options):
    return ASYNC | {"staleness": {"kind": kind, **options}}


CODE = {"kind": "code", "pool": "swe", "time": "20ms", "p_timeout_wrong": 0.1}
WAITS = "it would wait for ever"
BAD = {
    # nobody could ever fill a batch
    "verl": (gate("verl", staleness_threshold=0) | FILTER | BETA, "staleness", f"no more than 8 may start before that.*{WAITS}"),
    "areal": (areal(buffer={"cap": 4}), "staleness", f"the buffer holds 4 groups and the trainer takes 8 at a time: {WAITS}"),
    "slime": (gate("slime", max_queue=4), "staleness", f"the trainer waits for 8 groups to take and has 4.*{WAITS}"),
    "skyrl": (gate("skyrl") | {"buffer": {"cap": 7}}, "staleness", f"the buffer holds 7 groups.*{WAITS}"),
    "rollart": (gate("rollart") | {"buffer": {"cap": 1}}, "staleness", f"the buffer holds 1 groups.*{WAITS}"),
    "nemo_rl": (gate("nemo_rl") | {"buffer": {"cap": 2}}, "staleness", "fewer than the 16 that may be there, each for a step"),
    "prime_rl": (gate("prime_rl") | {"buffer": {"cap": 2}}, "staleness", f"the buffer holds 2 groups.*{WAITS}"),
    "one step": ({"mode": "one_step_off", "buffer": {"cap": 3}}, "mode", f"the buffer holds 3 groups.*{WAITS}"),
    "all right": (FILTER | {"solving": {"solve_rate": 1.0}}, "dynamic_sampling", "a share of 0 is neither all right nor all wrong"),
    "alone": (areal(samples=1) | FILTER, "dynamic_sampling", "of groups of 1, a share of 0 is neither"),
    "hopeless": (FILTER | {"solving": {"solve_rate": 1e-4}}, "dynamic_sampling", "10 batches of 24 groups never hold the 8 wanted"),
    # what does not divide, or is too little
    "trigger": ({"updates": {"trigger": 3}}, "updates.trigger", "found 3; 8 prompts do not divide into so many local updates"),
    "mini": ({"updates": {"mini_batches": 64}}, "updates.mini_batches", "found 64, but a local update has 32 samples"),
    "stream": ({"updates": {"stream": 9}}, "updates.stream", "found 9, but a local update has 8 groups"),
    "ranks": ({"prompts": 1, "samples": 3}, "samples", "found 3 samples for the 4 ranks of learner; each needs at least one in a step"),
    "few": ({"updates": {"trigger": 4, "mini_batches": 4}}, "updates", "found 2 samples in each of 16 steps of the optimizer for the 4"),
    # keys of another mode
    "no gate": (ASYNC, "staleness", "missing: say how far rollouts may fall behind, as a gate of kind areal, nemo_rl"),
    "gate": ({"staleness": {"kind": "areal"}}, "staleness", "not used here: mode sync_disaggregated leaves no choice"),
    "interrupt": ({"interrupt": {"wait": "calls"}}, "interrupt", "nothing runs when weights go out"),
    "redundant": ({"redundant": 1}, "redundant", "nothing runs when weights go out"),
    "reward_at": (areal(reward_at="batch"), "reward_at", "not used here: mode async has no rounds"),
    "tail": (areal(tail={"kind": "partial"}), "tail", "found partial; without rounds truncate and consolidate have a meaning"),
    "switch": ({"switch": {"to_train": "3s"}}, "switch", "trainer and rollouts have GPUs of their own"),
    "blocking": ({"sync": {"kind": "bucketed", "blocking": "pull"}}, "sync.blocking", "nobody works while weights go out"),
    "grades": ({"updates": {"stream": 2}, "reward_at": "batch"}, "updates.stream", "nothing is ready before the round is over"),
    "sampled": (FILTER | BETA | {"tail": {"kind": "partial"}}, "tail", "with dynamic_sampling a round ends when enough groups are valid"),
    "tools": ({"tools": {"x": {"time": "1s"}}}, "tools", "an answer is one call of the model"),
    "patience": ({"client": {"timeout": "5s"}}, "client", "nobody's patience ends"),
    "prefix": ({"shared_prefix": 9}, "shared_prefix", "what samples share is their prompt"),
    # names nobody has, and what is missing
    "mode": ({"mode": "asynch"}, "mode", "did you mean async"),
    "kind": (gate("arael"), "staleness.kind", "unknown staleness kind 'arael'; did you mean areal?"),
    "preset": ({"preset": "verl_asinc"}, "preset", "unknown preset 'verl_asinc'; did you mean verl_async"),
    "agents": ({"agents_preset": "swe", "answers": None, "prompt": None}, "agents_preset", "unknown preset 'swe'; did you mean swe_agent"),
    "answers": ({"answers": None}, "answers", "neither is given: say answers"),
    "prompt": ({"prompt": None}, "prompt", "missing: how many tokens prompts have"),
    "trainer": ({"trainer": "lerner"}, "trainer", "no trainer is named 'lerner'; did you mean learner?"),
    "pool": ({"rollout": "rollout"}, "rollout", "no pool is named 'rollout'; did you mean rollouts?"),
    "grader": ({"rewards": [{"kind": "ruel"}]}, "rewards.0", "unknown kind 'ruel'; did you mean rule?"),
    "no grader": ({"rewards": []}, "rewards", "found an empty list; at least 1 is wanted"),
    "sandboxes": ({"rewards": [CODE]}, "rewards.0.pool", "no pool of sandboxes is named 'swe'; cluster.sandboxes has none"),
    "judge": ({"rewards": [{"kind": "judge", "model": "judges"}]}, "rewards.0.model", "no pool serves 'judges'"),
    "store": ({"checkpoint": {"every": 1, "store": "disks"}}, "checkpoint.store", "there is no network; write cluster.network"),
    "ipc": ({"sync": {"kind": "ipc"}}, "sync.kind", "is for a trainer and engines that share their GPUs, and these do not"),
    "nccl": ({"colocated": True, "sync": {"kind": "bucketed"}}, "sync.kind", "these share theirs; kind ipc is for such"),
    # what no replica could hold
    "long": ({"answers": {"mean": 500, "sigma": 1, "cap": 6000}}, "answers", "answers of up to 6,000 are more than the 4,096"),
    "prompts": ({"prompt": {"median": 500, "sigma": 1.5}}, "answers", r"prompts of up to \d,\d\d\d tokens and .* \(max_model_len\)"),
    "cache": ({"pool": {"engine": {"num_gpu_blocks_override": 20}}}, "answers", r"more than the 321 .* \(kv_capacity\): give it more room"),
}


@pytest.mark.parametrize(("changes", "path", "words"), BAD.values(), ids=list(BAD))
def test_what_is_wrong_is_told_before_the_run(changes, path, words):
    with pytest.raises(BadInput, match=words) as error:
        sim.run(scenario(**changes))
    assert [problem.path for problem in error.value.problems] == [f"workloads.0.{path}"], str(error.value)


def test_with_file_and_line(tmp_path):
    given = scenario(updates={"trigger": 3}, rewards=[CODE], trainer="x", answers=None)
    found = problems_of(written(tmp_path, yaml.safe_dump(given, sort_keys=False)))
    lines = (tmp_path / "x.yaml").read_text().splitlines()
    told = {problem.path.removeprefix("workloads.0."): problem for problem in found}
    assert told["updates.trigger"].file.endswith("x.yaml")
    assert lines[told["updates.trigger"].line - 1].strip() == "trigger: 3"
    assert "kind: rl" in lines[told["answers"].line - 1]


@pytest.mark.parametrize(("gpus", "part"), [(1, "optimizer"), (2, "optimizer")])
def test_a_trainer_that_does_not_fit(gpus, part):
    given = scenario()
    given["cluster"]["trainers"] = [{"name": "learner", "gpu": "h100_sxm", "gpus": gpus, "model": "Qwen/Qwen2.5-14B"}]
    with pytest.raises(BadInput, match=rf"\d+\.\d GB too little; most of it is {part}") as error:
        sim.run(given)
    assert error.value.problems[0].path == "cluster.trainers.0"


def second(given, **changes):
    given["workloads"].append(given["workloads"][0] | {"name": "second"} | changes)
    return given


def test_one_trainer_does_one_thing_and_one_pool_has_the_weights_of_one():
    given = scenario()
    given["cluster"]["trainers"].append(given["cluster"]["trainers"][0] | {"name": "other"})
    given["workloads"][0]["trainer"] = "learner"
    with pytest.raises(BadInput) as error:
        sim.run(second(given, trainer="other"))
    assert [(one.path, one.message) for one in error.value.problems] == [
        ("workloads.1.rollout", "workloads.0 trains pool 'rollouts' already; one pool has the weights of one"),
    ]
    given = scenario()
    given["cluster"]["pools"].append(given["cluster"]["pools"][0] | {"name": "others"})
    given["workloads"][0]["rollout"] = "rollouts"
    with pytest.raises(BadInput) as error:
        sim.run(second(given, rollout="others"))
    assert [(one.path, one.message) for one in error.value.problems] == [
        ("workloads.1.trainer", "workloads.0 has trainer 'learner' already; one trainer does one thing"),
    ]
    given["workloads"][1] = {"kind": "train", "steps": 2, "batch": 8, "lengths": {"kind": "fixed", "input": 1, "output": 100}}
    with pytest.raises(BadInput, match="has trainer 'learner' already"):
        sim.run(given)
    given = second(scenario())
    given["cluster"]["pools"].append(given["cluster"]["pools"][0] | {"name": "others"})
    given["cluster"]["trainers"].append(given["cluster"]["trainers"][0] | {"name": "other"})
    with pytest.raises(BadInput) as error:
        sim.run(given)
    assert {one.message.split(";")[0] for one in error.value.problems} == {
        "it is not said which trainer", "it is not said which pool generates",
    }


def test_two_runs_beside_each_other():
    given = scenario()
    given["cluster"]["pools"].append(given["cluster"]["pools"][0] | {"name": "others"})
    given["cluster"]["trainers"].append(given["cluster"]["trainers"][0] | {"name": "other"})
    given["workloads"][0] |= {"trainer": "learner", "rollout": "rollouts"}
    result = sim.run(second(given, trainer="other", rollout="others"))
    table = result.tables["rl_steps"]
    ends = [table["end"][table["workload"] == code].tolist() for code in (0, 1)]
    assert ends[0] == pytest.approx(ends[1])
    assert all(check["ok"] for check in result.summary["audit"].values())


def test_answers_that_no_sample_can_use():
    with pytest.raises(BadInput, match=r"no group of a round could be trained on: .* or all answers were cut") as error:
        sim.run(scenario(tail={"kind": "truncate", "max_len": 10}))
    assert error.value.problems[0].path == "workloads.0"
