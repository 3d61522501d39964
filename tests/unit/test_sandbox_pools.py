"""Pools of sandboxes: nodes that come and go, what they cost, what may be written and what may not."""
from __future__ import annotations

import pytest
import yaml
from sandbox_world import IMAGES, NETWORK, SNAPSHOT, Play, asked, held, scenario

import sim
from sim.core.errors import BadInput
from sim.spec.cpu_node import preset, preset_names
from sim.spec.load import dump, loads
from sim.spec.schema import json_schema
from sim.study.metrics import summarise
from sim.study.result import Result

NS = 3e-9


# -- nodes ------------------------------------------------------------
DEMAND = {"kind": "concurrency", "target": 4, "utilization": 1.0, "scale_to_zero_grace": 0, "stable_window": 6, "panic_window": 1}
SCALE = {"min": 0, "max": 5, "every": "10s", "provision": "30s", "policy": DEMAND}


def test_nodes_come_for_those_who_wait_and_go_when_they_are_empty():
    play = Play({"nodes": None, "autoscale": SCALE})
    found = asked(play, *((5, 60, 0) for _ in range(10)), (400, 10, 0))
    # Wanted at 10, there at 40: three nodes for ten sandboxes.
    assert [when for _, when in found] == pytest.approx([40] * 10 + [430], abs=NS)
    assert play.nodes["start"].tolist()[:4] == [10, 10, 10, 400]
    assert play.nodes["ready"].tolist()[:4] == pytest.approx([40, 40, 40, 430], abs=NS)
    assert (play.nodes["end"][:3] < 200).all()
    assert play.checked()["nodes"]["peak"] == 3


def test_an_autoscaler_that_never_helps_does_not_run_for_ever():
    table = [{"at": "00:00", "replicas": 0}]
    play = Play({"nodes": None, "autoscale": {**SCALE, "every": "1h", "policy": {"kind": "scheduled", "table": table}}})
    play.begin(held(play, 1, 5)).end()
    assert play.rows["outcome"].tolist() == ["unfinished"]
    assert 8 * 86400 < play.env.now < 9 * 86400


# -- money ------------------------------------------------------------
def paid(pool, **more):
    play = Play(pool, **more)
    asked(play, (0, 3600, 0))
    return summarise(play.result)["cost"], play.checked(), play.result.meta["remarks"]


def test_nodes_are_paid():
    cost, figures, _ = paid({"nodes": 3, "price_per_hour": 2.0})
    assert figures["usd"] == cost["usd_sandboxes"] == pytest.approx(6.0, rel=1e-3)
    assert figures["usd_per_sandbox"] == pytest.approx(6.0, rel=1e-3)
    assert cost["usd_total"] > 6.0
    cost, _, _ = paid({"node": "general_64"})
    assert cost["usd_sandboxes"] == pytest.approx(preset("general_64").price_per_hour, rel=1e-3)
    cost, figures, _ = paid({"node": {"cores": 10, "memory": "100GB", "disk": "1TB"}}, prices={"book": "neocloud"})
    assert figures["usd"] == pytest.approx(0.03 * 10 + 0.004 * 100, rel=1e-3)
    cost, figures, remarks = paid({})
    assert cost["usd_total"] is None
    assert figures["usd"] is None
    assert any("sandboxes box: their nodes have no price" in remark for remark in remarks)


def test_the_catalogue_of_cpu_nodes():
    for name in preset_names():
        found = preset(name)
        assert set(found.values) == {"cores", "memory", "disk"}
        assert set(found.figures) == {*found.values, "price_per_hour"}
    changed = loads(scenario({"node": {"preset": "general_64", "disk": "4TB"}})).cluster.sandboxes[0].node
    assert (changed.cores, changed.disk) == (64, 4e12)
    assert set(changed.figures()) == {"cores", "memory"}


# -- what may be written ------------------------------------------------------------
def test_what_was_written_is_read_back():
    memory = {"base": "1GB", "burst": {"median": "1GB", "sigma": 1}, "burst_time": "1s"}
    everything = {"nodes": None, "autoscale": SCALE, "node": "compute_64", "images": IMAGES, "memory": memory, "limit": "4GB",
                  "boot": {"median": "2s", "p99": "9s"}, "quota": {"work": 3}, **SNAPSHOT}  # fmt: skip
    first = loads(scenario(everything))
    assert loads(yaml.safe_load(dump(first))) == first
    schema = json_schema()["$defs"]
    assert {"type": ["number", "string"]} in schema["Law"]["anyOf"]
    assert schema["NodeScale"]["properties"]["policy"]["oneOf"]


