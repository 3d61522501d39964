"""`burstsim validate --rl`: published runs as scenarios by stated rules, one length law per setup, errors, and what cannot be done."""
from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from click.testing import CliRunner

from sim.cli import main
from sim.core.errors import BadInput
from sim.report import accuracy_rl
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.load import loads
from sim.spec.trainer import Trainer
from sim.study.validate import rl, rl_lengths
from sim.study.validate.rl import COLUMNS, Doing, filled, gathered, validate_rl
from sim.study.validate.rl_figures import Found, gpus
from sim.study.validate.rl_framework import FRAMEWORKS, framework_of, page_of
from sim.study.validate.rl_goals import judged
from sim.study.validate.rl_layout import engine_gpus, trainer
from sim.study.validate.rl_plan import mode_of, named, plan_of
from sim.study.validate.rl_rows import read

HEAD = (
    "id,source,place,framework,algorithm,model,gpu,n_gpus,alloc_rollout_train,mode,staleness,prompts_per_step,samples_per_prompt,"
    "max_response_tokens,mean_response_tokens,step_s,gen_s,old_logprob_s,train_s,wait_prev_gen_s,tok_s_gpu,total_h,steps,speedup_vs_sync,note"
)  # fmt: skip
SYNC = {
    "id": "sync", "source": "a page", "framework": "verl", "algorithm": "DAPO", "model": "Qwen2.5-Math-7B", "gpu": "H20", "n_gpus": 32,
    "alloc_rollout_train": "colocated", "mode": "sync", "prompts_per_step": 64, "samples_per_prompt": 8, "max_response_tokens": 8192,
    "step_s": 200, "gen_s": 100, "old_logprob_s": 20, "train_s": 60, "total_h": 5.5, "steps": 100, "speedup_vs_sync": 1,
}  # fmt: skip
ASYNC = {**SYNC, "id": "async", "alloc_rollout_train": "16:16", "mode": "async+stream+partial", "staleness": "0.5", "step_s": 100,
         "gen_s": 30, "old_logprob_s": "", "speedup_vs_sync": 2, "total_h": 2.75}  # fmt: skip
TINY = {
    "id": "tiny", "source": "another", "framework": "NeMo RL", "algorithm": "GRPO", "model": "Qwen2.5-1.5B", "gpu": "H100", "n_gpus": 4,
    "mode": "sync", "prompts_per_step": 8, "samples_per_prompt": 4, "max_response_tokens": 512, "mean_response_tokens": 200, "step_s": 9,
    "tok_s_gpu": 180,
}  # fmt: skip


def written(folder, *rows):
    path = folder / "runs.csv"
    pd.DataFrame([dict.fromkeys(HEAD.split(","), "") | row for row in rows]).to_csv(path, index=False)
    return path


def rows_of(folder, *rows):
    return read(written(folder, *rows))[0]


def row_of(folder, **changes):
    return rows_of(folder, SYNC | changes)[0]


def known(what, plan):
    return next(one.value for one in plan.assumed if one.what == what)


