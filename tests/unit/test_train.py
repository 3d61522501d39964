"""Training runs on a cluster: what the trainer did when, what it cost, and what is wrong before it begins."""
from __future__ import annotations

import json

import numpy as np
import pytest

from sim.core.errors import BadInput
from sim.report.text import block
from sim.spec.load import dump, load, loads
from sim.study.audit import audit
from sim.study.result import Result
from sim.study.run import run
from sim.world.cluster import World

FIXED = {"kind": "fixed", "input": 24, "output": 1000}
NETWORK = {
    "fabric": "one_switch", "hosts": [{"gpu": "h100_sxm", "count": 3}],
    "stores": [{"name": "disks", "bandwidth": "10GB/s"}],
}  # fmt: skip
SERVE = {"name": "serve", "gpu": "h100_sxm", "replicas": 1}


def scenario(trainer=None, workload=None, **changes):
    return {
        "name": "train", "model": "Qwen/Qwen2.5-1.5B",
        "cluster": {"trainers": [{"gpu": "h100_sxm", "gpus": 8, "micro_batch": 8192, **(trainer or {})}], **changes.pop("cluster", {})},
        "workloads": [{"kind": "train", "steps": 4, "batch": 64, "lengths": FIXED, **(workload or {})}], **changes,
    }  # fmt: skip


def states(result):
    table = result.tables["train_states"]
    names = [table.labels["state"][code] for code in table["state"]]
    return list(zip(names, table["start"].tolist(), table["end"].tolist(), strict=True))


def spent(result, state):
    return sum(end - start for name, start, end in states(result) if name == state)


def fine(result):
    return all(entry["ok"] for entry in audit(result).values())


def test_a_run_without_requests():
    result = run(scenario())
    steps, trained = result.tables["train_steps"], result.summary["training"]["train"]
    assert steps["tokens"].tolist() == [64 * 1024] * 4
    assert steps["step"].tolist() == [0, 1, 2, 3]
    assert {name for name, *_ in states(result)} == {"update"}
    assert trained["state_share"] == {"update": pytest.approx(1.0)}
    seconds = steps["end"] - steps["start"]
    assert trained["mfu"] == pytest.approx(steps["flops"].sum() / seconds.sum() / (8 * 989e12), rel=1e-3)
    assert trained["mfu"] < trained["mfu_full_attention"] < trained["hfu"] < 1
    assert trained["tokens_per_s_per_gpu"] == pytest.approx(4 * 64 * 1024 / seconds.sum() / 8)
    assert sum(trained["breakdown"].values()) == pytest.approx(1.0)
    assert result.summary["verdict_reason"] == "Nobody sent a request: the cluster trains."
    assert fine(result)
    assert "MFU, updating" in block(result.summary)


def test_money_and_energy_are_those_of_the_whole_time():
    result = run(scenario({"price_per_hour": 2.0}, {"data": "30s"}))
    trained, end = result.summary["training"]["train"], result.meta["sim_s"]
    assert trained["usd_total"] == pytest.approx(16.0 * end / 3600)
    assert result.summary["cost"]["usd_total"] == pytest.approx(trained["usd_total"])
    assert result.summary["cost"]["usd_per_hour"] == pytest.approx(16.0)
    assert sum(result.summary["cost"]["usd_by_hour"]) == pytest.approx(trained["usd_total"])
    assert trained["usd_per_billion_tokens"] == pytest.approx(trained["usd_total"] * 1e9 / trained["tokens"])
    waiting = spent(result, "data") / end
    assert waiting > 0.9
    chip = result.meta["trainers"][0]
    assert 8 * chip["idle_watts"] * end < result.summary["energy"]["kwh"] * 3.6e6 < 8 * chip["tdp"] * end
    assert result.summary["energy"]["site_kwh"] == pytest.approx(trained["kwh"])


