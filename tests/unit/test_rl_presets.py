"""Frameworks of reinforcement learning ready made: each says where it is from, passes the checks, runs, and gives way to what is written
beside it.
"""
from __future__ import annotations

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

import sim
from sim.cli import main
from sim.core.errors import BadInput
from sim.core.registry import WORKLOADS
from sim.policy.stale.verl import Verl
from sim.spec.schema import catalogue, json_schema
from workloads.rollouts import presets

EVIDENCE = ("published", "derived", "second-hand", "judgement")
REST = {"prompts": 16, "samples": 2, "prompt": 20, "answers": {"mean": 40, "sigma": 0.8, "cap": 120}, "solving": {"solve_rate": 0.5}}
WHOLE = ("areal_reasoning", "grpo_math_7b", "tail_batching_sync")
# Of gates that fill the engines: so many that these runs are short.
FEWER = {"prime_rl": {"max_inflight": 64}, "pipelinerl": {"max_concurrent": 32}, "laminar": {"max_concurrent": 32}}
WITH_REFERENCE = {"nemo_rl", "openrlhf", "skyrl"}
LEAD = {
    "agents": {"lead": {"task": 20, "calls": 3, "output": 15, "tools": {"run": 1}}}, "tools": {"run": {"time": "50ms", "observation": 9}},
}  # fmt: skip


def scenario(preset, **said):
    """Two steps on two engines, with a trainer where the mode of the preset wants it."""
    trainer = {"name": "learner", "gpu": "h100_sxm", "gpus": 2}
    if said.get("mode", presets.load(preset)["mode"]) == "sync_colocated":
        trainer["shares"] = "rollouts"
    pools = [{"name": "rollouts", "gpu": "h100_sxm", "replicas": 2}]
    run = {"kind": "rl", "preset": preset, "steps": 2, **REST, **said}
    return {"model": "Qwen/Qwen2.5-0.5B", "cluster": {"pools": pools, "trainers": [trainer]}, "workloads": [run]}


def checked(preset, **said):
    """The options that come of it; nothing is wrong with them."""
    values, problems = WORKLOADS.check({"kind": "rl", "preset": preset, "steps": 2, **REST, **said})
    assert problems == []
    return values


def sound(result):
    assert not {name: check for name, check in result.summary["audit"].items() if not check["ok"]}
    assert result.meta["remarks"] == []
    assert len(result.tables["rl_steps"]) == 2
    return result


