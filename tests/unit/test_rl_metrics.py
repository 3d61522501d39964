"""Figures of reinforcement learning, on tables made by hand whose figures are known, and on small runs."""
from __future__ import annotations

import math

import numpy as np
import pytest
from rl_samples import GRADE, LOGPROB, NAME, OUTPUTS, PRICE, STEP, TRAINERS, UPDATE, rl_run
from synthetic import PROMPT_SECONDS, SLOPE, edit, put, queue
from synthetic import STEP as TOKEN

from sim.core.registry import STALENESS
from sim.study.metrics import Facts
from sim.study.rl.staleness import BOUNDS, bound

UNBOUNDED = {"slime", "unbounded", "one_step_off"}


def served(output):
    """Seconds of a request."""
    steps = output - 1
    return PROMPT_SECONDS + steps * (TOKEN + SLOPE * (steps - 1) / 2)


# Samples 0 and 2 run on the first replica, 1 and 3 on the second, one after the other.
DONE = [served(100), served(200), served(100) + served(300), served(200) + served(50)]
LONG = max(DONE)


def figures(**options):
    return rl_run(**options).summary["rl"][NAME]


def test_a_run_without_it_has_none():
    assert queue(0.5, 50).summary["rl"] is None


def test_a_run_that_made_no_step_has_no_figures():
    result = rl_run()
    result.tables["rl_steps"] = type(result.tables["rl_steps"])("rl_steps", result.tables["rl_steps"].columns)
    result.tables["rl_steps"].label("workload", NAME)
    assert result.summary["rl"] == {NAME: None}
    assert isinstance(result.summary["why"], list)


def test_the_parts_of_a_step_are_its_seconds():
    found = figures()
    parts = found["breakdown"]["seconds"]
    wanted = {"generate": LONG, "reward": GRADE, "logprob": LOGPROB, "update": UPDATE, "sync": STEP - LONG - GRADE - LOGPROB - UPDATE}
    assert {name: seconds for name, seconds in parts.items() if seconds} == pytest.approx(wanted)
    assert sum(found["breakdown"]["share"].values()) == pytest.approx(1.0)
    assert found["step_s"]["mean"] == pytest.approx(STEP)
    assert (found["exposed_gen_s"], found["generate_s"]) == pytest.approx((LONG, LONG))
    assert found["trainer_idle_frac"] == pytest.approx((LONG + GRADE) / STEP)
    assert sum(found["trainer_states"].values()) == pytest.approx(1.0)


def test_what_no_column_says_is_told_as_other():
    result = rl_run()
    for row in range(3):
        edit(result.tables["rl_steps"], "sync", row, 0.0)
    parts = result.summary["rl"][NAME]["breakdown"]["seconds"]
    assert parts["other"] == pytest.approx(STEP - LONG - GRADE - LOGPROB - UPDATE)


@pytest.mark.parametrize(("mode", "steps", "skipped"), [
    ("sync_disaggregated", 3, 1), ("sync_disaggregated", 1, 0), ("async", 5, 3), ("async", 3, 0), ("one_step_off", 2, 1),
])  # fmt: skip
def test_the_warm_up_is_left_out_where_anything_is_left(mode, steps, skipped):
    found = figures(mode=mode, steps=steps)["steps"]
    assert found == {"made": steps, "skipped": skipped, "counted": steps - skipped, "begin": STEP * skipped, "end": STEP * steps}


def test_steps_that_do_not_count_change_nothing():
    result = rl_run()
    edit(result.tables["rl_steps"], "wait", 0, 0.0)
    edit(result.tables["rl_steps"], "update", 0, 9.0)
    assert result.summary["rl"][NAME]["breakdown"] == figures()["breakdown"]


# -- rollouts ----------------------------------------------------------------
def test_idle_counts_engines_with_one_sequence_as_busy_and_the_bubble_does_not():
    found = figures()["rollout"]
    busy = sum(served(output) for output in OUTPUTS)
    assert found["idle_frac"] == pytest.approx(1 - busy / (2 * STEP))
    assert found["bubble"] == pytest.approx(1 - sum(output - 1 for output in OUTPUTS) / (200.0 * 2 * STEP))
    assert found["mean_batch"] == pytest.approx(1.0, abs=0.02)
    held = sum(100 * (output - 1) + (output - 1) * (output - 2) / 2 for output in OUTPUTS)
    assert found["mean_context"] == pytest.approx(held / sum(output - 1 for output in OUTPUTS))


def test_a_bubble_is_never_less_than_the_idle_share():
    slow = {"context": [1.0, 1e6], "batch": [2.0, 2.0], "tokens_per_s": [1.0, 1.0]}
    found = figures(peak=slow)["rollout"]
    assert found["bubble"] == pytest.approx(found["idle_frac"])