def test_carbon_and_a_price_book_know_trainers():
    given = scenario(None, {"data": "1h", "prefetch": 0, "steps": 2}, cluster={"pools": [SERVE]})
    given["workloads"].append({"kind": "constant", "rate": 1, "num_requests": 3, "lengths": FIXED})
    given |= {"carbon": {"grid": 100}, "prices": {"book": "neocloud"}}
    result = run(given)
    carbon, energy = result.summary["carbon"], result.summary["energy"]
    assert carbon["grams_per_kwh"] == pytest.approx(100)
    assert carbon["grams"] == pytest.approx(100 * energy["site_kwh"]) == pytest.approx(sum(carbon["grams_by_hour"]))
    assert carbon["grams_by_pool"]["train"] == pytest.approx(100 * result.summary["training"]["train"]["kwh"])
    assert result.summary["cost"]["usd_trainers"] > 0
    given["carbon"] = {"pools": {"serve": 100}}
    with pytest.raises(BadInput, match="pool train has no grid"):
        loads(given)


def test_a_loader_works_ahead_and_the_trainer_waits_for_what_is_left():
    update = spent(run(scenario()), "update") / 4
    alone = run(scenario(workload={"data": f"{2 * update}s", "prefetch": 0}))
    ahead = run(scenario(workload={"data": f"{2 * update}s"}))
    quick = run(scenario(workload={"data": f"{0.5 * update}s"}))
    assert spent(alone, "data") == pytest.approx(4 * 2 * update)
    assert spent(ahead, "data") == pytest.approx(2 * update + 3 * update)
    assert spent(quick, "data") == pytest.approx(0.5 * update)
    assert fine(alone)
    assert fine(ahead)


def test_prefetching_more_evens_out_a_loader_that_varies():
    slow = {"data": {"mean": "250ms", "cv": 2}, "steps": 40}
    few, many = (run(scenario(workload={**slow, "prefetch": n})) for n in (1, 16))
    assert spent(many, "data") < spent(few, "data")


def test_samples_are_cut_off():
    lengths = {"kind": "lognormal", "input": {"mean": 300, "sigma": 1}, "output": {"mean": 1500, "sigma": 1}}
    whole, cut = (run(scenario(workload={"lengths": lengths, "max_tokens": most})) for most in (None, 1000))
    assert np.all(cut.tables["train_steps"]["tokens"] < whole.tables["train_steps"]["tokens"])
    assert np.all(cut.tables["train_steps"]["tokens"] <= 64 * 1000)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_checkpoints_go_to_a_store(asynchronous):
    checkpoint = {"every": 2, "time": "1s", "store": "disks", "asynchronous": asynchronous}
    result = run(scenario(workload={"checkpoint": checkpoint}, cluster={"network": NETWORK}))
    sent = result.tables["deliveries"]
    size = 1_543_714_304 * 14
    assert sent["bytes"] == pytest.approx([size, size], rel=0.01)
    took = (sent["end"] - sent["start"]).tolist()
    assert took == pytest.approx([size / 10e9] * 2, rel=0.01)
    # Two updates go on behind the first one; nothing is left to do behind the last.
    waits = 2 * took[0] - asynchronous * spent(result, "update") / 2
    assert spent(result, "checkpoint") == pytest.approx(2.0 + waits, rel=0.02)
    assert result.meta["sim_s"] >= max(sent["end"])
    assert fine(result)


def test_a_checkpoint_without_a_time_goes_over_pcie():
    result = run(scenario(workload={"checkpoint": {"every": 4}}))
    chip = 0.8 * 64e9
    assert spent(result, "checkpoint") == pytest.approx(1_543_714_304 * 14 / 8 / min(chip, 614e9 / 8), rel=0.01)


