"""A trainer that shares the GPUs of a pool: who has them when, for how long they change hands, and who pays for them."""
from __future__ import annotations

import numpy as np
import pytest

from sim.physics.hybrid import MAPPING, switch
from sim.physics.optimizer import travel_seconds
from sim.physics.power import IDLE_HOST, Activity, watts
from sim.physics.train_memory import states as kept
from sim.physics.trainer import TrainStep
from sim.spec.hardware import gpu, node
from sim.spec.llm import llm
from sim.spec.load import loads
from sim.spec.trainer import Trainer
from sim.study.run import run
from sim.world.cluster import World
from tests.unit.hybrid_runs import MODEL, NETWORK, plugged, scenario, sound, spans, spent


@pytest.fixture(autouse=True)
def _known():
    with plugged():
        yield


@pytest.fixture(scope="module")
def plain():
    with plugged():
        return run(scenario())


def costs(result, level=1, **trainer):
    step = TrainStep(llm(MODEL), Trainer(gpu="h100_sxm", gpus=8, shares="rollouts", sleep_level=level, **trainer))
    return switch(step, result.meta["pools"][0]["memory"]["weights"])


# -- turns --------------------------------------------------------------
def test_engines_and_trainer_take_turns(plain):
    sound(plain)
    turn = ["asleep", "onload", "logprob", "reward", "update", "offload", "publish", "offload"]
    assert [name for name, *_ in spans(plain)] == turn * 3
    found, expected = spent(plain), costs(plain)
    assert found["onload"] == pytest.approx(3 * expected.to_train)
    assert found["offload"] == pytest.approx(3 * expected.to_rollout)
    assert found["publish"] == pytest.approx(1.5)
    assert found["reward"] == pytest.approx(3 * 0.125)
    # No engine makes a step in its turn, and every answer is there before it.
    ends = np.array([(start, end) for name, start, end in spans(plain) if name == "asleep"])
    for page in plain.tables["stretches"].pages():
        assert all(np.any((ends[:, 0] < end) & (end < ends[:, 1] + 1e-8)) for end in page["start"] + page["seconds"])


def test_gpu_seconds_by_what_the_gpus_did_are_all_there_were(plain):
    shared, pool = plain.summary["shared_gpus"]["train"], plain.summary["replica_states"]["rollouts"]
    assert sum(shared.values()) == pytest.approx(8 * plain.meta["sim_s"], rel=1e-9)
    found = spent(plain)
    assert shared["switch"] == pytest.approx(8 * (found["onload"] + found["offload"]))
    assert shared["update"] == pytest.approx(8 * found["update"])
    assert shared["generating"] == pool["busy"] > 0
    assert pool["sleep"] == pytest.approx(8 * (plain.meta["sim_s"] - found["asleep"]), rel=1e-6)
    assert shared["idle"] > 0


def test_stated_times_take_the_place_of_the_physics():
    found = spent(sound(run(scenario(workload={"to_train": 10.0, "to_rollout": 74.0}))))
    assert found["onload"] == pytest.approx(30.0)
    assert found["offload"] == pytest.approx(222.0)
    assert "publish" not in found
    found = spent(sound(run(scenario(workload={"to_train": 0.0, "to_rollout": 0.0}))))
    assert set(found) == {"asleep", "logprob", "reward", "update"}


def test_who_is_asleep_may_wait_and_not_work():
    world = World(loads(scenario()))
    trainer = world.trainers["train"]
    for state in ("data", "validate", "checkpoint"):
        list(trainer.spend(state, 0.0))
    assert trainer.state == "asleep"
    with pytest.raises(AssertionError, match="the GPUs of trainer train are the engines' now: it cannot update"):
        next(trainer.update([500]))


def test_at_level_two_engine_weights_are_dropped(plain):
    result = sound(run(scenario({"sleep_level": 2})))
    weights = result.meta["pools"][0]["memory"]["weights"]
    once = travel_seconds(gpu("h100_sxm"), node("hgx_h100"), weights)
    assert spent(plain)["onload"] - spent(result)["onload"] == pytest.approx(3 * once)
    assert spent(plain)["offload"] - spent(result)["offload"] == pytest.approx(3 * once)
    assert costs(result, 2).weights == MAPPING


def test_offloaded_states_travel_in_the_step_and_not_twice(plain):
    result = sound(run(scenario({"offload": "optimizer"})))
    step = TrainStep(llm(MODEL), Trainer(gpu="h100_sxm", gpus=8))
    states = travel_seconds(step.gpu, step.node, kept(step.llm, step.trainer).optimizer)
    assert spent(plain)["onload"] - spent(result)["onload"] == pytest.approx(3 * states)
    assert result.tables["train_steps"]["offload"].sum() == pytest.approx(3 * 2 * states)


def test_answers_that_are_cut_wait_and_are_computed_again(plain):
    result = sound(run(scenario(workload={"cut": 0.3})))
    assert result.summary["requests"]["completed"] == 48
    assert result.tables["pauses"]["forgotten"].sum() > 0
    assert plain.tables["pauses"]["forgotten"].sum() == 0
    assert result.summary["shared_gpus"]["train"]["generating"] > plain.summary["shared_gpus"]["train"]["generating"]


def test_a_pause_before_is_the_engines_and_the_sleep_the_trainers():
    result = sound(run(scenario(workload={"paused": True})))
    shared = result.summary["shared_gpus"]["train"]
    assert shared["paused"] == pytest.approx(3 * 8 * 0.25, rel=1e-6)
    assert sum(shared.values()) == pytest.approx(8 * result.meta["sim_s"], rel=1e-9)


