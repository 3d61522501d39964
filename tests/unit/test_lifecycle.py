"""Replicas that come and go: stages of a start, who is drained and who is called off, warm pools, scale to zero, places on a network."""
from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

import sim
from sim.core.errors import BadInput
from sim.physics.memory import divide
from sim.spec.hardware import gpu
from sim.spec.llm import llm
from sim.spec.load import dump, loads
from sim.spec.scaling import PRESETS, ColdStart, Spread
from sim.spec.schema import json_schema
from sim.study.audit import audit
from sim.study.starts import most_at_once
from sim.world.cluster import World
from sim.world.lifecycle import GONE, READY, WARM

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
MODEL = "Qwen/Qwen2.5-0.5B"
START = {"provision": 3, "image": 2, "weights": 4, "init": 5, "capture": 1}
# Never changes its mind, so that tests decide.
STILL = {"min": 0, "max": 50, "every": "1000s", "policy": {"kind": "hpa", "target": {"concurrency": 1e6}}}


def scenario(pool=(), work=(), **cluster):
    pools = [{"gpu": "l40s", "replicas": 1, "autoscale": STILL, "start": START, **dict(pool)}]
    work = {"kind": "poisson", "rate": 5, "num_requests": 100, "lengths": {"kind": "fixed", "input": 100, "output": 100}, **dict(work)}
    return {"model": MODEL, "seed": 3, "cluster": {"pools": pools, **cluster}, "workloads": [work]}


def directed(orders, until=None, **changes):
    """A run in which the first pool is told how many replicas to have, at the times of `orders`: the world, closed, and its tables."""
    world = World(loads(scenario(**changes)))
    world.start()

    def director():
        for at, wanted in orders:
            yield world.env.timeout(at - world.env.now)
            world.lifecycles[0].scale(wanted)

    world.env.process(director())
    world.env.advance(until or float("inf"))
    world.close()
    return world, world.recorder.tables


def stages(tables, replica):
    table = tables["starts"]
    names = [table.labels["stage"][code] for code in table["stage"]]
    return {name: (start, end) for name, index, start, end in zip(names, table["replica"], table["start"], table["end"], strict=True)
            if index == replica}  # fmt: skip


# -- what may be written ------------------------------------------------------------
def test_a_time_is_fixed_or_lognormal_or_measured():
    written = {"provision": "90s", "init": {"median": "20s", "p99": "1m"}, "weights": {"preset": "gentd26_basemodel"}}
    start = ColdStart.model_validate(written)
    assert start.provision.at(0.01) == start.provision.at(0.99) == 90
    assert start.init.at(0.5) == pytest.approx(20)
    assert start.init.at(0.99) == pytest.approx(60)
    shares = np.linspace(0, 1, 999)
    times = [start.weights.time.at(float(share)) for share in shares]
    assert (np.diff(times) >= 0).all()
    assert times[0] == 1.329
    assert times[-1] == 79.436


def test_the_defaults_add_up_to_what_whole_starts_take():
    """An 8B model with its image cached: 30-60 s; with the image to be pulled and a 70B model at most 150 s."""
    for model, tp, low, high in (("meta-llama/Llama-3.1-8B", 1, 30, 60), ("meta-llama/Llama-3.1-70B", 4, 100, 150)):
        pool = {"gpu": "h100_sxm", "parallel": {"tp": tp}, "autoscale": STILL, "start": {}}
        read = loads({"model": model, "cluster": {"pools": [pool]}, "workloads": [{"kind": "poisson", "rate": 1, "num_requests": 1,
                      "lengths": {"kind": "fixed", "input": 9, "output": 9}}]}).cluster.pools[0]  # fmt: skip
        weights = divide(llm(model), gpu("h100_sxm"), read).weights * tp
        total = weights / read.start.weights.speed + read.start.init.at(0.5) + read.start.capture.at(0.5)
        assert low < total < high