# -- each of them ------------------------------------------------------------
@pytest.mark.parametrize("name", presets.names())
def test_it_says_where_its_figures_are_from(name):
    text = (presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert text.startswith("# ")
    assert all(any(word in source for word in EVIDENCE) for source in content["source"].values())
    assert presets.load(name) == {key: value for key, value in content.items() if key != "source"}


@pytest.mark.parametrize("name", presets.names())
def test_it_runs(name):
    gate = {"staleness": {**presets.load(name)["staleness"], **FEWER[name]}} if name in FEWER else {}
    result = sound(sim.run(scenario(name, **gate)))
    steps = result.tables["rl_steps"]
    assert steps["groups"].tolist() == [16, 16]
    assert bool((steps["logprob"] > 0).all()) == presets.load(name)["old_logprob"]
    assert bool((steps["reference"] > 0).all()) == (name in WITH_REFERENCE)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_run_needs_but_its_steps(name):
    values, problems = WORKLOADS.check({"kind": "rl", "preset": name, "steps": 3})
    assert problems == []
    assert (values["prompts"] * values["samples"], values["answers"].cap) == {
        "areal_reasoning": (8192, 8192), "grpo_math_7b": (8192, 28672), "tail_batching_sync": (1024, 16384),
    }[name]  # fmt: skip


def test_agents_run_under_a_gate_that_looks_at_each_turn():
    sound(sim.run(scenario("rollart", prompt=None, answers=None, **LEAD)))
    few = {"kind": "unbounded", **FEWER["laminar"]}
    found = scenario("laminar", staleness=few, prompt=None, answers=None, **LEAD)
    with pytest.raises(BadInput, match="found consolidate, which is for answers of one turn"):
        sim.loads(found)
    found["workloads"][0]["tail"] = None
    sound(sim.run(found))


# -- what they say ------------------------------------------------------------
def test_asynchronous_ones_use_the_log_probabilities_of_rollouts_but_where_they_are_said_to_compute_them():
    loaded = {name: presets.load(name) for name in presets.names()}
    assert {name for name, one in loaded.items() if one["mode"] == "async" and one["old_logprob"]} == {"nemo_rl"}
    assert all(one["old_logprob"] for one in loaded.values() if one["mode"] != "async")


def test_half_a_batch_more_than_verls_default_shows_in_what_is_started():
    """Of 16 groups a version, 17 may begin before the first is out with the threshold 0.1, and 24 with 0.5."""
    begun = {}
    for threshold in (0.1, 0.5):
        gate = {"kind": "verl", "staleness_threshold": threshold}
        table = sim.run(scenario("verl_async", staleness=gate)).tables["rl_groups"]
        begun[threshold] = int((table["submitted"] == 0).sum())
    assert begun == {0.1: 17, 0.5: 24}


def test_with_eta_0_areal_is_synchronous():
    lags = sim.run(scenario("areal")).tables["rl_samples"]["lag_submit"]
    assert set(lags[lags == lags].tolist()) == {0.0}


def test_what_is_too_old_for_roll_is_not_trained_on():
    lags = sim.run(scenario("roll")).tables["rl_samples"]["lag_submit"]
    assert set(lags[lags == lags].tolist()) == {0.0, 1.0}


# -- what a workload says goes first ------------------------------------------------------------
def test_keys_go_before_those_of_the_preset_also_within_groups_of_keys():
    plain = checked("verl_async")
    assert (plain["mode"], plain["updates"].trigger, plain["interrupt"].abort, plain["old_logprob"]) == ("async", 4, "resume", False)
    other = checked("verl_async", updates={"mini_batches": 2}, interrupt={"kv": "keep"}, old_logprob=True)
    assert (other["updates"].trigger, other["updates"].mini_batches) == (4, 2)
    assert (other["interrupt"].abort, other["interrupt"].kv, other["old_logprob"]) == ("resume", "keep", True)
    sampling = checked("slime", dynamic_sampling={"gen_batch_factor": 3})["dynamic_sampling"]
    assert (sampling.style, sampling.surplus, sampling.gen_batch_factor) == ("stream", "keep", 3)
    assert checked("slime", dynamic_sampling=None)["dynamic_sampling"] is None
    assert checked("grpo_math_7b", validation={"every": 5})["validation"].time.at(0.5) == 100


def test_kinds_and_laws_are_replaced_as_a_whole():
    found = checked("verl_async", staleness={"kind": "verl", "per_server": 4})["staleness"]
    assert (found["staleness_threshold"], found["per_server"]) == (Verl().staleness_threshold, 4)
    assert checked("verl_async", staleness={"kind": "skyrl"})["staleness"]["workers"] == 768
    assert checked("grpo_math_7b")["answers"].drift_per_100_steps == 1
    with pytest.raises(BadInput) as error:
        sim.loads(scenario("grpo_math_7b", answers={"mean": 3000}))
    assert [problem.path for problem in error.value.problems] == ["workloads.0.answers.cap"]


def test_another_mode_leaves_out_what_belongs_to_that_of_the_preset():
    found = checked("prime_rl", mode="sync_disaggregated")
    assert (found["staleness"], found["tail"]["kind"], found["sync"]["blocking"], found["interrupt"].kv) == (
        None, "wait_all", "blocking", "recompute",
    )  # fmt: skip
    assert checked("prime_rl", mode="one_step_off")["interrupt"].kv == "keep"
    assert checked("rollpacker", mode="sync_colocated", updates={"stream": None})["tail"]["kind"] == "tail_batching"
    assert checked("verl_sync", mode="one_step_off")["reward_at"] == "trajectory"
    sound(sim.run(scenario("seer", mode="one_step_off")))


def test_a_scenario_is_written_out_in_full_and_read_back(tmp_path):
    given = sim.loads(scenario("verl_async", updates={"mini_batches": 2}))
    (tmp_path / "again.yaml").write_text(sim.dump(given), encoding="utf-8")
    assert "verl_async" not in sim.dump(given)
    assert sim.load(tmp_path / "again.yaml") == given
    assert given.workloads[0]["interrupt"].abort == "resume"


# -- what is wrong ------------------------------------------------------------
def test_an_unknown_name_is_told_with_the_nearest(tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(scenario("verl_async")).replace("verl_async", "verl_asink"), encoding="utf-8")
    outcome = CliRunner().invoke(main, ["run", str(tmp_path / "x.yaml")])
    assert outcome.exit_code == 2
    assert "x.yaml:" in outcome.output
    assert "unknown preset 'verl_asink'; did you mean verl_async or verl_sync?" in outcome.output


def test_what_does_not_fit_the_workload_is_told_by_its_key():
    for name, said, path in (
        ("verl_async", {"prompts": 6}, "updates.trigger"),
        ("rollpacker", {"prompts": 8}, "updates.stream"),
        ("dapo", {"solving": {"solve_rate": 1.0}, "answers": {"value": 40, "cap": 120}}, "dynamic_sampling"),
        ("april", {"dynamic_sampling": {}}, "tail"),
        ("verl_sync", {"staleness": {"kind": "areal"}}, "staleness"),
        ("prime_rl", {"staleness": {"kind": "prime_rl", "max_inflight": 1}}, "staleness"),
        ("verl_sync", {"buffer": {"order": "fresh"}}, "buffer"),
    ):
        _, problems = WORKLOADS.check({"kind": "rl", "preset": name, "steps": 2, **REST, **said})
        assert [problem.path for problem in problems] == [path], (name, problems)


# -- editors and lists ------------------------------------------------------------
def test_editors_know_them():
    schema = json_schema()
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(scenario("areal"))) == []
    check = jsonschema.Draft202012Validator({"$ref": "#/$defs/workload.rl", "$defs": schema["$defs"]})
    for name in presets.names():
        run = {"kind": "rl", "steps": 2, **REST}
        assert not check.is_valid(run), "without a preset its mode is wanted"
        assert check.is_valid(run | {"preset": name})
        assert check.is_valid(run | presets.load(name))
    assert not check.is_valid(run | {"preset": "verl_asink"})
    assert not check.is_valid(run | {"preset": "areal", "agents_preset": "swe_agnet"})


def test_lists_have_them():
    assert [kind.kind for kind in catalogue("rl_preset")] == presets.names()
    assert all(kind.doc for kind in catalogue("rl_preset"))
    assert CliRunner().invoke(main, ["kinds", "rl_preset"]).output.startswith("rl_preset april: ")
