"""A network that cannot be: every slip is answered with its file and line, what was found and what would be right."""
from __future__ import annotations

import contextlib
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from scenarios import problems_of, written

import sim
from sim.core.errors import BadInput
from sim.physics.topology import build
from sim.spec.schema import json_schema

GOOD = """\
name: chat
model: meta-llama/Llama-3.1-8B
cluster:
  pools:
    - name: serve
      gpu: h100_sxm
      replicas: 2
  network:
    fabric: {kind: leaf_spine, hosts_per_leaf: 4}
    hosts:
      - {gpu: h100_sxm, count: 3, region: us}
      - {gpu: l40s, count: 2, region: eu}
    stores:
      - {name: weights, bandwidth: 100GB/s, region: us}
      - {name: images, kind: registry, bandwidth: 10GB/s, region: us}
    wan:
      - {between: [us, eu], bandwidth: 10GB/s, latency: 40ms}
    placement: {kind: spread}
workloads:
  - {kind: poisson, rate: 4, num_requests: 20, lengths: {kind: fixed, input: 100, output: 10}}
"""
FABRIC, H100 = "fabric: {kind: leaf_spine, hosts_per_leaf: 4}", "{gpu: h100_sxm, count: 3, region: us}"
L40S, WEIGHTS = "{gpu: l40s, count: 2, region: eu}", "{name: weights, bandwidth: 100GB/s, region: us}"
WAN = "      - {between: [us, eu], bandwidth: 10GB/s, latency: 40ms}\n"

# Changed text, its line, and what the message must say.
BAD = [
    (FABRIC, "fabric: superpod_rail", 9, "found 'superpod_rail'; the name of a fabric is wanted; did you mean superpod_rails?"),
    (FABRIC, "fabric: {preset: nvl, oversubscription: 2}", 9, "did you mean nvl72?"),
    (FABRIC, "fabric: {preset: superpod_rails, oversubscription: 0.5}", 9, "found 0.5; a value of at least 1 is wanted"),
    (FABRIC, "fabric: {kind: ring, hosts_per_leaf: 4}", 9, "found 'ring'; 'leaf_spine', 'rails' or 'flat' is wanted"),
    (FABRIC, "fabric: {kind: rails}", 9, "hosts_per_leaf is missing; kind rails needs it"),
    (FABRIC, "fabric: {kind: flat, oversubscription: 2}", 9, "kind flat is one switch: it has no use for"),
    (FABRIC, "fabric: {kind: rails, hosts_per_leaf: 4, speed: 3}", 9, "unknown key of cluster.network.fabric"),
    (H100, "{gpu: h100_sx, count: 3, region: us}", 11, "unknown GPU 'h100_sx'; did you mean h100_sxm?"),
    (H100, "{gpu: h100_sxm, node: hgx_h10, count: 3, region: us}", 11, "unknown node 'hgx_h10'; did you mean hgx_h100"),
    (H100, "{gpu: h100_sxm, node: hgx_b200, count: 3, region: us}", 11, "h100_sxm does not go into hgx_b200, which takes b200"),
    (H100, "{gpu: h100_sxm, count: 0, region: us}", 11, "found 0; a value of at least 1 is wanted"),
    (L40S, "{gpu: l40s, count: 2, region: asia}", 12, "no wan connects region 'asia' with 'us'; add {between: [us, asia]"),
    (L40S, "{gpu: l40s, count: 2, region: asia}", 17, "no hosts or stores are in region 'eu'; known: asia, us"),
    (WEIGHTS, "{name: images, bandwidth: 100GB/s, region: us}", 15, "stores.0 is named 'images' too; names must differ"),
    (WEIGHTS, "{name: weights, bandwidth: 0GB/s, region: us}", 14, "found '0GB/s'; a value above 0 is wanted"),
    (WEIGHTS, "{name: weights, bandwidth: -1GB/s, region: us}", 14, "found '-1GB/s'; a value above 0 is wanted"),
    (WEIGHTS, "{name: weights, bandwidth: 10GB, region: us}", 14, "'10GB' is a size; a bandwidth is wanted"),
    (WEIGHTS, "{name: weights, bandwidth: 1GB/s, region: asia}", 14, "no route from store 'weights' in region 'asia' to any hosts"),
    (WAN, "", 12, "no wan connects region 'eu' with 'us'"),
    ("bandwidth: 10GB/s, latency: 40ms", "bandwidth: 0, latency: 40ms", 17, "found 0; a value above 0 is wanted"),
    ("bandwidth: 10GB/s, latency: 40ms", "latency: 40ms", 12, "to these hosts in region 'eu': the wan between us and eu needs a bandwidth"),
    ("[us, eu]", "[us, us]", 17, "found 'us' twice; two regions are wanted"),
    ("[us, eu]", "[us]", 17, "at least 2 is wanted"),
    (WAN, WAN + WAN.replace("us, eu", "eu, us"), 18, "the way between eu and us is given twice"),
    ("kind: spread", "kind: spred", 18, "unknown placer kind 'spred'; did you mean spread?"),
    ("gpu: h100_sxm\n", "gpu: b200\n", 6, "no hosts of cluster.network have b200; known: h100_sxm, l40s"),
    ("replicas: 2", "node: hgx_h200", 7, "no hosts of cluster.network with h100_sxm are hgx_h200; did you mean hgx_h100?"),
    ("replicas: 2", "region: usa", 7, "no hosts of cluster.network are in region 'usa'; did you mean us?"),
    ("replicas: 2", "region: eu", 7, "no hosts of cluster.network in region 'eu' have h100_sxm; it is in us"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD, ids=[f"{line}-{message[:40]}" for _, _, line, message in BAD])
def test_a_network_that_cannot_be(tmp_path, old, new, line, message):
    assert GOOD.count(old) == 1
    path = written(tmp_path, GOOD.replace(old, new))
    found = problems_of(path, lookup=True)
    assert (str(path), line) in [(p.file, p.line) for p in found if message in p.message], "\n".join(map(str, found))


def test_all_problems_at_once(tmp_path):
    text = GOOD.replace(H100, "{gpu: h100_sx, count: 3, region: us}").replace("100GB/s", "0GB/s").replace("[us, eu]", "[us, mars]")
    assert {p.line for p in problems_of(written(tmp_path, text), lookup=True)} >= {11, 14, 17}


def test_the_good_one_is_read_and_written_back(tmp_path):
    scenario = sim.load(written(tmp_path, GOOD))
    assert scenario.cluster.network.regions == ("us", "eu")
    assert sim.loads(yaml.safe_load(sim.dump(scenario))) == scenario


def test_a_preset_with_changes(tmp_path):
    changed = GOOD.replace(FABRIC, "fabric: {preset: superpod_rails, oversubscription: 2}")
    fabric = sim.load(written(tmp_path, changed)).cluster.network.fabric
    assert (fabric.kind, fabric.hosts_per_leaf, fabric.oversubscription) == ("rails", 32, 2)
    written_out = sim.load(written(tmp_path, GOOD.replace(FABRIC, "fabric: superpod_rails"))).cluster.network.fabric
    assert written_out.oversubscription == 1


def test_the_network_of_the_readme_is_one():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, flags=re.S) if "network:" in block]
    rest = {key: value for key, value in yaml.safe_load(GOOD).items() if key != "cluster"}
    network = sim.loads(rest | yaml.safe_load(shown)).cluster.network
    assert len(build(network).hosts) == 72