def test_engines_that_sleep_are_not_idle():
    result = rl_run()
    for step in range(3):
        for replica in range(2):
            put(result.tables["pauses"], (replica, STEP * step + 5.0, STEP * (step + 1), 1, 0, 7))
    found = result.summary["rl"][NAME]
    busy = sum(served(output) for output in OUTPUTS)
    assert found["rollout"]["idle_frac"] == pytest.approx(1 - busy / 10.0)
    assert found["rollout"]["asleep_frac"] == pytest.approx(0.5)
    assert found["waste"]["forgotten_tokens"] == 6 * 7


def test_prompts_that_were_computed_twice_are_counted():
    result = rl_run()
    edit(result.tables["stretches"], "prefill_tokens", 0, 250)
    found = result.summary["rl"][NAME]
    assert found["rollout"]["recomputed_tokens"] == 150
    assert found["waste"]["multiple"] == pytest.approx(1350 / 1200)


# -- staleness ----------------------------------------------------------------
def test_lags_are_counted_and_those_beyond_the_bound():
    found = figures(mode="async", steps=6, lag=2)["staleness"]
    assert found["lag_submit"] == {"mean": 2.0, "max": 2.0, "histogram": {"2": 12}}
    assert found["bound"] == {"versions": 1.0, "of": "lag_submit", "violations": 12, "violations_share": 1.0}
    assert figures()["staleness"]["lag_mean"] == {"mean": 0.0, "max": 0.0, "histogram": {"0": 8}}
    assert figures()["staleness"]["bound"] is None


def test_samples_of_several_versions():
    result = rl_run(mode="async", steps=6, lag=2)
    samples = result.tables["rl_samples"]
    for row in (20, 21, 22):
        for column, value in (("segments", 3), ("newest", 5), ("lag_mean", 0.6)):
            edit(samples, column, row, value)
    found = result.summary["rl"][NAME]["staleness"]
    assert (found["partial_ratio"], found["max_partial_span"]) == (0.25, 2)
    assert found["lag_mean"]["histogram"] == {"0.5": 3, "2": 9}


@pytest.mark.parametrize("kind", STALENESS.names())
def test_the_bound_of_every_gate_is_known(kind):
    options = STALENESS.check({"kind": kind, **({"max_concurrent": 8} if kind == "unbounded" else {})})[0]
    found = bound({"mode": "async", "gate": options})
    assert (found is None) == (kind in UNBOUNDED)
    assert kind in UNBOUNDED or BOUNDS[kind][0] in options


def test_verl_bounds_a_fraction_of_a_batch():
    gate = {"kind": "verl", "staleness_threshold": 0.5}
    assert bound({"mode": "async", "gate": gate}) == (1.0, "submit")
    assert bound({"mode": "one_step_off", "gate": None}) == (1.0, "submit")
    assert bound({"mode": "sync_colocated", "gate": None}) is None


# -- lengths and tails ----------------------------------------------------------------
def test_short_answers_that_are_trained_on_more_often_are_a_bias():
    assert figures()["lengths"]["trained_over_generated"] == 1.0
    result = rl_run()
    for row in (6, 10):
        edit(result.tables["rl_samples"], "kept", row, 0)
        edit(result.tables["rl_samples"], "cut", row, 1)
    found = result.summary["rl"][NAME]["lengths"]
    generated, trained = np.mean(OUTPUTS), np.mean([OUTPUTS[0], OUTPUTS[1], OUTPUTS[3]])
    assert found["trained_over_generated"] == pytest.approx(trained / generated)
    assert (found["generated_cut"], found["trained_cut"]) == (0.25, 0.0)


def test_the_tail_of_rounds():
    found = figures()["tail"]
    shares, times = zip(*found["curve"], strict=True)
    done = np.sort(DONE) / LONG
    assert times == pytest.approx(np.quantile(done, shares), abs=1e-9)
    assert times[-1] == pytest.approx(1.0)
    assert found["last_10_percent"] == pytest.approx(1 - np.quantile(done, 0.9))
    assert found["first_to_last"] == pytest.approx((LONG - DONE[3]) / LONG)
    assert found["idle_frac"] == pytest.approx(1 - sum(served(output) for output in OUTPUTS) / (2 * LONG))
    assert found["running_at"]["0.5"] == pytest.approx(np.mean(done > 0.5))
    assert (found["rounds"], found["round_s"]) == (2, pytest.approx(LONG))


def test_one_step_off_has_rounds_and_asynchronous_runs_have_none():
    assert figures(mode="async", steps=5)["tail"] is None
    assert figures(mode="async", steps=5)["generate_s"] is None
    found = figures(mode="one_step_off")
    tail, other = found["tail"], figures()["tail"]
    assert np.array(tail["curve"]) == pytest.approx(np.array(other["curve"]))
    assert (tail["idle_frac"], tail["first_to_last"]) == pytest.approx((other["idle_frac"], other["first_to_last"]))
    assert found["generate_s"] == pytest.approx(LONG)