def test_what_was_written_is_read_back():
    first = loads(scenario({"start": {**START, "capture": 0, "image": {"size": "3GB"}, "weights": {"median": 2, "p99": 3}}, "warm": 2}))
    again = loads(yaml.safe_load(dump(first)))
    assert again == first
    assert again.cluster.pools[0].start.capture.at(0.5) == 0
    schema = json_schema()
    assert {"type": ["number", "string"]} in schema["$defs"]["Spread"]["anyOf"]
    assert schema["$defs"]["Autoscale"]["properties"]["policy"]["oneOf"]


@pytest.mark.parametrize(("pool", "message"), [
    ({"autoscale": {**STILL, "min": 9, "max": 3}}, "min (9) is above max (3); the bounds cross"),
    ({"replicas": 51}, "replicas (51), the number at the start, is outside autoscale's min 0 and max 50"),
    ({"autoscale": None}, "start is given, but no replica starts during the run"),
    ({"autoscale": None, "start": None, "replicas": 0}, "found 0; a value of at least 1 is wanted, unless autoscale may start some"),
    ({"autoscale": None, "start": None, "warm": 1}, "warm (1) is given, but nothing takes from the warm pool"),
    ({"start": {"provision": -1}}, "found -1; a duration of 0 or more is wanted"),
    ({"start": {"init": {"median": 5, "p99": 4}}}, "p99 (4 s) is below the median (5 s)"),
    ({"start": {"init": {"median": 5}}}, "median and p99 belong together"),
    ({"start": {"weights": {"preset": "gentd"}}}, "found 'gentd'; a measured distribution is wanted"),
    ({"start": {"image": {"time": 3, "bandwidth": 1e9}}}, "time is given, and store or bandwidth too"),
    ({"start": {"weights": {"store": "s3"}}}, "found 's3', but there is no network"),
    ({"autoscale": {"max": 3, "policy": {"kind": "hpb", "target": {"kv": 1}}}}, "unknown autoscaler kind 'hpb'"),
    ({"autoscale": {"max": 3}}, "policy"),
])  # fmt: skip
def test_bad_input(pool, message):
    data = scenario(pool)
    data["cluster"]["pools"][0] = {key: value for key, value in data["cluster"]["pools"][0].items() if value is not None}
    with pytest.raises(BadInput) as error:
        sim.run(data)
    assert message in str(error.value)
    assert all(problem.path.startswith("cluster.pools.0") for problem in error.value.problems)


@pytest.mark.parametrize("what", ["basemodel", "pipeline"])
def test_measured_load_times(what):
    """Quantiles of the presets are those of the data, within 10 %, also between the points that were noted."""
    path = TRACES / f"gentd26_{what}_update_latency_anon.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    values = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=1) / 1000
    law = Spread(preset=f"gentd26_{what}")
    # Between the two modes of the base model's nobody knows, to 10 %.
    for share in (0.05, 0.15, 0.25, 0.45, 0.5, 0.55, 0.65, 0.75, 0.85, 0.9, 0.95, 0.97, 0.99):
        assert law.at(share) == pytest.approx(float(np.quantile(values, share)), rel=0.1, abs=0.3), share
    drawn = np.array([law.at(float(u)) for u in np.random.Generator(np.random.PCG64(1)).random(20_000)])
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.1)
    assert len(PRESETS[law.preset]) > 10


# -- how a replica comes up ------------------------------------------------------------
def test_stages_follow_each_other_and_are_billed():
    world, tables = directed([(1, 2)])
    assert stages(tables, 1) == {"provision": (1, 4), "image": (4, 6), "weights": (6, 10), "init": (10, 15), "capture": (15, 16)}
    replicas = tables["replicas"]
    assert (replicas["start"][1], replicas["ready"][1], replicas["end"][1]) == (1, 16, world.end)
    used = tables["stretches"]["start"][tables["stretches"]["replica"] == 1]
    assert used.min() >= 16