@pytest.mark.parametrize(("pool", "message", "path"), [
    ({"nodes": None}, "give nodes, how many there are, or autoscale, one of the two", ""),
    ({"autoscale": SCALE}, "give nodes, how many there are, or autoscale, one of the two", ""),
    ({"memory": "5GB"}, "a node is smaller than one sandbox: it has 4e+09 bytes of memory for sandboxes, and one needs 5e+09", ""),
    ({"cores": 9}, "a node is smaller than one sandbox: it has 8 cores", ""),
    ({"disk": "101GB"}, "a node is smaller than one sandbox: it has 1e+11 bytes of disk", ""),
    ({"limit": "500MB"}, "limit (5e+08 bytes) is below memory.base (1e+09 bytes)", ""),
    ({"memory": 512}, "found 512 bytes; there is more: write the unit, such as 512GB", ".memory"),
    ({"memory": {"base": "1GB", "burst_time": 1}}, "burst_time is given, but no burst", ".memory"),
    ({"images": {**IMAGES, "size": "60GB"}}, "image 0 of 2 is 6e+10 bytes, larger than any node's disk has room for", ".images.size"),
    ({"images": {**IMAGES, "store": "hub"}}, "found 'hub', but there is no network", ".images.store"),
    ({"place": "image"}, "place image prefers nodes that have the image, but there are no images to pull", ""),
    ({"warm": 5}, "warm (5) is more than the 4 sandboxes that all nodes have room for", ""),
    ({"boot": -1}, "value is -1; nothing here is below 0", ".boot"),
    ({"boot": None}, "missing", ".boot"),
    ({"quota": {"wrok": 1}}, "no workload is named 'wrok'; did you mean work?", ".quota.wrok"),
    ({"node": "general_46"}, "found 'general_46'; the name of a CPU node is wanted", ".node"),
    ({"kind": "vm"}, "'container' or 'microvm' is wanted", ".kind"),
    ({"fail": 1}, "a value below 1 is wanted", ".fail"),
    ({"colour": 1}, "unknown key", ".colour"),
    ({"autoscale": {"max": 3, "policy": {"kind": "hpb"}}, "nodes": None}, "unknown autoscaler kind 'hpb'", ".autoscale.policy.kind"),
])  # fmt: skip
def test_bad_input(pool, message, path):
    with pytest.raises(BadInput) as error:
        sim.run(scenario(pool))
    assert message in str(error.value)
    assert f"cluster.sandboxes.0{path}" in [problem.path for problem in error.value.problems]


def test_more_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"no store 'hubb'; did you mean hub\?"):
        loads(scenario({"images": {**IMAGES, "store": "hubb"}}, cluster={"network": NETWORK}))
    twice = scenario()
    twice["cluster"]["sandboxes"] *= 2
    with pytest.raises(BadInput, match="two pools of sandboxes are named box"):
        loads(twice)
    book = tmp_path / "book.yaml"
    book.write_text("title: mine\nsources: {me: {kind: judgement, date: 2026, what: mine}}\n"
                    "gpus: {l40s: {on_demand: {value: 1, source: me}}}\nvcpu_hour: {value: 1, source: me}\n")
    with pytest.raises(BadInput, match="has no ram_gb_hour, and this pool runs on CPU nodes"):
        loads(scenario(prices={"book": str(book)}))
    with pytest.raises(BadInput, match=r"no pool of sandboxes is named 'bix'; did you mean box\?"):
        Play().client.sandbox("bix")


def test_a_result_is_saved_and_opened_with_its_sandboxes(tmp_path):
    play = Play({"warm": 1, "price_per_hour": 1.0})
    asked(play, (0, 5, 0), (1, 5, 0))
    again = Result.open(play.result.save(tmp_path / "out"))
    assert again.summary["sandboxes"] == play.result.summary["sandboxes"]
    assert again.tables["sandboxes"].to_pandas().astype(str).equals(play.result.tables["sandboxes"].to_pandas().astype(str))
    assert again.summary["audit"]["sandboxes"]["ok"]
