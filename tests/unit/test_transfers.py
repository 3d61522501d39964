"""Traffic on one network, by hand: hand-ons, tiers, collectives slowed by others, and what workloads have moved."""
from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.core.errors import BadInput
from sim.core.tables import tables
from sim.physics.base import Work
from sim.physics.step import EngineStep
from sim.physics.topology import build
from sim.spec.hardware import gpu
from sim.spec.layout import Parallel
from sim.spec.llm import llm
from sim.spec.network import Network
from sim.spec.scenario import Pool
from sim.world.clock import Clock
from sim.world.congestion import Congestion, links

MODEL = "meta-llama/Llama-3.1-8B"
FLAT = {"kind": "flat", "nic_latency": 0, "switch_latency": 0}
NIC = 50e9  # 400 Gb/s
LENGTHS = {"kind": "fixed", "input": 1000, "output": 20}
WHOLE = {"tp": 8}
PER_TOKEN = 2 * 32 * 8 * 128 * 2  # bytes of Llama-3.1-8B's keys and values


def network(hosts=4, **more):
    stores = [{"name": "store", "bandwidth": "10GB/s", "latency": "1ms"}]
    return {"fabric": FLAT, "hosts": [{"gpu": "h100_sxm", "count": hosts}], "stores": stores, **more}


def run(pools, *workloads, rate=5, count=20, **cluster):
    sent = {"kind": "constant", "rate": rate, "num_requests": count, "lengths": LENGTHS}
    wanted = {"model": MODEL, "cluster": {"pools": pools, "network": network(), **cluster}, "workloads": [sent, *workloads]}
    result = sim.run(wanted)
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    return result


def pool(name="serve", **more):
    return {"name": name, "gpu": "h100_sxm", "parallel": WHOLE, **more}


# -- keys and values -----------------------------------------------------------
@pytest.mark.parametrize("layerwise", [False, True])
def test_a_hand_on_crosses_the_cards_of_both_ends(layerwise):
    roles = [pool("a", role="prefill"), pool("b", role="decode")]
    result = run(roles, disaggregation={"layerwise": layerwise})
    moved, flows = result.tables["transfers"], result.tables["flows"]
    size = 1000 * PER_TOKEN
    assert moved["bytes"].tolist() == [size] * 20
    parts = 1 / 32 if layerwise else 1
    np.testing.assert_allclose(moved["end"] - moved["start"], parts * size / (8 * NIC), rtol=1e-3)
    # What left while the prompt was computed loads the links too.
    assert flows["moved"].sum() == pytest.approx(20 * size)
    assert set(flows.labels["kind"]) == ({"kv", "kv_early"} if layerwise else {"kv"})


def test_attention_groups_take_turns():
    """Two groups of one GPU each: a request's keys and values leave by the card of one of them."""
    way = {"layerwise": False}
    roles = [pool("a", role="prefill") | {"parallel": {"dp": 2}}, pool("b", role="decode") | {"parallel": {"dp": 2}}]
    placement = {"kind": "spread"}
    result = sim.run({
        "model": MODEL, "cluster": {"pools": roles, "network": network(placement=placement), "disaggregation": way},
        "workloads": [{"kind": "constant", "rate": 5, "num_requests": 6, "lengths": LENGTHS}],
    })  # fmt: skip
    moved, used = result.tables["transfers"], result.tables["links"].to_pandas()
    np.testing.assert_allclose(moved["end"] - moved["start"], 1000 * PER_TOKEN / NIC, rtol=1e-3)
    cards = used[(used["kind"] == "nic") & (used["bytes"] > 0)]
    assert cards["bytes"].tolist() == pytest.approx([3 * 1000 * PER_TOKEN] * 4)


@pytest.mark.parametrize(("others", "parts"), [(0, 1), (1, 2), (3, 4)])
def test_a_hand_on_shares_the_spine_with_whatever_else_is_there(others, parts):
    """Each host below its own leaf, with 50 GB/s up and down: copies of whole hosts fill both while the keys and values pass."""
    fabric = {"kind": "leaf_spine", "hosts_per_leaf": 1, "oversubscription": 8, "nic_latency": 0, "switch_latency": 0}
    roles = [pool("a", role="prefill"), pool("b", role="decode")]
    copies = [{"kind": "transfers", "name": f"c{n}", "what": "copy", "source": "a", "target": "b", "bytes": "50GB"} for n in range(others)]
    wanted = {"model": MODEL, "cluster": {"pools": roles, "network": network(fabric=fabric), "disaggregation": {"layerwise": False}},
              "workloads": [{"kind": "constant", "rate": 10, "num_requests": 5, "lengths": LENGTHS}, *copies]}  # fmt: skip
    moved = sim.run(wanted).tables["transfers"]
    np.testing.assert_allclose(moved["end"] - moved["start"], parts * 1000 * PER_TOKEN / NIC, rtol=1e-3)