# -- the table ------------------------------------------------------------------
def test_numbers_and_texts_are_read(tmp_path):
    row = row_of(tmp_path)
    assert (row["step_s"], row["n_gpus"], row["mode"], row["line"]) == (200.0, 32.0, "sync", 2)
    assert math.isnan(row["mean_response_tokens"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"step_s": "fast"}, "step_s: found 'fast'"), ({"n_gpus": 0}, "n_gpus: found 0"), ({"samples_per_prompt": 1.5}, "a whole number"),
        ({"train_s": -3}, "train_s: found -3"),
        ({"mean_response_tokens": 9000}, "is above max_response_tokens"),
        ({"model": " "}, "model: is empty"),
        ({"mean_response_tokens": 2000, "tok_s_gpu": 1}, "known inconsistent"), ({"train_s": 300}, "more than the step of 200 s"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_true_is_left_out_with_its_line(tmp_path, changes, why):
    kept, out = read(written(tmp_path, ASYNC, SYNC | changes))
    assert [row["id"] for row in kept] == ["async"]
    assert out[0]["id"] == "sync"
    assert "line 3" in out[0]["why"]
    assert why in out[0]["why"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no column 'id'"), ("id,model,n_gpus\nx,y,1\n", "no published figure"), ("id,model,n_gpus,step_s\n", "holds no row"),
        ("id,model,n_gpus,step_s\nx,m,1,2\nx,m,1,3\n", "is in line 2 already"), ("id,model,n_gpus,step_s\n,m,1,2\n", "found an empty cell"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, why):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=why):
        read(path)


def test_rows_of_one_id_are_figures_of_one_run(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("id,model,n_gpus,metric,reported\nx,m,8,tail_idle_share,0.4\nx,m,8,preemptions,12\n")
    (row,) = read(path)[0]
    assert row["figures"] == {"tail_idle_share": 0.4, "preemptions": 12.0}


# -- plans ------------------------------------------------------------------
def test_reported_times_of_the_trainer_are_inputs_and_steps_and_waits_never_are(tmp_path):
    row = row_of(tmp_path)
    load = plan_of(row).scenario["workloads"][0]
    assert load["times"] == {"update": pytest.approx(60 * 1.03), "logprob": pytest.approx(20 * 1.03)}
    other = plan_of(row | {"step_s": 777.0, "wait_prev_gen_s": 55.0, "gen_s": 11.0, "total_h": 9.0, "speedup_vs_sync": 3.0})
    assert other.scenario == plan_of(row).scenario
    assert other.assumed == plan_of(row).assumed


@pytest.mark.parametrize("row", [SYNC, ASYNC, TINY, ASYNC | {"mode": "one-step-overlap", "alloc_rollout_train": "8:24"},
                                 ASYNC | {"framework": "AReaL", "staleness": "8 (math) / 4 (code)"},
                                 ASYNC | {"framework": "prime-rl", "staleness": 8},
                                 ASYNC | {"framework": "SkyRL", "staleness": ""}, ASYNC | {"framework": "ROLL Flash", "staleness": 1},
                                 ASYNC | {"framework": "slime", "staleness": ""}, ASYNC | {"framework": "home-made", "staleness": ""},
                                 SYNC | {"alloc_rollout_train": "16:16"}], ids=lambda row: f"{row['framework']}-{row['mode']}")  # fmt: skip
def test_every_plan_is_a_valid_scenario_on_the_gpus_that_were_published(tmp_path, row):
    plan = plan_of(rows_of(tmp_path, row)[0])
    assert not plan.reason
    loads(plan.scenario)
    assert gpus(plan.scenario) == row["n_gpus"]


def test_words_of_frameworks_and_modes(tmp_path):
    row = row_of(tmp_path)
    assert mode_of(row | {"mode": "VLLM+FSDP2 one-step-overlap"}) == "one_step_off"
    assert mode_of(row | {"alloc_rollout_train": "16:16"}) == "sync_disaggregated"
    assert mode_of(row | {"mode": "hybrid engine"}) == "sync_colocated"
    assert mode_of(row | {"mode": "1-off-policy"}) == "async"
    with pytest.raises(BadInput, match="neither sync, async nor one-step-off"):
        mode_of(row | {"mode": "lazy"})
    gate = plan_of(rows_of(tmp_path, ASYNC | {"framework": "AReaL", "staleness": "8 (math) / 4 (code)"})[0])
    assert gate.scenario["workloads"][0]["staleness"] == {"kind": "areal", "eta": 8}
    assert known("bound on staleness", gate) == "8"
    assert framework_of("veRL")[1]
    assert not framework_of("")[1]
    assert page_of(row | {"source": "RollPacker NSDI26 pdf"}).tp == 2


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_defaults_are_those_of_the_presets(tmp_path, name):
    """Where a row says nothing, a published run is what a workload with the preset of its framework is."""
    silent = {"framework": name, "staleness": "", "train_s": "", "gen_s": ""}
    plan = plan_of(rows_of(tmp_path, ASYNC | silent)[0])
    found = loads(plan.scenario).workloads[0]
    usual = {key: found[key] for key in ("rollout", "trainer", "prompts", "samples", "steps", "prompt", "answers", "solving")}
    alone = {"kind": "rl", "preset": FRAMEWORKS[name].preset, **usual}
    same = loads({**plan.scenario, "workloads": [alone]}).workloads[0]
    keys = ("staleness", "interrupt", "old_logprob", "reference", "sync")
    assert {key: found[key] for key in keys} == {key: same[key] for key in keys}
    assert found["updates"].trigger == same["updates"].trigger


def test_a_framework_has_other_defaults_in_other_modes(tmp_path):
    """verl's rounds, its batches, and what runs one step ahead; a bound for a framework that nobody knows."""
    silent = {"train_s": "", "old_logprob_s": "", "gen_s": ""}
    first, ahead, unknown = (plan_of(row).scenario["workloads"][0] for row in rows_of(
        tmp_path, SYNC | silent | {"prompts_per_step": "", "samples_per_prompt": ""},
        ASYNC | silent | {"mode": "one-step-overlap", "alloc_rollout_train": "8:24"},
        ASYNC | silent | {"id": "unknown", "framework": "home-made", "staleness": ""},
    ))  # fmt: skip
    assert (first["prompts"], first["samples"], first["updates"]) == (512, 16, {"trigger": 1, "mini_batches": 16})
    assert (first["reward_at"], first["rewards"], first["old_logprob"]) == ("batch", [{"kind": "rule", "workers": 64}], True)
    assert (ahead["old_logprob"], ahead["updates"]) == (True, {"trigger": 1, "mini_batches": 2})
    assert "reward_at" not in ahead
    assert unknown["staleness"] == {"kind": "areal", "eta": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gpu": ""}, "gpu: is empty"), ({"gpu": "TPU-v5"}, "'TPU-v5' is not in the catalogue"), ({"model": "Nobody-7B"}, "unknown model"),
        ({"algorithm": "", "prompts_per_step": ""}, "prompts_per_step: is empty"), ({"mode": "lazy"}, "neither sync"),
        ({"mode": "async", "alloc_rollout_train": "30:30"}, "more than the 32 GPUs"),
        ({"n_gpus": 1, "model": "DeepSeek V3"}, "no whole number of engines"),
        ({"mode": "async", "framework": "SkyRL", "staleness": "0.5"}, "no whole number of versions"),
        ({"n_gpus": ""}, "n_gpus: is empty"),
        ({"mode": "async", "alloc_rollout_train": "32:0"}, "without a GPU"),
    ],
)  # fmt: skip
def test_a_row_that_says_too_little_has_a_reason(tmp_path, changes, why):
    plan = plan_of(row_of(tmp_path, **changes))
    assert why in plan.reason
    assert not plan.scenario


def test_all_that_is_missing_is_said_at_once(tmp_path):
    reason = plan_of(row_of(tmp_path, gpu="", prompts_per_step="", algorithm="")).reason
    assert "gpu: is empty" in reason
    assert "prompts_per_step: is empty" in reason


def test_models_are_found_as_tables_write_them():
    assert named("R1-Distill-Qwen-32B") == "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
    assert named("Qwen3-30B-A3B") == "Qwen/Qwen3-30B-A3B"
    assert named("DeepSeek-671B") == "deepseek-ai/DeepSeek-V3"


def test_a_gpu_that_is_not_said_is_that_of_the_same_source(tmp_path):
    rows = filled(rows_of(tmp_path, SYNC, ASYNC | {"gpu": ""}, TINY | {"gpu": ""}))
    assert [row["gpu"] for row in rows] == ["H20", "H20", ""]
    assert known("GPU", plan_of(rows[1])) == "H20"


def test_engines_and_trainers_fit_their_gpus():
    chip = gpu("h100_sxm")
    assert [engine_gpus(llm(name), chip, 32) for name in ("Qwen2.5-1.5B", "Qwen2.5-32B", "Qwen3-235B-A22B")] == [1, 2, 16]
    assert engine_gpus(llm("Qwen2.5-72B"), chip, 60) == 4
    for name, count in (("Qwen2.5-1.5B", 1), ("Qwen2.5-32B", 32), ("DeepSeek-V3", 256), ("GLM-4.5-Air", 32)):
        Trainer(gpu="h100_sxm", gpus=count, **trainer(llm(name), chip, count, 8192))
    with pytest.raises(BadInput, match="no layout"):
        trainer(llm("DeepSeek-V3"), chip, 8, 8192)


# -- lengths ------------------------------------------------------------------
@pytest.mark.parametrize(("mean", "limit"), [(701, 1536), (3203, 4096), (5698, 8192), (200, 65536)])
def test_a_published_mean_is_the_mean_with_the_limit_in_force(mean, limit):
    law = rl_lengths.published(mean, limit)
    assert rl_lengths.limited(law.mean, limit) == pytest.approx(mean, rel=1e-6)


def test_a_mean_is_fitted_to_the_time_of_a_round():
    tried = []

    def seconds(mean):
        tried.append(mean)
        return 20 + 0.04 * mean**0.9

    mean, found = rl_lengths.fitted(60.0, seconds, 2500)
    assert found == pytest.approx(60, rel=rl_lengths.NEAR)
    assert mean == pytest.approx(1000 ** (1 / 0.9), rel=0.05)
    assert len(tried) < rl_lengths.TRIES
    with pytest.raises(BadInput, match="no mean of"):
        rl_lengths.fitted(10.0, seconds, 2500)


# -- all of it ------------------------------------------------------------------
def stand_in(plan):
    """Figures of a plan that nobody ran."""
    step = 150.0 if plan.mode == "sync_colocated" else 100.0
    return Found({"step_s": step, "wait_s": 33.0, "gen_s": 90.0, "total_h": 3.0, "tok_s_gpu": 180.0}, 1.0)


def fit(plan):
    return 1234.0, plan.fits * 1.001


@pytest.fixture
def summary(tmp_path):
    rows = SYNC, ASYNC, TINY, SYNC | {"id": "nowhere", "gpu": "", "source": "nobody"}
    return validate_rl(written(tmp_path, *rows), tmp_path / "out", own=False, doing=Doing(stand_in, fit))


def test_errors_leave_out_what_was_an_input(summary, tmp_path):
    errors = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert tuple(errors.columns) == COLUMNS
    found = {name: set(part["metric"]) for name, part in errors.groupby("id")}
    assert found == {
        "sync": {"step_s", "total_h"}, "async": {"step_s", "wait_s", "total_h", "speedup_vs_sync"}, "tiny": {"step_s", "tok_s_gpu"},
    }  # fmt: skip
    speed = errors[(errors["id"] == "async") & (errors["metric"] == "speedup_vs_sync")].iloc[0]
    assert (speed["measured"], speed["predicted"], speed["ape"]) == (2, 1.5, 0.25)


def test_one_length_law_serves_a_setup_and_is_fitted_to_its_synchronous_run_alone(summary):
    plans = {plan.id: plan for plan in summary.plans}
    for name in ("sync", "async"):
        assert plans[name].scenario["workloads"][0]["answers"]["mean"] == 1234.0
        assert "fitted to gen_s of sync" in next(one.source for one in plans[name].assumed if one.what == "mean length of answers")
    assert plans["tiny"].length.how == "published"
    assert [one["id"] for one in summary.fits] == ["sync"]


def test_rows_that_could_not_be_done_are_listed(summary, tmp_path):
    listed = pd.read_csv(tmp_path / "out" / "could_not.csv")
    assert list(listed["id"]) == ["nowhere"]
    assert "gpu: is empty" in listed["why"].iloc[0]
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (told["rows"], told["predicted"]) == (4, 3)


def test_what_breaks_costs_one_row(tmp_path):
    def broken(plan):
        if plan.id == "async":
            raise ZeroDivisionError("nothing to divide by")
        return stand_in(plan)

    found = validate_rl(written(tmp_path, SYNC, ASYNC), own=False, doing=Doing(broken, fit))
    assert set(found.found) == {"sync"}
    assert "ZeroDivisionError" in found.could_not[0]["why"]
    with pytest.raises(BadInput, match="gpu: is empty"):
        validate_rl(written(tmp_path, SYNC | {"gpu": ""}), own=False, doing=Doing(stand_in, fit))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path):
    table = written(tmp_path, SYNC)
    with pytest.raises(BadInput, match="cannot write to"):
        validate_rl(table, table, own=False, doing=Doing(None, None))