def test_a_pool_teaches():
    result = run(scenario(workload={"teacher": {"model": "serve"}}, cluster={"pools": [SERVE]}))
    requests = result.tables["requests"]
    assert len(requests) == 4 * 64
    assert set(requests["input_tokens"].tolist()) == {1024}
    assert set(requests["output_tokens"].tolist()) == {1}
    steps = result.tables["train_steps"]
    # A step begins when the last of its samples has been looked at.
    done = np.sort(requests["last_token"]).reshape(4, 64)[:, -1]
    assert np.all(steps["start"] >= done - 1e-9)
    assert spent(result, "data") > 0
    assert fine(result)
    stated = run(scenario(workload={"teacher": {"time": "2s"}, "prefetch": 0}))
    assert spent(stated, "data") == pytest.approx(8.0)


def test_weights_go_from_a_trainer_to_a_pool():
    sync = {"kind": "transfers", "source": "train", "target": "serve"}
    given = scenario(cluster={"pools": [SERVE], "network": NETWORK})
    given["workloads"].append(sync)
    sent = run(given).tables["deliveries"]
    assert sent["receivers"].tolist() == [1]
    assert sent["bytes"][0] == pytest.approx(2 * 1_543_714_304, rel=0.05)


def test_a_run_that_is_cut_off_adds_up():
    result = run(scenario(workload={"steps": 10_000}, duration=5.0))
    assert result.meta["sim_s"] == pytest.approx(5.0)
    assert states(result)[-1][2] == pytest.approx(5.0)
    assert fine(result)