def test_limits_and_latency_of_hand_ons_still_count():
    roles = [pool("a", role="prefill"), pool("b", role="decode")]
    result = run(roles, disaggregation={"layerwise": False, "bandwidth": "1GB/s", "latency": "5ms"})
    moved = result.tables["transfers"]
    np.testing.assert_allclose(moved["end"] - moved["start"], 0.005 + 1000 * PER_TOKEN / 8e9, rtol=1e-3)
    assert result.summary["network"]["binding"][0]["link"] == ""


def test_a_remote_tier_is_a_store_that_all_share():
    engine = {"num_gpu_blocks_override": 80, "max_model_len": 1200, "kv_reload": "always",
              "kv_tiers": [{"kind": "remote", "capacity": "50GB", "store": "store"}]}  # fmt: skip
    result = sim.run({
        "model": MODEL, "cluster": {"pools": [pool(engine=engine)], "network": network()},
        "workloads": [{"kind": "sessions", "rate": 2, "num_sessions": 6, "turns": 3, "think_time": "2s", "max_context": 1100,
                       "lengths": {"kind": "fixed", "input": 300, "output": 20}}],
    })  # fmt: skip
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    rows = result.tables["transfers"].to_pandas()
    reloads = rows[rows["kind"] == "reload"]
    assert len(reloads) > 3
    least = 0.001 + reloads["bytes"] / 10e9
    assert (reloads["end"] - reloads["start"] >= least - 1e-9).all()
    assert (reloads["end"] - reloads["start"] - least).min() < 1e-4
    used = result.tables["links"].to_pandas().set_index("link")["bytes"]
    assert used["store.store.out"] == pytest.approx(reloads["bytes"].sum())


# -- collectives -----------------------------------------------------------
LAYOUTS = st.sampled_from([{"tp": 8}, {"tp": 2}, {"tp": 2, "pp": 2}, {"tp": 1, "dp": 2}, {"tp": 2, "dp": 2, "pp": 2}, {"tp": 1}])


@settings(max_examples=40, deadline=None)
@given(layout=LAYOUTS, decoders=st.integers(0, 80), chunks=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 500)), max_size=4))
def test_the_network_part_of_a_step(layout, decoders, chunks):
    if not decoders and not chunks:
        return
    model = step_model(tuple(layout.items()))
    cost = model.step(Work(tuple(chunks), decoders, 300 * decoders))
    assert model.network(decoders, chunks) == pytest.approx(cost.network, rel=1e-12, abs=1e-18)
    assert (cost.network > 0) is (layout["tp"] > 1 or layout.get("pp", 1) > 1)


@functools.cache
def step_model(layout):
    return EngineStep(llm(MODEL), gpu("h100_sxm"), Pool(gpu="h100_sxm", parallel=Parallel(**dict(layout))))


class Poked:
    def __init__(self, model):
        self.model, self.times = model, 0

    def poke(self):
        self.times += 1


def test_collectives_get_what_flows_leave():
    model, record = step_model((("tp", 8),)), tables()["slowdowns"]
    slowed = Congestion(Clock(), 3, model, record)
    slowed.engine = poked = Poked(model)
    plain = model.line(40, 12000)
    slowed.changed(0.75)
    assert poked.model is slowed
    seconds, slope, steps = slowed.line(40, 12000)
    network = model.step(Work((), 40, 12000)).network
    assert seconds == pytest.approx(plain[0] + 3 * network, rel=1e-9)
    assert (slope, steps) == plain[1:]
    cost = slowed.step(Work((), 40, 12000))
    assert cost.seconds == pytest.approx(seconds, rel=1e-9)
    assert cost.network == pytest.approx(4 * network)
    slowed.changed(0.0)
    assert poked.model is model
    assert poked.times == 2
    assert record["seconds"].tolist() == pytest.approx([3 * network] * 2)