def test_page_and_section_show_everything(summary):
    text = accuracy_rl.markdown(summary)
    said = "Qwen2.5-Math-7B, 32 h20 shared, sync_colocated", "Qwen2.5-Math-7B, 32 h20 16:16, async, staleness_threshold 0.5"
    for word in (*said, "nowhere", "fitted", "input", "judgement"):
        assert word in text
    page = accuracy_rl.page(summary)
    assert "<svg" in page
    assert "trainer waited" in page
    assert "Published and simulated" in accuracy_rl.terminal(summary)
    first = accuracy_rl.merged("# Accuracy\n", text)
    assert accuracy_rl.merged(first, text) == first
    assert first.startswith("# Accuracy\n\n")
    assert accuracy_rl.section_of(first) == text


def test_goals_are_judged_on_the_runs_they_name(tmp_path):
    ladder = [ASYNC | {"id": f"verl_fa_7b_128_stale{bound}", "staleness": bound, "step_s": 98} for bound in ("0", "0.5")]
    found = validate_rl(written(tmp_path, *ladder), own=False, doing=Doing(stand_in, fit))
    goals = {goal["goal"]: goal["met"] for goal in judged(found.errors, found.plans, found.found)}
    assert goals == {
        "verl 7B, 128 H20, staleness 0, 0.1, 0.3: step": True, "verl 7B, 128 H20, staleness 0.5: step": True,
        "verl 7B, 128 H20: wait falls with staleness": True,
    }  # fmt: skip
    found.found["verl_fa_7b_128_stale0.5"].figures["wait_s"] = 50.0
    assert not judged(found.errors, found.plans, found.found)[-1]["met"]