def test_bytes_and_bandwidth_decide_where_no_time_is_given():
    world, tables = directed([(1, 2)], pool={"start": {"image": {"size": "4GB", "bandwidth": "2GB/s"}, "weights": {"bandwidth": "0.5GB/s"},
                                                       "init": 0}, "engine": {"cuda_graph": False}})  # fmt: skip
    found = stages(tables, 1)
    size = world.memories[0].weights
    assert found["image"] == (1, 3)
    assert found["weights"] == (3, pytest.approx(3 + size / 0.5e9))
    assert "capture" not in found
    assert tables["starts"]["bytes"][:2].tolist() == [4e9, size]


def test_a_place_that_had_a_replica_keeps_image_and_weights_unless_nodes_are_new():
    orders = [(1, 2), (8, 1), (9, 2)]
    start = {"image": {"size": "4GB", "bandwidth": "2GB/s"}, "weights": {"bandwidth": "0.5GB/s", "cache": "host"}, "init": 1, "capture": 0}
    world, tables = directed(orders, pool={"start": start})
    again = stages(tables, 2)
    assert again["image"] == (9, 9)
    assert again["weights"] == (9, pytest.approx(9 + world.memories[0].weights / gpu("l40s").pcie))
    _, tables = directed(orders, pool={"start": {**start, "provision": 1, "weights": {"bandwidth": "0.5GB/s"}}})
    assert stages(tables, 2)["image"] == (10, 12)


def test_luck_belongs_to_replica_and_stage():
    """A longer image pull does not change how long the same replica's engine takes."""
    law = {"median": 2, "p99": 8}
    runs = [directed([(1, 3)], pool={"start": {**START, "init": law, "image": image}})[1] for image in (1, 7)]
    lasts = [[end - start for start, end in (stages(tables, index)["init"] for index in (1, 2))] for tables in runs]
    np.testing.assert_allclose(*lasts, rtol=1e-9)
    assert lasts[0][0] != lasts[0][1]


def test_replicas_of_the_beginning_may_be_cold():
    result = sim.run(scenario({"autoscale": None, "start": {**START, "cold": True}, "replicas": 2} | {"autoscale": STILL}))
    assert result.tables["replicas"]["ready"].tolist() == [15, 15]
    assert len(result.tables["held"]) > 40
    assert result.summary["scaling"]["held_requests"]["seconds"]["mean"] > 5
    assert all(entry["ok"] for entry in audit(result).values())


# -- more and fewer ------------------------------------------------------------
def test_starting_ones_are_called_off_first_the_latest_first():
    world, tables = directed([(1, 4), (5, 2)])
    assert [life.state for life in world.lives] == [READY, READY, GONE, GONE]
    assert tables["replicas"]["end"][2:].tolist() == [5, 5]
    assert np.isnan(tables["replicas"]["ready"][2:]).all()
    assert np.isnan(stages(tables, 3)["image"][1])


def test_the_least_loaded_drains_and_finishes_what_it_has():
    world, tables = directed([(10.03, 2)], pool={"replicas": 3}, work={"rate": 40, "num_requests": 800})
    gone = [life for life in world.lives if life.state == GONE]
    assert len(gone) == 1
    begin, end = stages(tables, gone[0].index)["drain"]
    requests = tables["requests"]
    mine = requests["replica"] == gone[0].index
    assert begin == 10.03
    assert end == pytest.approx(requests["last_token"][mine].max(), abs=1e-8)
    assert end > begin
    assert requests["arrival"][mine].max() < 10.03
    assert (requests["status"] == 0).all()


def test_of_equally_loaded_ones_the_latest_drains():
    world, _ = directed([(10, 2)], pool={"replicas": 4}, work={"rate": 0.01, "num_requests": 2})
    assert [life.state for life in world.lives] == [READY, READY, GONE, GONE]