def test_a_flow_takes_its_share_of_a_link_from_the_steps_of_a_run():
    """Weights come in at a quarter of what each PCIe port of a replica carries, so its collectives take a third longer."""
    pcie = gpu("l40s").pcie
    serve = {"name": "serve", "gpu": "l40s", "parallel": {"tp": 2}, "engine": {"max_model_len": 2000}}
    site = {"fabric": FLAT, "hosts": [{"gpu": "l40s"}], "stores": [{"name": "store", "bandwidth": "1TB/s"}]}
    work = {"kind": "constant", "rate": 1, "num_requests": 1, "lengths": {"kind": "fixed", "input": 100, "output": 50}}
    sent = {"kind": "transfers", "source": "store", "target": "serve", "bytes": 3 * pcie / 2, "bandwidth": pcie / 2}
    wanted = {"model": MODEL, "cluster": {"pools": [serve], "network": site}, "workloads": [work]}
    quiet, loaded = sim.run(wanted), sim.run(wanted | {"workloads": [work, sent]})
    model = EngineStep(llm(MODEL), gpu("l40s"), Pool(gpu="l40s", parallel=Parallel(tp=2)))
    taken = 1 / 4  # half of the limit into each of two ports
    more = model.network(1, ()) * taken / (1 - taken)
    assert loaded.tables["slowdowns"]["share"].tolist() == pytest.approx([taken] * len(loaded.tables["slowdowns"]))
    steps = [(result.tables["requests"]["last_token"] - result.tables["requests"]["first_token"])[0] / 49 for result in (quiet, loaded)]
    assert steps[1] - steps[0] == pytest.approx(more, rel=1e-6)
    assert more > 1e-5


def test_which_links_collectives_use():
    site = build(Network.model_validate(network()))
    slots = tuple((host, number) for host in range(2) for number in range(8))
    kinds = {
        layout: {site.links[link].kind for link in links(site, slots[:gpus], parallel, experts)}
        for layout, gpus, parallel, experts in (
            ("tensor", 8, Parallel(tp=8), False), ("groups apart", 16, Parallel(tp=8, dp=2), False),
            ("experts", 16, Parallel(tp=8, dp=2), True),
            ("stages", 16, Parallel(tp=8, pp=2), False), ("one", 1, Parallel(), False), ("alone", 2, Parallel(dp=2), False),
        )
    }  # fmt: skip
    assert kinds["tensor"] == kinds["groups apart"] == {"nvlink"}
    assert kinds["experts"] == kinds["stages"] == {"nvlink", "pcie", "nic"}
    assert kinds["one"] == kinds["alone"] == set()


# -- what workloads move -----------------------------------------------------------
def test_weights_reach_every_ready_replica():
    sync = {"kind": "transfers", "source": "train", "target": "serve", "every": 1, "times": 3, "start": 0.5}
    result = run([pool(replicas=2), pool("train", model="Qwen/Qwen3-8B")], sync)
    sent = result.tables["deliveries"].to_pandas()
    assert sent["start"].tolist() == pytest.approx([0.5, 1.5, 2.5])
    assert (sent["receivers"] == 2).all()
    weights = sent["bytes"].iloc[0]
    assert weights == pytest.approx(16.06e9, rel=0.01)
    assert (sent["end"] - sent["start"]).tolist() == pytest.approx([2 * weights / (8 * NIC)] * 3, rel=1e-6)
    told = result.summary["network"]["deliveries"]["weight_sync"]
    assert (told["count"], told["cut_off"], told["in_vain"]) == (3, 0, 0)
    assert told["bytes"] == pytest.approx(6 * weights)
    assert told["bytes_per_s"] == pytest.approx(4 * NIC, rel=1e-6)


def test_one_that_takes_long_puts_off_the_next():
    """20 GB at the 10 GB/s of the store, asked for every second: one after another."""
    save = {"kind": "transfers", "what": "copy", "source": "serve", "target": "store", "bytes": "20GB", "every": 1, "duration": "2.5s"}
    result = run([pool()], save)
    sent = result.tables["deliveries"]
    assert sent["start"].tolist() == pytest.approx([0, 2.001, 4.002], abs=1e-6)
    assert result.meta["sim_s"] == pytest.approx(6.003, abs=1e-3)


def test_what_is_under_way_at_the_end_is_cut_off():
    save = {"kind": "transfers", "source": "store", "target": "serve", "bytes": "200GB"}
    wanted = {"model": MODEL, "duration": 2.0, "cluster": {"pools": [pool()], "network": network()},
              "workloads": [{"kind": "constant", "rate": 5, "num_requests": 5, "lengths": LENGTHS}, save]}  # fmt: skip
    result = sim.run(wanted)
    assert math.isnan(result.tables["deliveries"]["end"][0])
    assert result.tables["flows"]["moved"].tolist() == pytest.approx([1.999 * 10e9], rel=1e-6)
    assert result.summary["network"]["deliveries"]["weight_sync"]["cut_off"] == 1
    assert all(entry["ok"] for entry in result.summary["audit"].values())


def test_a_pool_of_one_has_nobody_else_to_send_to():
    result = run([pool()], {"kind": "transfers", "source": "serve", "target": "serve"})
    assert result.tables["deliveries"]["receivers"].tolist() == [0]
    assert result.summary["network"]["deliveries"]["weight_sync"]["in_vain"] == 1