@pytest.mark.parametrize("number", range(8))
def test_a_run_that_is_cut_off_in_any_state_adds_up(plain, number):
    name, start, end = spans(plain)[8 + number]
    cut = (start + end) / 2
    result = sound(run(scenario(duration=cut)))
    assert sum(result.summary["shared_gpus"]["train"].values()) == pytest.approx(8 * cut, abs=1e-6)
    assert spans(result)[-1] == (name, pytest.approx(start), pytest.approx(cut))


def test_step_by_step_and_again_it_is_the_same(plain):
    exact = sound(run(scenario(pool={"engine": {"exact_steps": True}})))
    for column in ("first_token", "last_token"):
        np.testing.assert_allclose(exact.tables["requests"][column], plain.tables["requests"][column], rtol=1e-9)
    assert [name for name, *_ in spans(exact)] == [name for name, *_ in spans(plain)]
    assert spans(run(scenario())) == spans(plain)


def test_nobody_wakes_it():
    given = scenario()
    given["workloads"] = [{"kind": "constant", "rate": 5, "num_requests": 9, "lengths": {"kind": "fixed", "input": 50, "output": 50}}]
    result = sound(run(given))
    assert [name for name, *_ in spans(result)] == ["asleep"]
    assert "trainer train: no workload trains on it" in result.meta["remarks"]
    shared = result.summary["shared_gpus"]["train"]
    assert sum(shared.values()) == pytest.approx(8 * result.meta["sim_s"])
    assert result.summary["cost"]["usd_trainers"] == 0
    assert result.summary["energy"]["site_kwh"] > result.summary["training"]["train"]["kwh"] == 0


# -- books --------------------------------------------------------------
def test_the_gpus_are_billed_once(plain):
    end, begin = plain.meta["sim_s"], 0.0
    cost, trained = plain.summary["cost"], plain.summary["training"]["train"]
    whole = 2.0 * 8 * (end - begin) / 3600
    assert cost["usd_total"] == pytest.approx(whole)
    assert cost["usd_per_hour"] == cost["usd_per_hour_peak"] == pytest.approx(16.0)
    had = end - spent(plain)["asleep"]
    assert cost["usd_trainers"] == trained["usd_total"] == pytest.approx(whole * had / end)
    assert cost["usd_prefill"] + cost["usd_decode"] == pytest.approx(whole * (1 - had / end))
    assert trained["gpu_hours"] == pytest.approx(8 * had / 3600)
    assert plain.summary["gpu"]["count"] == 8
    shared = plain.summary["shared_gpus"]["train"]
    used = shared["generating"] + shared["update"] + shared["logprob"]
    assert cost["usd_idle"] == pytest.approx(whole * (1 - used / (8 * end)))


def test_the_gpus_draw_idle_power_once(plain):
    chip, pool, energy, end = plain.meta["trainers"][0], plain.meta["pools"][0], plain.summary["energy"], plain.meta["sim_s"]
    passes = sum(end - start for name, start, end in spans(plain) if name in ("update", "logprob"))
    steps = plain.tables["train_steps"]
    used = float(steps["computed"].sum() / (chip["peak_flops"] * (steps["end"] - steps["start"]).sum()))
    assert 0 < used < 1
    above = 8 * passes * (float(watts(chip["idle_watts"], chip["tdp"], Activity(used, 0.0))) - chip["idle_watts"])
    hosts = 8 * passes * (1 - IDLE_HOST) * chip["host_watts"]
    assert plain.summary["training"]["train"]["kwh"] * 3.6e6 == pytest.approx(1.2 * (above + hosts))
    # What is left is the engines': idle all the time, and above that in steps.
    generating = plain.summary["shared_gpus"]["train"]["generating"]
    engines = energy["kwh"] * 3.6e6 - above - pool["idle_watts"] * 8 * end
    assert 0 < engines < generating * (pool["tdp"] - pool["idle_watts"])
    drawn = (energy["node_kwh"] - energy["kwh"]) * 3.6e6 / pool["host_watts"]
    assert drawn == pytest.approx(IDLE_HOST * 8 * end + (1 - IDLE_HOST) * (generating + 8 * passes))
    assert energy["site_kwh"] == pytest.approx(1.2 * energy["node_kwh"])


def test_carbon_is_that_of_the_pools_grid():
    given = scenario(carbon={"pools": {"rollouts": 100}, "embodied": {"kg_per_gpu": 150, "years": 4}}, prices={"book": "neocloud"})
    result = run(given)
    carbon = result.summary["carbon"]
    assert carbon["grams_by_pool"]["train"] == pytest.approx(100 * result.summary["training"]["train"]["kwh"])
    assert sum(carbon["grams_by_pool"].values()) == pytest.approx(100 * result.summary["energy"]["site_kwh"])
    year = 365.25 * 86400
    assert carbon["embodied_grams"] == pytest.approx(150e3 / (4 * year) * 8 * result.meta["sim_s"])


def test_on_a_network_it_stands_where_its_pool_stands():
    world = World(loads(scenario(cluster={"network": NETWORK})))
    places = [world.site.places[index] for index in range(4)]
    assert world.trainers["train"].place.slots == tuple(slot for place in places for slot in place)
    assert sum(len(host.free) for host in world.site._hosts) == 8
    sound(run(scenario(cluster={"network": NETWORK})))
