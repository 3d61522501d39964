"""`burstsim show`: the tree, the facts and the drawing of a cluster, with and without a network."""
from __future__ import annotations

import json
import re
import xml.dom.minidom

import pytest
from click.testing import CliRunner
from scenarios import good, written

import sim
from sim.cli import main
from sim.report.inventory import inventory
from sim.report.topology import drawing

NETWORK = """\
  network:
    fabric: {preset: superpod_rails, oversubscription: 2}
    hosts:
      - {gpu: h100_sxm, count: 125, region: us}
      - {name: racks, gpu: gb200, count: 36, region: us}
      - {gpu: l40s, count: 3, region: eu}
    stores:
      - {name: weights, bandwidth: 100GB/s, latency: 5ms, region: us}
      - {name: "far <away>", bandwidth: 10GB/s, region: eu}
    wan:
      - {between: [us, eu], latency: 40ms}
  router:"""
TREE = """\
chat
network: 164 hosts, 1,168 GPUs, superpod_rails: pods of rails, 2:1
  region us: 161 hosts, 1,144 GPUs, 14.3 TB/s across its middle
    3 pods of 8 rails each, 6.4 TB/s up from a pod, over 32 x h100_sxm
    1 pod of 8 rails, 5.8 TB/s up from a pod, over 29 x h100_sxm
    1 pod of 4 rails, 3.2 TB/s up from a pod, over 32 x racks
    1 pod of 4 rails, 400 GB/s up from a pod, over 4 x racks
    host h100_sxm (hgx_h100): 8 GPUs, NVLink 450 GB/s among 8, PCIe 64 GB/s, 8 cards of 50 GB/s; memory 2 TB at 614 GB/s
    host racks (gb200_nvl72): 4 gb200, NVLink 900 GB/s among 72 over 18 hosts, PCIe 450 GB/s, 4 cards of 50 GB/s; memory 960 GB at 1.02 TB/s
    store weights (storage): 100 GB/s, 5 ms before the first byte
  region eu: 3 hosts, 24 GPUs, 75 GB/s across its middle
    1 pod of 2 rails, 75 GB/s up from a pod, over 3 x l40s
    host l40s (pcie_l40s): 8 GPUs, PCIe 32 GB/s, 2 cards of 25 GB/s; memory 1 TB at 614 GB/s
    store far <away> (storage): 10 GB/s
  wan us - eu: requests only, 40 ms one way
pools
  serve: meta-llama/Llama-3.1-8B, 2 replicas of 2 h100_sxm (tp 2): 4 of 1,000 GPUs
"""


@pytest.fixture
def wired(tmp_path):
    return written(tmp_path, good("  router:", NETWORK))


def show(*args):
    done = CliRunner().invoke(main, ["show", *map(str, args)])
    return done.exit_code, done.stdout, done.stderr


def test_the_tree_says_what_stands_where(wired):
    code, out, _ = show(wired)
    assert (code, out[: len(TREE)]) == (0, TREE)
    assert re.fullmatch(r"    of 80 GB a GPU: weights 4\.\d+ GB, .* KV 6\d\.?\d* GB; a replica holds [\d,]+ tokens\n", out[len(TREE) :])


def test_without_a_network_there_are_still_the_pools(tmp_path):
    code, out, _ = show(written(tmp_path, good()))
    assert code == 0
    assert out.startswith("chat\nno network is given: every transfer has its link to itself\npools\n  serve: ")
    assert json.loads(show(written(tmp_path, good()), "--json")[1])["network"] is None


def test_the_facts_as_json(wired):
    code, out, _ = show(wired, "--json", "--set", "cluster.pools.0.replicas=3")
    facts = json.loads(out)
    assert (code, facts["network"]["gpus"], facts["pools"][0]["replicas"]) == (0, 125 * 8 + 36 * 4 + 3 * 8, 3)
    assert sum(leaf["count"] * sum(leaf["hosts"].values()) for region in facts["network"]["regions"] for leaf in region["leafs"]) == 164
    # What the scenario changed is not the preset's any more.
    assert facts["network"]["fabric"]["oversubscription"] == 2
    fabric = {name for name in facts["network"]["sources"] if name.startswith("fabric.")}
    assert fabric == {"fabric.hosts_per_leaf", "fabric.nic_latency", "fabric.switch_latency"}
    assert {"hgx_h100.nic_bandwidth", "hgx_h100.memory_bandwidth", "gb200.nvlink", "l40s.pcie"} < set(facts["network"]["sources"])
    memory = facts["pools"][0]["memory"]
    taken = sum(memory[part] for part in ("weights", "activations", "reserve", "kv"))
    assert 0.85 * memory["gpu"] < taken <= 0.9 * memory["gpu"]


def test_the_bisection_of_each_kind_of_fabric(wired):
    def middle(fabric):
        scenario = sim.load(wired, {"cluster.network.fabric": fabric, "cluster.network.hosts": [
            {"gpu": "h100_sxm", "count": 8, "region": "us"}, {"gpu": "h100_sxm", "region": "eu"}]})  # fmt: skip
        return [region["bisection"] for region in inventory(scenario)["network"]["regions"]]

    cards = 8 * 8 * 50e9
    assert middle("one_switch") == [cards / 2, 0.0]
    assert middle({"kind": "rails", "hosts_per_leaf": 8, "oversubscription": 4}) == [cards / 2, 0.0]
    assert middle({"kind": "rails", "hosts_per_leaf": 4, "oversubscription": 4}) == [cards / 8, 0.0]
    assert middle({"kind": "leaf_spine", "hosts_per_leaf": 2, "oversubscription": 2}) == [cards / 4, 0.0]


def test_the_drawing_is_small_whatever_the_size(wired):
    """One inline element in the page's colours, with every name in it and nothing that breaks the page."""
    small, large = (drawing(sim.load(wired, {"cluster.network.hosts.0.count": count})) for count in (33, 1250))
    text = xml.dom.minidom.parseString(small)
    words = {element.firstChild.data for element in text.getElementsByTagName("text")}
    assert {"us", "eu", "weights", "far <away>", "spine", "serve", "hgx_h100: 8 h100_sxm"} <= words
    assert set(re.findall(r"#0102\w\w", small)) == set()
    assert len(large) < 1.3 * len(small) < 120_000


def test_it_is_drawn_to_a_file(wired, tmp_path):
    code, _, err = show(wired, "-o", tmp_path / "site.svg")
    assert (code, err) == (0, f"written to {tmp_path / 'site.svg'}\n")
    text = (tmp_path / "site.svg").read_text("utf-8")
    xml.dom.minidom.parseString(text)
    assert "var(" not in text
    assert 'xmlns="http://www.w3.org/2000/svg"' in text
    assert show(written(tmp_path, good(), "plain.yaml"), "-o", tmp_path / "site.png")[0] == 0
    assert (tmp_path / "site.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "message"), [
    ("site.pdf", "site.pdf'; a file that ends in .svg or .png is wanted"), ("none/site.svg", "cannot write"),
])  # fmt: skip
def test_a_file_that_cannot_be(wired, tmp_path, name, message):
    code, _, err = show(wired, "-o", tmp_path / name)
    assert code == 2
    assert message in err


def test_a_model_that_does_not_fit_is_said_with_its_line(tmp_path):
    path = written(tmp_path, good("gpu_memory: 80GB", "gpu_memory: 8GB"))
    code, out, err = show(path, "--set", "model=meta-llama/Llama-3.1-70B")
    assert (code, out) == (2, "")
    assert re.match(rf"error: {re.escape(str(path))}:\d+: cluster.pools.0: .*does not fit", err)