def test_a_step_that_samples_are_accumulated_for_is_one_step():
    world = World(loads(scenario()))
    trainer = world.trainers["train"]

    def drive():
        for _ in range(2):
            for _ in range(3):
                yield from trainer.accumulate([1024] * 16)
                yield world.env.timeout(1.0)
            yield from trainer.finish()

    world.env.process(drive())
    world.env.run()
    rows = world.recorder.tables["train_steps"]
    assert rows["step"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert rows["samples"].sum() == 96
    assert trainer.steps == 2
    assert trainer.state == "wait"


def test_a_trainer_that_nobody_drives_waits():
    given = scenario(cluster={"pools": [SERVE]})
    given["workloads"] = [{"kind": "constant", "rate": 1, "num_requests": 3, "lengths": FIXED}]
    result = run(given)
    assert [name for name, *_ in states(result)] == ["wait"]
    assert "trainer train: no workload trains on it" in result.meta["remarks"]
    assert result.summary["training"]["train"]["mfu"] is None
    assert fine(result)


def test_the_same_seed_gives_the_same_tables_and_a_result_reruns_itself(tmp_path):
    given = scenario(workload={"data": {"mean": "1s"}, "lengths": {"kind": "uniform", "input": [1, 999], "output": [1, 999]}})
    first, second = run(given), run(given)
    assert states(first) == states(second)
    first.save(tmp_path / "out")
    assert Result.open(tmp_path / "out").summary["training"] == json.loads(json.dumps(first.summary["training"]))
    again = load(tmp_path / "out" / "scenario.yaml")
    assert again == loads(given)
    assert dump(again) == dump(loads(given))


def test_the_audit_sees_a_gap_between_states():
    result = run(scenario())
    table = result.tables["train_states"]
    table.append((0, 0, result.meta["sim_s"] + 1, result.meta["sim_s"] + 2))
    assert "leave gaps" in audit(result)["I8"]["detail"]


# -- bad input --------------------------------------------------------------
BAD = [
    ("layout", {"parallel": {"tp": 4, "pp": 4}}, {}, "cluster.trainers.0", "gpus (8) is not a multiple of tp x pp x cp = 16"),
    ("dp", {"parallel": {"dp": 4}}, {}, "cluster.trainers.0", "leave 8; leave dp out"),
    ("ep", {"parallel": {"ep": 3}}, {}, "cluster.trainers.0", "ep (3) does not suit tp (1) and the 8 GPUs of a stage"),
    ("pipeline", {"parallel": {"pp": 2}}, {}, "cluster.trainers.0", "backend fsdp has no pipeline"),
    ("interleaved", {"parallel": {"vpp": 2}}, {}, "cluster.trainers.0.parallel", "there is one stage"),
    ("reshard", {"backend": "megatron", "reshard": False}, {}, "cluster.trainers.0", "reshard is of backend fsdp"),
    ("offload", {"backend": "megatron", "offload": "all"}, {}, "cluster.trainers.0", "offload all is of backend fsdp"),
    ("nothing to offload", {"offload": "optimizer", "optimizer_bytes": 0}, {}, "cluster.trainers.0", "nothing is offloaded"),
    ("GPU", {"gpu": "h10"}, {}, "cluster.trainers.0.gpu", "did you mean h100_sxm?"),
    ("node", {"node": "hgx_h20"}, {}, "cluster.trainers.0.node", "h100_sxm does not go into hgx_h20"),
    ("model", {"model": "llama-9"}, {}, "cluster.trainers.0.model", "unknown model"),
    ("trainer", {}, {"trainer": "trein"}, "workloads.0.trainer", "no trainer is named 'trein'; did you mean train?"),
    ("batch", {}, {"batch": 7}, "workloads.0.batch", "found 7 samples for the 8 ranks of train"),
    ("no network", {}, {"checkpoint": {"every": 1, "store": "disks"}}, "workloads.0.checkpoint.store", "there is no network"),
    ("in the air", {}, {"checkpoint": {"every": 1, "asynchronous": True}}, "workloads.0.checkpoint", "name one, or give time"),
    ("teacher", {}, {"teacher": {}}, "workloads.0.teacher", "give one of them"),
    ("prefetch", {}, {"prefetch": 2}, "workloads.0.prefetch", "a batch is ready at once"),
    ("priority", {}, {"priority": 2}, "workloads.0.priority", "no pool is asked"),
]


@pytest.mark.parametrize(("trainer", "workload", "path", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_told_before_the_run(trainer, workload, path, words):
    with pytest.raises(BadInput) as error:
        loads(scenario(trainer, workload))
    assert [(p.path, words in p.message) for p in error.value.problems] == [(path, True)], str(error.value)


@pytest.mark.parametrize(("changes", "path", "words"), [
    ({"trainer": {"model": "meta-llama/Llama-3.1-8B", "gpus": 1}}, "cluster.trainers.0", "56.0 GB too little"),
    ({"trainer": {"parallel": {"ep": 2}}}, "cluster.trainers.0.parallel.ep", "for models with experts"),
    ({"trainer": {"parallel": {"tp": 4, "cp": 2}}}, "cluster.trainers.0.parallel.tp", "tp 8 does not divide the 12 attention heads"),
    ({"workload": {"teacher": {"model": "serve"}}}, "workloads.0.model", "there are no pools"),
    ({"cluster": {"network": {**NETWORK, "hosts": [{"gpu": "l4", "count": 3}]}}}, "cluster.trainers.0", "find no room"),
])  # fmt: skip
def test_what_does_not_suit_is_told_before_the_clock_starts(changes, path, words):
    with pytest.raises(BadInput) as error:
        run(scenario(**changes))
    assert [(p.path, words in p.message) for p in error.value.problems] == [(path, True)], str(error.value)


def test_two_runs_on_one_trainer_and_one_name_for_two():
    given = scenario()
    given["workloads"].append(given["workloads"][0])
    with pytest.raises(BadInput, match="has trainer 'train' already"):
        loads(given)
    given = scenario(cluster={"pools": [{**SERVE, "name": "train"}]})
    with pytest.raises(BadInput, match="a pool and a trainer, are named train"):
        loads(given)


def test_a_sample_that_does_not_fit_ends_the_run():
    lengths = {"kind": "fixed", "input": 1, "output": 3_000_000}
    with pytest.raises(BadInput, match="with a sample of 3000001 tokens"):
        run(scenario(workload={"lengths": lengths}))