def test_draining_ones_are_taken_back_first():
    world, tables = directed([(10.03, 1), (10.05, 3)], pool={"replicas": 3}, work={"rate": 60, "num_requests": 1500})
    assert len(world.lives) == 3
    assert all(life.state == READY for life in world.lives)
    replicas = [index for index in range(3) if "drain" in stages(tables, index)]
    assert len(replicas) == 2
    later = tables["requests"]["arrival"] > 10.05
    assert set(tables["requests"]["replica"][later]) == {0, 1, 2}


def test_scale_to_zero_holds_requests_in_order():
    _, tables = directed([(5, 0), (9, 1)], pool={"start": {**START, "provision": 0}})
    held, requests = tables["held"], tables["requests"]
    # Weights, engine and graphs take 10 s; the image is still there.
    assert np.all(held["end"] == 19)
    assert held["start"].min() > 5
    assert (np.diff(held["request"]) > 0).all()
    late = np.isin(requests["request"], held["request"])
    order = np.argsort(requests["request"][late])
    assert (np.diff(requests["first_token"][late][order]) >= 0).all()
    assert (requests["status"] == 0).all()


def test_who_is_still_held_at_the_end_is_unfinished():
    world, tables = directed([(5, 0)], until=12.0)
    requests = tables["requests"]
    lost = requests["status"] == 3
    assert lost.sum() == len(tables["held"]) > 10
    assert np.isnan(tables["held"]["end"]).all()
    assert world.end == 12.0


def test_a_run_ends_though_nobody_ever_starts_a_replica():
    never = {"min": 0, "max": 5, "every": "6h", "policy": {"kind": "scheduled", "table": [{"at": "08:00", "replicas": 0}]}}
    result = sim.run(scenario({"replicas": 0, "autoscale": never}, {"num_requests": 3}))
    assert result.summary["requests"]["unfinished"] == 3
    assert result.meta["sim_s"] > 7 * 86400


def test_warm_replicas_are_promoted_at_once_and_replaced():
    world, tables = directed([(2, 2)], pool={"warm": 1})
    assert stages(tables, 1) == {"warm": (0, 2)}
    assert tables["replicas"]["ready"].tolist()[:2] == [0, 2]
    assert world.lives[2].state == WARM
    assert stages(tables, 2)["provision"] == (2, 5)
    assert stages(tables, 2)["warm"][0] == 17
    assert 2 not in tables["requests"]["replica"]


def test_a_prefill_replica_keeps_its_gpus_until_its_last_keys_and_values_are_fetched():
    slow = {"bandwidth": "10MB/s", "layerwise": False}
    data = scenario({"role": "prefill", "name": "p", "replicas": 2}, {"rate": 20}, disaggregation=slow)
    data["cluster"]["pools"].append({"gpu": "l40s", "role": "decode", "name": "d"})
    world = World(loads(data))
    world.start()
    at = world.env.timeout(2.0)
    at.callbacks.append(lambda _: world.lifecycles[0].scale(1))
    world.env.advance()
    world.close()
    tables = world.recorder.tables
    end = tables["replicas"]["end"].min()
    mine = tables["transfers"]["source"] == int(np.argmin(tables["replicas"]["end"]))
    assert end > 2.0
    assert end == pytest.approx(tables["transfers"]["end"][mine].max(), abs=1e-6)
    assert (tables["requests"]["status"] == 0).all()


# -- on a network ------------------------------------------------------------
NETWORK = {
    "fabric": "hgx_leaf_spine", "hosts": [{"gpu": "h100_sxm", "count": 2}],
    "stores": [{"name": "s3", "bandwidth": "2GB/s"}, {"name": "hub", "kind": "registry", "bandwidth": "1GB/s"}],
    "placement": {"kind": "bin_pack"},
}
LARGE = {"gpu": "h100_sxm", "parallel": {"tp": 4}, "model": "meta-llama/Llama-3.1-8B", "autoscale": STILL,
         "start": {"image": {"store": "hub", "size": "2GB"}, "weights": {"store": "s3"}, "init": 1, "capture": 0}}