def test_the_projects_own_rows_come_after_those_of_the_table(tmp_path):
    rows, out = gathered(written(tmp_path, SYNC, TINY | {"id": "ce_k2_16h20"}), True)
    assert not out
    assert [row["id"] for row in rows[:2]] == ["sync", "ce_k2_16h20"]
    assert len({row["id"] for row in rows}) == len(rows) > 5
    plans = [plan_of(row) for row in rows[2:]]
    assert {plan.id for plan in plans if plan.reason} == {"rollart_offload"}
    for plan in plans:
        if not plan.reason and "sync" not in plan.scenario:
            loads(plan.scenario)


def test_the_command_simulates_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rl, "gathered", lambda path, own: gathered(path, False))
    table, out = written(tmp_path, TINY), tmp_path / "out"
    arguments = ["validate", "--rl", table, "-o", out, "--jobs", 1, "--accuracy", tmp_path / "ACCURACY.md"]
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    errors = pd.read_csv(out / "errors.csv").set_index("metric")
    assert set(errors.index) == {"step_s", "tok_s_gpu"}
    # 512 tokens at more than 2 ms each, and two passes of the trainer with 3.5 s of their own beside the kernels.
    assert 5 < errors.loc["step_s", "predicted"] < 30
    tokens = errors.loc["step_s", "predicted"] * errors.loc["tok_s_gpu", "predicted"] * 4 / 32
    assert tokens == pytest.approx(200 + 150, rel=0.2)
    assert (out / "accuracy_rl.html").is_file()
    assert "Reinforcement learning" in (tmp_path / "ACCURACY.md").read_text()


@pytest.mark.parametrize("arguments", [[], ["x.csv", "--rl", "y.csv"], ["--rl", "y.csv", "--force"], ["x.csv"]])
def test_what_the_command_cannot_take(arguments):
    assert CliRunner().invoke(main, ["validate", *arguments]).exit_code == 2
