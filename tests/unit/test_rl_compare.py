"""Modes of reinforcement learning against each other: what one gained and lost, by figures made by hand and by small runs."""
from __future__ import annotations

import copy

import pytest

import sim
from sim.study.rl.compare import compare, compare_figures

PARTS = ("generate", "reward", "logprob", "reference", "update", "sync", "switch", "checkpoint", "validation", "data", "other")
MODEL = "Qwen/Qwen2.5-1.5B"


def run(mode, parts, gpus, whole=None, **more):
    """The figures of a run that are compared: seconds by part, (rollout, train, all) GPUs, seconds of a round or None."""
    seconds = dict.fromkeys(PARTS, 0.0) | parts
    step = sum(seconds.values())
    found = {
        "mode": mode, "gpus": dict(zip(("rollout", "train", "all"), gpus, strict=True)), "step_s": {"mean": step},
        "breakdown": {"seconds": seconds}, "generate_s": whole, "trainer_idle_frac": 0.5, "staleness": None,
        "rollout": {"idle_frac": more.get("idle", 0.0), "asleep_frac": 0.0, "bubble": 0.2, "recompute_s": more.get("again", 0.0)},
        "throughput": {"trained_samples_per_s": more.get("samples", 100) / step}, "money": {"usd_per_step": 1.0},
        "lengths": {"trained": {"mean": more.get("length", 1000.0)}},
    }  # fmt: skip
    return found


TOGETHER = run("sync_colocated", {"generate": 100.0, "logprob": 20.0, "update": 60.0, "switch": 10.0}, (16, 16, 16), 100.0)


def test_terms_sum_to_what_is_saved():
    split = run("async", {"generate": 20.0, "update": 90.0, "sync": 2.0}, (8, 8, 16), idle=0.05, again=4.0)
    found = compare_figures({"together": TOGETHER, "split": split})
    rows, text = found.rows, found.text
    first, second = rows
    assert (first["saved_s"], first["speedup"]) == (0.0, 1.0)
    assert set(first["terms"].values()) == {0.0}
    assert second["saved_s"] == pytest.approx(190.0 - 112.0)
    assert sum(second["terms"].values()) == pytest.approx(second["saved_s"])
    whole = 0.95 * 112.0
    assert second["terms"] == pytest.approx({
        "generation": 100.0 - (whole - 4.0), "recompute": -4.0, "overlap": whole - 20.0, "logprob": 20.0, "update": -30.0, "sync": 8.0,
        "reward": 0.0, "other": 0.0,
    })  # fmt: skip
    assert (second["x_update"], second["x_generation"]) == pytest.approx((1.5, whole / 100))
    assert text.startswith("split is the fastest: 112 s a step, 1.70 times as fast as together.")
    assert "Gained: overlap 86.4 s, log-probabilities 20 s" in text
    assert "prompts computed again 4 s" in text


def test_a_run_that_trains_on_shorter_answers_is_told():
    short = run("sync_colocated", {"generate": 40.0, "update": 30.0}, (16, 16, 16), 40.0, length=600.0)
    assert "It trains on shorter answers, 0.60 times as long: by tokens it is 1.63 times as fast." in compare_figures(
        {"together": TOGETHER, "short": short}).text  # fmt: skip
    same = run("sync_colocated", {"generate": 40.0, "update": 30.0}, (16, 16, 16), 40.0, length=970.0)
    assert "times as long" not in compare_figures({"together": TOGETHER, "same": same}).text


def test_asynchronous_work_may_lose_and_why_is_said():
    slow = run("one_step_off", {"generate": 150.0, "logprob": 22.0, "update": 70.0}, (4, 12, 16), 242.0)
    found = compare_figures({"together": TOGETHER, "slow": slow})
    rows, text = found.rows, found.text
    assert rows[1]["saved_s"] == pytest.approx(-52.0)
    assert "together is the fastest" in text
    assert "slow lost: 242 s a step in place of 190 s." in text
    assert "Gained: overlap 92 s" in text
    assert "Lost: generation 142 s" in text
    assert "Generation on 4 GPUs (before: 16) took 2.42 times as long" in text
    assert "the longer of both is generation, 242 s, more than the 180 s of one after the other" in text


def test_equal_runs_are_said_to_be_equal():
    same = copy.deepcopy(TOGETHER)
    assert "same is as fast (190 s a step in place of 190 s)." in compare_figures({"together": TOGETHER, "same": same}).text


def test_seconds_are_of_as_many_samples_and_gpus_are_told():
    half = run("sync_colocated", {"generate": 50.0, "logprob": 10.0, "update": 30.0, "switch": 5.0}, (8, 8, 8), 50.0, samples=50)
    found = compare_figures({"together": TOGETHER, "half": half})
    rows, text = found.rows, found.text
    assert rows[1]["step_s"] == pytest.approx(190.0)
    assert (rows[1]["speedup"], rows[1]["speedup_per_gpu"]) == pytest.approx((1.0, 2.0))
    assert "It has 8 GPUs, together 16: per GPU it is 2.00 times as fast." in text


def job(mode, replicas, gpus):
    """Answers of nearly equal lengths, so that generation is bound by throughput."""
    trainer = {"gpu": "h100_sxm", "gpus": gpus, "micro_batch": 8192} | ({"shares": "rollouts"} if mode == "sync_colocated" else {})
    work = {
        "kind": "rl", "name": "grpo", "mode": mode, "steps": 4, "prompts": 32, "samples": 8, "prompt": {"median": 300, "sigma": 0.5},
        "answers": {"mean": 500, "sigma": 0.1, "cap": 4096}, "rewards": [{"kind": "rule", "time": "1ms", "p_timeout": 0}],
    } | ({"staleness": {"kind": "areal", "eta": 1}} if mode == "async" else {})  # fmt: skip
    pool = {"name": "rollouts", "gpu": "h100_sxm", "replicas": replicas, "engine": {"max_num_seqs": 32}}
    return sim.run({"name": mode, "model": MODEL, "cluster": {"pools": [pool], "trainers": [trainer]}, "workloads": [work]})


def test_small_runs():
    """Four GPUs that take turns, and the same four split: generation is most of the work, and takes twice as long on half of them."""
    results = {"turns": job("sync_colocated", 4, 4), "one_off": job("one_step_off", 2, 2), "async": job("async", 2, 2)}
    for name, result in results.items():
        assert {entry for entry, said in result.summary["audit"].items() if not said["ok"]} == set(), name
        found = result.summary["rl"]["grpo"]
        assert sum(found["breakdown"]["seconds"].values()) == pytest.approx(found["step_s"]["mean"])
        assert 0 < found["rollout"]["idle_frac"] <= found["rollout"]["bubble"] < 1
        assert found["throughput"]["trained_samples_per_s"] * found["step_s"]["mean"] == pytest.approx(256)
        assert result.summary["why"]
    comparison = compare(results)
    for row in comparison.rows:
        assert sum(row["terms"].values()) == pytest.approx(row["saved_s"])
    assert comparison.rows[1]["saved_s"] < 0
    assert "one_off lost" in comparison.lines[1]
    assert 1.6 < comparison.rows[1]["x_generation"] < 2.2
    assert results["one_off"].summary["rl"]["grpo"]["staleness"]["lag_submit"]["histogram"] == {"1": 768}
    assert results["turns"].summary["rl"]["grpo"]["staleness"]["lag_mean"]["max"] == 0.0


def test_what_holds_no_run_is_not_compared():
    result = job("sync_disaggregated", 1, 1)
    result.meta["rl"] = []
    with pytest.raises(ValueError, match="holds 0 runs of reinforcement learning"):
        compare({"none": result})