# -- waste, rewards, syncs ----------------------------------------------------------------
def test_tokens_in_vain_by_reason():
    result = rl_run()
    waste = result.tables["rl_waste"]
    put(waste, (0, 0, waste.label("reason", "surplus"), 65))
    edit(result.tables["rl_samples"], "masked", 1, 1)
    found = result.summary["rl"][NAME]["waste"]
    # In the second group of each step all are right; what is left of the first, where one is masked, has nothing to differ from.
    assert found["tokens"] == {"surplus": 65, "masked": 200, "no_advantage": 3 * 350 + 100}
    assert found["generated"] == 3 * sum(OUTPUTS) + 65
    assert found["share"] == pytest.approx(found["total"] / found["generated"])


def test_groups_that_are_gone_count_once():
    result = rl_run()
    groups, waste = result.tables["rl_groups"], result.tables["rl_waste"]
    edit(groups, "state", 0, groups.label("state", "rejected"))
    put(waste, (0, 0, waste.label("reason", "zero_variance"), 300))
    assert result.summary["rl"][NAME]["waste"]["generated"] == 3 * sum(OUTPUTS)


def test_graders():
    result = rl_run()
    grades = result.tables["rl_grades"]
    edit(grades, "outcome", 5, grades.label("outcome", "timeout"))
    edit(grades, "outcome", 6, grades.label("outcome", "cancelled"))
    found = result.summary["rl"][NAME]["rewards"]["rule"]
    assert (found["count"], found["outcomes"]) == (7, {"ok": 6, "timeout": 1, "cancelled": 1})
    assert (found["time_s"]["mean"], found["queue_s"]["mean"], found["longest_s"]) == pytest.approx((GRADE, 0.1, GRADE))
    assert found["utilization"] == pytest.approx(7 * (GRADE - 0.1) / (2 * 2 * STEP))


def test_a_judge_that_is_rented_costs_what_it_is_busy():
    result, base = rl_run(), rl_run().summary["cost"]
    assert base["usd_judges"] is None
    result.meta["rl"][0]["rented"] = {"rule": 36.0}
    edit(result.tables["rl_grades"], "end", 5, math.nan)
    grades, cost = result.tables["rl_grades"], result.summary["cost"]
    ends = [cost["usd_total"] / cost["usd_per_hour"] * 3600.0 if math.isnan(end) else end for end in grades["end"]]
    busy = sum(ends) - grades["start"].sum() - grades["queued"].sum()
    assert cost["usd_judges"] == pytest.approx(36.0 * busy / 3600.0)
    assert cost["usd_total"] == pytest.approx(base["usd_total"] + cost["usd_judges"])


def test_syncs():
    found = figures()["syncs"]
    whole = STEP - LONG - GRADE - LOGPROB - UPDATE
    assert found["time_s"]["mean"] == found["trainer_stall_s"] == pytest.approx(whole)
    assert found["engines_pause_s"] == pytest.approx(whole - 0.25)
    assert (found["count"], found["gb_moved"], found["gb_per_s"]) == pytest.approx((2, 8.0, 4.0))


def test_bytes_that_move_while_engines_go_on_move_from_when_they_are_gathered():
    result = rl_run()
    for row in range(3):
        edit(result.tables["rl_syncs"], "paused", row, float(result.tables["rl_syncs"]["moved"][row]) + 0.5)
    assert result.summary["rl"][NAME]["syncs"]["gb_per_s"] == pytest.approx(4.0)


# -- rates and money ----------------------------------------------------------------
def test_rates_and_money():
    result = rl_run()
    found, time, gpus = result.summary["rl"][NAME], 2 * STEP, 2 + TRAINERS
    rates, money = found["throughput"], found["money"]
    assert rates["trained_tokens_per_s_per_gpu"] == pytest.approx(2 * sum(OUTPUTS) / (time * gpus))
    assert rates["generated_tokens_per_s_per_rollout_gpu"] == pytest.approx(2 * sum(OUTPUTS) / (time * 2))
    assert rates["useful_share"] == pytest.approx(300 / sum(OUTPUTS))
    assert (rates["trained_samples_per_s"], rates["goodput_samples_per_s"]) == pytest.approx((8 / time, 4 / time))
    hourly = 2 * 3.6 + TRAINERS * PRICE
    assert money["usd_per_step"] == pytest.approx(hourly * STEP / 3600)
    assert money["usd_per_trained_sample"] == pytest.approx(hourly * STEP / 3600 / 4)
    assert money["gpu_hours_per_step"] == pytest.approx(gpus * STEP / 3600)
    assert found["mfu"] == pytest.approx({"update": 0.4, "update_full_attention": 0.5, "of_time": 0.4 * UPDATE / STEP})
    assert found["latency"]["longest_sample_tokens_per_s"] == pytest.approx(300 / DONE[2])