def test_editors_know_fabrics_and_placers():
    definitions = json_schema()["$defs"]
    words, mapping = definitions["Fabric"]["anyOf"]
    assert "superpod_rails" in words["enum"]
    assert mapping["anyOf"] == [{"required": ["kind"]}, {"required": ["preset"]}]
    assert {"$ref": "#/$defs/placer.topology"} in definitions["Network"]["properties"]["placement"]["oneOf"]


def test_placement_is_left_to_its_default_and_its_paths_are_taken_from_the_file(tmp_path):
    (tmp_path / "own.yaml").write_text(open_profile("hgx_h100"), encoding="utf-8")
    text = GOOD.replace("    placement: {kind: spread}\n", "").replace(H100, "{gpu: h100_sxm, node: own.yaml, count: 3, region: us}")
    network = sim.load(written(tmp_path, text)).cluster.network
    assert network.placement["kind"] == "topology"
    assert network.hosts[0].node == str(tmp_path / "own.yaml")


def test_hosts_without_network_cards(tmp_path):
    profile = open_profile("hgx_h100").replace("nics: {value: 8", "nics: {value: 0").replace("{value: 400Gbps", "{value: 0Gbps")
    (tmp_path / "bare.yaml").write_text(profile, encoding="utf-8")
    text = GOOD.replace(H100, "{gpu: h100_sxm, node: bare.yaml, count: 3, region: us}")
    (problem,) = problems_of(written(tmp_path, text), lookup=True)
    assert problem.line == 11
    assert problem.message.startswith("node bare has no network cards: nothing connects these hosts")


def inside(value, route=()):
    """Every route into nested mappings and lists."""
    yield route
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from inside(part, (*route, key))


@pytest.mark.parametrize("junk", [None, -1, "", [], {"a": {}}, [["us"]]], ids=repr)
def test_whatever_is_written_there_is_read_or_refused(junk):
    network = yaml.safe_load(GOOD)["cluster"]["network"]
    for *way, last in filter(None, inside(network)):
        raw = yaml.safe_load(GOOD)
        holder = raw["cluster"]["network"]
        for key in way:
            holder = holder[key]
        holder[last] = junk
        with contextlib.suppress(BadInput):
            assert isinstance(sim.loads(raw), sim.Scenario)


def open_profile(name):
    return files("hardware_profiles").joinpath("nodes", f"{name}.yaml").read_text("utf-8")