@pytest.mark.parametrize(("source", "target"), [("serve", "serve"), ("serve", "store"), ("store", "serve")])
def test_a_pool_without_a_ready_replica_neither_sends_nor_receives(source, target):
    start = {"image": 0, "weights": 1, "init": 0, "capture": 0, "cold": True}
    result = run([pool(start=start)], {"kind": "transfers", "source": source, "target": target})
    sent = result.tables["deliveries"]
    assert (sent["receivers"][0], sent["end"][0]) == (0, 0.0)
    assert not len(result.tables["flows"])


def test_transfers_alone_are_no_traffic():
    wanted = {"model": MODEL, "cluster": {"pools": [pool()], "network": network()},
              "workloads": [{"kind": "transfers", "source": "store", "target": "serve"}]}  # fmt: skip
    with pytest.raises(BadInput, match="no request arrived"):
        sim.run(wanted)


def test_the_plain_world_knows_no_transfers():
    sent = {"kind": "constant", "rate": 5, "num_requests": 20, "lengths": LENGTHS}
    with pytest.raises(BadInput, match="no network to move bytes over"):
        sim.run({"model": MODEL, "cluster": {"pools": [pool()]}, "workloads": [sent, {"kind": "transfers", "source": "a", "target": "b"}]})


@pytest.mark.parametrize(("changes", "said"), [
    ({"source": "stor"}, "no pool and no store is named 'stor'; did you mean store?"),
    ({"target": "serves"}, "no pool and no store is named 'serves'; did you mean serve?"),
    ({"bytes": "3GBB"}, "'3GBB' has the unknown unit 'GBB'"),
    ({"bytes": 0}, "a size above 0 is wanted, such as 16GB, or `weights`"),
    ({"every": "10s"}, "neither times nor duration is given"),
    ({"times": 3}, "without `every` there is one transfer"),
    ({"chunk": "64MB"}, "algorithm direct sends everything in one piece"),
    ({"fanout": 2, "algorithm": "pipeline"}, "algorithm pipeline has none"),
    ({"what": "checkpoint", "source": "serve"}, "a checkpoint goes to a store"),
])  # fmt: skip
def test_slips(changes, said):
    sent = {"kind": "constant", "rate": 5, "num_requests": 20, "lengths": LENGTHS}
    wanted = {"model": MODEL, "cluster": {"pools": [pool()], "network": network()},
              "workloads": [sent, {"kind": "transfers", "source": "store", "target": "serve"} | changes]}  # fmt: skip
    with pytest.raises(BadInput) as caught:
        sim.run(wanted)
    assert said in str(caught.value)


def test_regions_that_no_bytes_connect():
    hosts = [{"gpu": "h100_sxm", "region": region} for region in ("us", "eu")]
    away = network() | {"hosts": hosts, "stores": [], "wan": [{"between": ["us", "eu"], "latency": "40ms"}]}
    roles = [pool("a", role="prefill", region="us"), pool("b", role="decode", region="eu")]
    sent = {"kind": "constant", "rate": 5, "num_requests": 5, "lengths": LENGTHS, "region": "us"}
    with pytest.raises(BadInput) as caught:
        sim.run({"model": MODEL, "cluster": {"pools": roles, "network": away},
                 "workloads": [sent, {"kind": "transfers", "source": "a", "target": "b"}]})  # fmt: skip
    assert "keys and values of prefill pools in region 'us' do not reach region 'eu'" in str(caught.value)
    assert "no wan with a bandwidth connects 'us', where a is, with 'eu'" in str(caught.value)


def test_stores_that_no_bytes_connect():
    hosts = [{"gpu": "h100_sxm", "region": region} for region in ("us", "eu")]
    stores = [{"name": name, "bandwidth": "1GB/s", "region": name} for name in ("us", "eu")]
    away = network() | {"hosts": hosts, "stores": stores, "wan": [{"between": ["us", "eu"], "latency": "40ms"}]}
    tier = {"kind": "remote", "capacity": "1GB", "store": "eu"}
    far = {"start": {"weights": {"store": "eu"}, "cold": True}, "engine": {"kv_tiers": [tier]}}
    sent = {"kind": "constant", "rate": 5, "num_requests": 5, "lengths": LENGTHS, "region": "us"}
    with pytest.raises(BadInput) as caught:
        sim.run({"model": MODEL, "cluster": {"pools": [pool(region="us", **far)], "network": away}, "workloads": [sent]})
    for key in ("start.weights", "engine.kv_tiers.0"):
        assert f"cluster.pools.0.{key}.store: found 'eu' in region 'eu'; no wan with a bandwidth connects it with 'us'" in str(caught.value)