def test_the_names_of_verl():
    found = figures()["verl"]
    assert found["timing_s/step"] == pytest.approx(STEP)
    assert found["timing_s/gen"] == found["timing_s/generate_sequences"] == pytest.approx(LONG)
    assert found["perf/throughput"] == pytest.approx((sum(OUTPUTS) + 400) / (STEP * 4))
    assert (found["response_length/mean"], found["prompt_length/mean"], found["response_length/max"]) == (np.mean(OUTPUTS), 100.0, 300.0)
    assert found["perf/mfu/actor"] == pytest.approx(0.5)
    assert "timing_s/wait_prev_gen" not in found
    assert figures(mode="one_step_off")["verl"]["timing_s/wait_prev_gen"] == pytest.approx(LONG)


def test_two_runs_do_not_mix():
    result = rl_run()
    for name in ("rl_steps", "rl_groups", "rl_samples", "rl_grades", "rl_syncs"):
        table = result.tables[name]
        other = table.label("workload", "other")
        rows = [tuple(table[column.name][row].item() for column in table.columns)[1:] for row in range(len(table))]
        for row in rows:
            table.append((other, *row))
    result.meta["rl"].append(result.meta["rl"][0] | {"name": "other"})
    found = Facts(result).rl
    assert found["other"]["staleness"] == found[NAME]["staleness"] == figures()["staleness"]
    assert found["other"]["breakdown"] == figures()["breakdown"]


# -- why ----------------------------------------------------------------
def causes(result):
    return {reason["cause"]: reason for reason in result.summary["why"]}


def test_a_run_that_waits_for_its_rollouts_says_so():
    found = causes(rl_run())
    assert found["rl_rollouts"]["share"] == pytest.approx(LONG / STEP, abs=1e-4)
    assert "waited for answers in 41% of a step" in found["rl_rollouts"]["text"]
    assert found["rl_waste"]["share"] == pytest.approx(350 / sum(OUTPUTS), abs=1e-4)
    assert {"rl_reward", "rl_sync"} <= found.keys()
    assert not {"rl_trainer", "rl_tail"} & found.keys()


def test_a_long_tail_is_one_that_gpus_do_not_shorten():
    found = causes(rl_run(asked=(20, 30, 500, 25)))
    done = np.sort([served(20), served(30), served(20) + served(500), served(30) + served(25)])
    assert found["rl_tail"]["share"] == pytest.approx(1 - np.quantile(done, 0.9) / done[-1], abs=1e-4)
    assert "no further GPU raises" in found["rl_rollouts"]["text"]


def test_samples_of_many_calls_are_not_told_to_be_bound_by_engines():
    result = rl_run()
    for row in range(12):
        edit(result.tables["rl_samples"], "turns", row, 3)
    assert "A sample makes 3 calls" in causes(result)["rl_rollouts"]["text"]


def test_samples_that_a_limit_cuts_are_told_where_they_are_many():
    assert "rl_cut" not in causes(rl_run())
    result = rl_run()
    edit(result.tables["rl_samples"], "cut", 11, 1)
    found = causes(result)["rl_cut"]
    assert found["share"] == pytest.approx(1 / 8, abs=1e-4)
    assert found["text"].startswith("Cut off: 12% of the samples that ended ran into a limit, the cap of answers")


def test_a_trainer_that_never_waits_binds():
    result = rl_run(mode="async", steps=6)
    for row in range(6):
        edit(result.tables["rl_steps"], "wait", row, 0.0)
        edit(result.tables["rl_steps"], "reward", row, 0.0)
        edit(result.tables["rl_steps"], "update", row, 6.0)
        edit(result.tables["rl_steps"], "queued", row, 3)
    found = causes(result)
    assert "rl_rollouts" not in found
    text = found["rl_trainer"]["text"]
    assert "The trainer binds" in text
    assert "the update took 60% of a step" in text
    assert "3 groups were ready" in text


def test_no_reason_of_it_without_it():
    assert not any(cause.startswith("rl_") for cause in causes(queue(0.7, 100)))


def test_stops_are_named():
    result = rl_run()
    for row in range(3):
        edit(result.tables["rl_steps"], "sync", row, 0.0)
        edit(result.tables["rl_steps"], "checkpoint", row, 1.0)
    assert causes(result)["rl_stops"] == {"cause": "rl_stops", "share": 0.1, "text": "Stops: of a step, checkpoints 10%."}
    assert not math.isnan(result.summary["rl"][NAME]["breakdown"]["seconds"]["other"])
