"""GPUs that two pools cannot share, and hand-overs that nobody can mean."""
from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from unittest import mock

import pytest
from lent import scenario

from sim.core.errors import BadInput
from sim.spec.lending import Shares
from sim.spec.load import dump, load, loads
from sim.world.cluster import World
from workloads.poisson import Poisson


def wrong(base, trains=True):
    with mock.patch.object(Poisson, "trains", trains), pytest.raises(BadInput) as error:
        loads(base)
    return [(problem.path, problem.message) for problem in error.value.problems]


def changed(pool, **keys):
    base = scenario()
    base["cluster"]["pools"][pool] |= keys
    return base


@pytest.mark.parametrize(("base", "path", "says"), [
    (scenario("serv"), "pools.1.shares", "no pool is named 'serv'; did you mean serve"),
    (scenario("night"), "pools.1.shares", "shares the GPUs of another one"),
    (changed(1, gpu="a100_80gb"), "pools.1.gpu", "found a100_80gb, but pool serve, whose GPUs these are, has h100_sxm"),
    (changed(1, parallel={"tp": 2}), "pools.1.parallel", "a replica has 2 GPUs, and one of pool serve"),
    (changed(1, replicas=4), "pools.1.replicas", "found 4, but pool serve, whose GPUs these are, has 3"),
    (changed(1, gpu_memory="60GB"), "pools.1.gpu_memory", "write the same"),
    (changed(1, price_per_hour=1), "pools.1.price_per_hour", "are paid as those of serve"),
    (changed(0, autoscale={"max": 4, "policy": {"kind": "hpa"}}), "pools.0.autoscale", "their number is fixed"),
    (changed(1, start={"cold": True}), "pools.1.start", "sleep and wake"),
    (changed(0, engine={"batcher": {"kind": "static"}, "max_num_batched_tokens": 131072}), "pools.0.engine.batcher", "be interrupted"),
    (scenario() | {"prices": {"book": "neocloud", "commitment": {"night": "spot"}}}, "prices.commitment.night", "paid as those of serve"),
    (scenario(cluster={"gate": {"kind": "kv_capacity"}}), "cluster.gate", "a gate keeps programs at their replicas"),
    (scenario({"pool": "serve", "lend": {"how": "abort", "grace": "5s"}}), "shares.lend", "nobody is waited for"),
    (scenario({"pool": "serve", "lend": {"how": "dump"}}), "shares.lend.how", "dump"),
    (scenario({"pool": "serve", "when": {}}), "shares.when", "say it in one way"),
    (scenario({"pool": "serve", "when": {"load_below": 2}}), "shares.when", "belong together"),
    (scenario({"pool": "serve", "when": {"load_below": 5, "load_above": 2}}), "shares.when", "to and fro"),
    (scenario({"pool": "serve", "when": {"between": ["6h", "6h"]}}), "shares.when", "no time at all"),
    (scenario({"pool": "serve", "when": {"between": ["22h", "6h"], "every": "5s"}}), "shares.when", "nothing to do with the clock"),
    (scenario({"pool": "serve", "when": {"load_below": 2, "load_above": 5, "offset": "1h"}}), "shares.when", "offset is of a clock"),
    (scenario({"pool": "serve", "awake": "owner", "when": {"between": ["22h", "6h"]}}), "shares", "the clock says"),
])  # fmt: skip
def test_what_cannot_be_shared(base, path, says):
    assert [message for where, message in wrong(base) if path in where and says in message]


def test_gpus_are_shared_by_two():
    base = scenario()
    base["cluster"]["pools"].append(base["cluster"]["pools"][1] | {"name": "other"})
    assert any("pool night shares the GPUs of serve already" in message for _, message in wrong(base))
    base["cluster"]["pools"][2]["shares"] = "night"
    assert any("it shares those of serve" in message for _, message in wrong(base))
    base = scenario()
    base["cluster"]["trainers"] = [{"name": "train", "gpu": "h100_sxm", "gpus": 3, "shares": "serve"}]
    assert any("trainer train shares the GPUs of pool serve already" in message for _, message in wrong(base))
    assert any("nobody decides when the GPUs change hands; say when" in message for _, message in wrong(scenario(), trains=False))