def test_replicas_wait_for_gpus_and_never_share_one():
    work = {"rate": 10, "num_requests": 400}
    _, tables = directed([(1, 6), (14, 3), (15, 6)], pool={**LARGE, "replicas": 3}, work=work, network=NETWORK)
    # Two hosts of two places each: one starts at once, the two others wait; then they are called off, and the ready ones stay.
    assert stages(tables, 3)["wait"] == (1, 1)
    assert stages(tables, 4)["wait"][0] == 1
    assert np.isnan(stages(tables, 4)["wait"][1])
    places, replicas = tables["places"], tables["replicas"]
    spans = {}
    for index, host, one in zip(places["replica"], places["host"], places["gpu"], strict=True):
        spans.setdefault((host, one), []).append((replicas["start"][index], replicas["end"][index]))
    for taken in spans.values():
        taken.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
    assert len(spans) <= 16


def test_two_starts_share_the_store():
    world, tables = directed([(1, 3)], pool={**LARGE, "replicas": 1}, work={"rate": 5, "num_requests": 150}, network=NETWORK)
    size = world.memories[0].weights * 4
    # The first finds the image on its host, next to the one that is there; the other pulls it; then both read from the same store.
    alone, other = stages(tables, 1), stages(tables, 2)
    assert alone["image"] == (1, 1)
    assert other["image"][1] == pytest.approx(3, abs=0.01)
    assert other["weights"][1] - 1 == pytest.approx(2 * size / 2e9, rel=0.01)
    assert tables["flows"]["moved"].sum() == pytest.approx(2 * size + 2e9)


def test_what_fits_nowhere_and_stores_that_are_not_there():
    for pool, message in (({"replicas": 5}, "replica 5 of 5 of pool serve fits nowhere"), ({"start": {"image": {"store": "hob"}}}, "hub?")):
        with pytest.raises(BadInput) as error:
            sim.run(scenario({**LARGE, **pool}, network=NETWORK))
        assert message in str(error.value)


# -- what is counted ------------------------------------------------------------
def test_figures_of_a_run():
    fast = {"min": 1, "max": 6, "every": "1s", "policy": {"kind": "hpa", "target": {"concurrency": 2}}}
    result = sim.run(scenario({"autoscale": fast}, {"rate": 30, "num_requests": 800}))
    figures, gpus, table = result.summary["scaling"], result.summary["gpu"], result.tables["replicas"]
    assert figures["started"] >= figures["came_up"] > 0
    parts = figures["stages"]
    assert figures["wanted_to_ready"]["mean"] == pytest.approx(sum(START.values()))
    assert [parts[name]["mean"] for name in START] == pytest.approx(list(START.values()))
    hours = float((table["end"] - table["start"]).sum()) / 3600
    assert sum(figures["gpu_hours"].values()) == pytest.approx(hours)
    assert gpus["count"] == figures["replicas"]["peak"] <= 6
    assert 1 < gpus["mean"] < 6
    assert result.meta["pools"][0]["replicas"] == gpus["count"]
    assert all(entry["ok"] for entry in audit(result).values())


def test_the_audit_sees_work_outside_a_life():
    result = sim.run(scenario())
    assert audit(result)["lives"]["ok"]
    ready = result.tables["replicas"]["ready"]
    ready[:] = 5.0
    assert "outside the life" in audit(result)["lives"]["detail"]
    ready[:] = np.nan
    assert "outside the life" in audit(result)["lives"]["detail"]


def test_the_audit_sees_a_gpu_of_two_replicas():
    result = sim.run(scenario({**LARGE, "replicas": 2}, network=NETWORK))
    assert audit(result)["lives"]["ok"]
    result.tables["places"]["gpu"][:4] = result.tables["places"]["gpu"][4:8]
    assert "replicas on one GPU overlap 4 times" in audit(result)["lives"]["detail"]


def test_most_at_once():
    start, end = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0, 3.0])
    assert most_at_once(start, end, np.array([1.0, 2.0, 4.0, 9.0])) == 6
    assert most_at_once(start[:0], end[:0], start[:0]) == 0