def test_prefill_pools_share_nothing():
    base = scenario()
    base["cluster"]["pools"][0]["role"] = "prefill"
    base["cluster"]["pools"].append({"name": "decode", "gpu": "h100_sxm", "role": "decode"})
    assert any("others fetch what was computed there" in message for _, message in wrong(base))


def test_who_may_lend():
    def asked(base, pool="serve", trains=True):
        with mock.patch.object(Poisson, "trains", True):
            loaded = loads(base)
        with mock.patch.object(Poisson, "trains", trains):
            return World(loaded)._clients[0].sharing(pool)

    assert asked(scenario()).lent == asked(scenario(), "night").lent == 0
    assert asked(scenario({"pool": "serve", "awake": "borrower"})).lent == 2
    with pytest.raises(BadInput, match="pool other shares no GPUs"):
        asked(scenario(), "other")
    with pytest.raises(BadInput, match="not its to lend"):
        asked(scenario(), trains=False)
    with pytest.raises(BadInput, match="its when decides"):
        asked(scenario({"pool": "serve", "when": {"between": ["22h", "6h"]}}))


def test_a_scenario_that_was_written_out_reads_the_same(tmp_path):
    when = {"between": ["22h", "6h"]}
    base = loads(scenario({"pool": "serve", "when": when, "lend": {"how": "preempt"}, "take_back": {"grace": "5s", "switch": "2s"}}))
    path = tmp_path / "again.yaml"
    path.write_text(dump(base))
    assert load(path) == base
    assert isinstance(base.cluster.pools[1].shares, Shares)
    assert math.isclose(base.cluster.pools[1].shares.take_back.grace, 5.0)


def test_weights_that_sleep_need_room_in_the_hosts_memory(tmp_path):
    """Two replicas share GPUs of one host, which then holds 16 GB of weights for each of them, of either pool."""
    text = Path(str(files("hardware_profiles") / "nodes" / "hgx_h100.yaml")).read_text("utf-8")
    for size in (60, 70):
        (tmp_path / f"host{size}.yaml").write_text(text.replace("{value: 2TB", f"{{value: {size}GB"), encoding="utf-8")

    def asked(size, shares="serve", **cluster):
        base = scenario(shares, cluster=cluster)
        for pool in base["cluster"]["pools"]:
            pool["node"] = str(tmp_path / f"host{size}.yaml")
        with mock.patch.object(Poisson, "trains", True):
            return World(loads(base))

    assert len(asked(70).sharings) == 1
    with pytest.raises(BadInput) as error:
        asked(60)
    [problem] = error.value.problems
    assert problem.path == "cluster.pools.1.shares"
    held = "holds 16.1 GB of weights of serve and 16.1 GB of weights of night for each of 2 GPUs, 4 GB more than its 60 GB"
    assert held in problem.message
    # Each of them on a host of its own has room.
    host = {"gpu": "h100_sxm", "node": str(tmp_path / "host60.yaml"), "count": 3}
    network = {"fabric": {"kind": "flat"}, "hosts": [host], "placement": {"kind": "spread"}}
    assert len(asked(60, network=network).sharings) == 1
    with pytest.raises(BadInput, match="for each of 2 GPUs"):
        asked(60, network=network | {"placement": {"kind": "bin_pack"}})
    # Where times are stated nobody says where weights come from.
    asked(60, {"pool": "serve", "lend": {"switch": "30s"}, "take_back": {"switch": "30s"}})
    with pytest.raises(BadInput):
        asked(60, {"pool": "serve", "lend": {"switch": "30s"}})
