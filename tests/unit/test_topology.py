"""The graph of a network: every preset builds, ways cross what they must with shares that add up, and bandwidths are what hardware has."""
from __future__ import annotations

import itertools
import math
import re
import time
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.errors import BadInput
from sim.physics.topology import Gpus, Memory, Store, _laid, build
from sim.spec.network import Network, preset, preset_names

GB = 1e9
NIC = 50 * GB  # 400 Gb/s
USUAL = {"hgx_leaf_spine": "h100_sxm", "superpod_rails": "h100_sxm", "nvl72": "gb200", "pcie_ethernet": "l40s", "one_switch": "h100_sxm"}
STORE = {"name": "weights", "bandwidth": "100GB/s"}


def topology(fabric="superpod_rails", hosts=({"gpu": "h100_sxm", "count": 4},), **more):
    return build(Network.model_validate({"fabric": fabric, "hosts": list(hosts), **more}))


def whole(host, gpus=8):
    return Gpus(tuple((host, gpu) for gpu in range(gpus)))


def rate(site, path):
    """Bytes/s of a flow that is alone."""
    return min(site.links[link].capacity / share for link, share in zip(path.links, path.shares, strict=True))


def carried(site, path):
    """Of each kind of link, how many times the bytes of a flow cross one."""
    sums: dict[str, float] = {}
    for link, share in zip(path.links, path.shares, strict=True):
        sums[site.links[link].kind] = sums.get(site.links[link].kind, 0.0) + share
    return {kind: round(total, 9) for kind, total in sums.items()}


@pytest.mark.parametrize("name", preset_names())
def test_presets_build_and_say_where_their_figures_come_from(name):
    site = topology(name, [{"gpu": USUAL[name], "count": 40}], stores=[STORE])
    assert [host.number for host in site.hosts] == list(range(40))
    assert all(link.capacity > 0 and link.latency >= 0 for link in site.links)
    assert len({link.name for link in site.links}) == len(site.links)
    figures = preset(name).figures
    assert set(figures) == set(preset(name).values) - {"kind"}
    assert all(figure.source for figure in figures.values())


def test_replica_to_replica_on_rails_takes_all_cards_and_no_spine():
    site = topology()
    path = site.path(whole(0), whole(1))
    assert rate(site, path) == pytest.approx(8 * NIC)
    assert carried(site, path) == {"pcie": 2, "nic": 2}
    assert path.latency == pytest.approx(2 * 0.9e-6 + 0.3e-6)
    assert site.hosts[0].leaf == site.hosts[3].leaf


def test_beyond_a_pod_and_from_rail_to_rail_the_spine_is_crossed():
    site = topology({"preset": "superpod_rails", "hosts_per_leaf": 2, "oversubscription": 4})
    path = site.path(whole(0), whole(2))
    assert carried(site, path) == {"pcie": 2, "nic": 2, "leaf": 2}
    # Two hosts below a leaf, of which four times too little goes up.
    assert rate(site, path) == pytest.approx(8 * 2 * NIC / 4)
    assert path.latency == pytest.approx(2 * 0.9e-6 + 3 * 0.3e-6)
    assert carried(site, site.path(Gpus(((0, 0),)), Gpus(((1, 5),)))) == {"pcie": 2, "nic": 2, "leaf": 2}
    assert carried(site, site.path(Gpus(((0, 5),)), Gpus(((1, 5),)))) == {"pcie": 2, "nic": 2}


def test_below_one_leaf_every_pair_of_cards_meets():
    site = topology({"preset": "hgx_leaf_spine", "oversubscription": 3}, [{"gpu": "h100_sxm", "count": 6}])
    assert carried(site, site.path(Gpus(((0, 0),)), Gpus(((3, 5),)))) == {"pcie": 2, "nic": 2}
    ups = [link for link in site.links if link.kind == "leaf"]
    assert [link.name for link in ups] == ["leaf0.up", "leaf0.down", "leaf1.up", "leaf1.down"]
    assert [link.capacity for link in ups] == pytest.approx([32 * NIC / 3] * 2 + [16 * NIC / 3] * 2)
    assert rate(site, site.path(whole(0), whole(5))) == pytest.approx(16 * NIC / 3)


def test_inside_a_host_it_is_nvlink_or_pcie():
    site = topology(hosts=[{"gpu": "h100_sxm"}, {"gpu": "l40s"}])
    four, others = Gpus(((0, 0), (0, 1), (0, 2), (0, 3))), Gpus(((0, 4), (0, 5), (0, 6), (0, 7)))
    assert carried(site, site.path(four, others)) == {"nvlink": 2}
    assert rate(site, site.path(four, others)) == pytest.approx(4 * 450 * GB)
    assert carried(site, site.path(Gpus(((1, 0),)), Gpus(((1, 1),)))) == {"pcie": 2}
    assert rate(site, site.path(Gpus(((1, 0),)), Gpus(((1, 1),)))) == pytest.approx(32 * GB)
    assert site.path(four, four).links == ()


def test_an_nvl72_rack_is_one_nvlink_domain():
    site = topology("nvl72", [{"gpu": "gb200", "count": 36}])
    assert [host.domain for host in site.hosts] == [0] * 18 + [1] * 18
    near, far = site.path(whole(0, 4), whole(17, 4)), site.path(whole(0, 4), whole(18, 4))
    assert (carried(site, near), rate(site, near)) == ({"nvlink": 2}, pytest.approx(4 * 900 * GB))
    assert (carried(site, far), rate(site, far)) == ({"pcie": 2, "nic": 2, "leaf": 2}, pytest.approx(4 * NIC))


def test_hosts_of_another_node_begin_a_new_leaf():
    hosts = [{"gpu": "h100_sxm", "count": 3}, {"gpu": "h100_sxm", "count": 3}, {"gpu": "l40s"}, {"gpu": "l40s", "region": "eu"}]
    wan = [{"between": ["", "eu"], "latency": "40ms"}]
    assert [host.leaf for host in topology("hgx_leaf_spine", hosts, wan=wan).hosts] == [0, 0, 0, 0, 1, 1, 2, 3]
    assert [host.leaf for host in topology("one_switch", hosts, wan=wan).hosts] == [0] * 7 + [1]


def test_memory_of_unknown_speed_limits_nothing(tmp_path):
    profile = files("hardware_profiles").joinpath("nodes", "hgx_h100.yaml").read_text("utf-8")
    (tmp_path / "own.yaml").write_text(re.sub("memory_bandwidth.*\n", "", profile), encoding="utf-8")
    site = topology(hosts=[{"gpu": "h100_sxm", "node": str(tmp_path / "own.yaml"), "count": 2}])
    assert carried(site, site.path(Memory((1,)), whole(1))) == {"pcie": 1}
    assert carried(site, site.path(Memory((0,)), whole(1))) == {"nic": 2, "pcie": 1}


def test_nvlink_pairs_are_domains_of_their_own(tmp_path):
    profile = files("hardware_profiles").joinpath("nodes", "hgx_h100.yaml").read_text("utf-8")
    pairs = profile.replace("interconnect: nvswitch", "interconnect: nvlink_pairs").replace("domain: {value: 8", "domain: {value: 2")
    (tmp_path / "pairs.yaml").write_text(pairs, encoding="utf-8")
    site = topology(hosts=[{"gpu": "h100_sxm", "node": str(tmp_path / "pairs.yaml"), "count": 2}])
    assert [host.domain for host in site.hosts] == [0, 4]
    assert carried(site, site.path(Gpus(((1, 2),)), Gpus(((1, 3),)))) == {"nvlink": 2}
    assert carried(site, site.path(Gpus(((1, 1),)), Gpus(((1, 2),)))) == {"pcie": 2}
    kinds = {site.links[link].kind for link in site.collective(Gpus(((1, 0), (1, 1), (1, 2), (1, 3))))}
    assert kinds == {"nvlink", "pcie"}


def test_pcie_boxes_share_their_cards():
    """Two cards of 25 GB/s serve four GPUs each."""
    site = topology("pcie_ethernet", [{"gpu": "l40s", "count": 2}])
    assert rate(site, site.path(whole(0), whole(1))) == pytest.approx(50 * GB)
    assert rate(site, site.path(Gpus(((0, 0), (0, 3))), Gpus(((1, 0), (1, 3))))) == pytest.approx(25 * GB)
    assert rate(site, site.path(Gpus(((0, 0), (0, 4))), Gpus(((1, 0), (1, 4))))) == pytest.approx(50 * GB)


def test_memory_and_stores():
    site = topology(hosts=[{"gpu": "h100_sxm", "count": 40}], stores=[STORE])
    load = site.path(Memory((3,)), whole(3))
    assert (carried(site, load), rate(site, load)) == ({"memory": 1, "pcie": 1}, pytest.approx(8 * 64 * GB))
    assert carried(site, site.path(whole(3), Memory((3,)))) == {"memory": 1, "pcie": 1}
    # Two hosts' memories and the GPUs in them: each GPU from its own host, however uneven.
    uneven = Gpus(((0, 0), (0, 1), (0, 2), (1, 0)))
    assert carried(site, site.path(Memory((0, 1)), uneven)) == {"memory": 1, "pcie": 1}
    remote = site.path(Memory((0,)), whole(1))
    assert (carried(site, remote), rate(site, remote)) == ({"memory": 1, "nic": 2, "pcie": 1}, pytest.approx(8 * NIC))
    assert rate(site, site.path(Memory((0,)), Memory((39,)))) == pytest.approx(8 * NIC)
    fetch = site.path(Store("weights"), whole(0))
    assert (carried(site, fetch), rate(site, fetch)) == ({"store": 1, "leaf": 1, "nic": 1, "pcie": 1}, pytest.approx(100 * GB))
    assert carried(site, site.path(Store("weights"), Memory((0,)))) == {"store": 1, "leaf": 1, "nic": 1, "memory": 1}
    assert site.path(Store("weights"), Memory((0,))).latency == pytest.approx(0.9e-6 + 2 * 0.3e-6)
    assert carried(site, site.path(whole(0), Store("weights"))) == {"pcie": 1, "nic": 1, "leaf": 1, "store": 1}
    with pytest.raises(BadInput, match="no store 'weigths' in the network; did you mean weights"):
        site.path(Store("weigths"), whole(0))


def test_regions_are_joined_by_wans():
    hosts = [{"gpu": "h100_sxm", "count": 2, "region": region} for region in ("us", "eu", "asia")]
    wan = [
        {"between": ["us", "eu"], "bandwidth": "10GB/s", "latency": "40ms"},
        {"between": ["eu", "asia"], "bandwidth": "5GB/s", "latency": "70ms"},
        {"between": ["us", "asia"], "latency": "90ms"},
    ]  # fmt: skip
    site = topology(hosts=hosts, wan=wan, stores=[{**STORE, "region": "us", "latency": "5ms"}])
    assert (site.wan_latency("us", "asia"), site.wan_latency("asia", "us"), site.wan_latency("eu", "eu")) == (0.09, 0.09, 0.0)
    # Bytes have to go round, over the ways that have a bandwidth.
    far = site.path(whole(0), whole(4))
    assert (carried(site, far)["wan"], rate(site, far)) == (2, pytest.approx(5 * GB))
    assert far.latency == pytest.approx(0.11, abs=1e-5)
    there, back = site.path(whole(0), whole(2)), site.path(whole(2), whole(0))
    assert not set(there.links) & set(back.links)
    assert site.path(Store("weights"), whole(4)).latency == pytest.approx(0.115, abs=1e-5)
    with pytest.raises(BadInput, match="no route between region 'us' and region 'mars'"):
        site.wan_latency("us", "mars")


def test_bytes_do_not_take_ways_for_requests():
    hosts = [{"gpu": "h100_sxm", "region": region} for region in ("us", "eu")]
    site = topology(hosts=hosts, wan=[{"between": ["us", "eu"], "latency": "40ms"}])
    with pytest.raises(BadInput, match="no chain of wans that has a bandwidth connects them"):
        site.path(whole(0), whole(1))


def test_links_of_collectives():
    site = topology({"preset": "superpod_rails", "hosts_per_leaf": 2}, [{"gpu": "h100_sxm", "count": 4}, {"gpu": "l40s", "count": 1}])

    def kinds(*slots):
        found = [site.links[link].kind for link in site.collective(Gpus(slots))]
        return {kind: found.count(kind) for kind in found}

    pair = ((0, 0), (0, 1))
    assert kinds((0, 0)) == {}
    assert kinds(*pair) == {"nvlink": 4}
    assert kinds((4, 0), (4, 1)) == {"pcie": 4}
    assert kinds(*pair, (1, 0), (1, 1)) == {"nvlink": 8, "pcie": 8, "nic": 8}
    assert kinds(*pair, (2, 0), (2, 1)) == {"nvlink": 8, "pcie": 8, "nic": 8, "leaf": 8}


def some_site():
    hosts = [{"gpu": "h100_sxm", "count": 3}, {"gpu": "l40s", "count": 2}, {"gpu": "gb200", "count": 3, "region": "eu"}]
    wan = [{"between": ["", "eu"], "bandwidth": "10GB/s", "latency": "40ms"}]
    return {
        kind: topology(fabric, hosts, wan=wan, stores=[STORE])
        for kind, fabric in (("rails", {"kind": "rails", "hosts_per_leaf": 2}), ("leafs", {"kind": "leaf_spine", "hosts_per_leaf": 2}),
                             ("flat", "one_switch"))
    }  # fmt: skip


SITES = some_site()
SIZES = [host.gpus for host in SITES["flat"].hosts]
slots = st.integers(0, len(SIZES) - 1).flatmap(lambda host: st.tuples(st.just(host), st.integers(0, SIZES[host] - 1)))
places = st.one_of(
    st.lists(slots, min_size=1, max_size=9, unique=True).map(lambda found: Gpus(tuple(found))),
    st.lists(st.integers(0, len(SIZES) - 1), min_size=1, max_size=3, unique=True).map(lambda found: Memory(tuple(found))),
    st.just(Store("weights")),
)


@given(st.sampled_from(sorted(SITES)), places, places)
def test_any_two_places_are_connected_and_no_byte_is_lost(kind, source, target):
    site = SITES[kind]
    path = site.path(source, target)
    assert len(set(path.links)) == len(path.links) == len(path.shares)
    assert all(0 < share <= 1 + 1e-9 for share in path.shares)
    sums = {(one.kind, one.name.rsplit(".", 1)[1]): 0.0 for one in site.links}
    for link, share in zip(path.links, path.shares, strict=True):
        sums[site.links[link].kind, site.links[link].name.rsplit(".", 1)[1]] += share
    # What goes into the network comes out of it, and what goes up to a spine, over a wan or out of a store comes down again.
    out = sums["nic", "out"] + sums["store", "out"]
    assert out == pytest.approx(sums["nic", "in"] + sums["store", "in"])
    assert out <= 1 + 1e-9
    if kind != "flat":
        inner = sums["leaf", "up"] + sums["store", "out"], sums["leaf", "down"] + sums["store", "in"]
        assert inner[0] == pytest.approx(inner[1])
    assert sums["nvlink", "out"] == pytest.approx(sums["nvlink", "in"])
    back = site.path(target, source)
    assert rate(site, back) == pytest.approx(rate(site, path)) if path.links else not back.links


@given(st.integers(1, 24), st.integers(1, 24))
def test_pieces_of_two_replicas_are_laid_side_by_side(n, m):
    found = _laid(n, m)
    assert len(found) == n + m - math.gcd(n, m)
    for index, count in ((1, n), (2, m)):
        totals = [sum(part for part, *at in found if at[index - 1] == i) for i in range(count)]
        assert totals == pytest.approx([1 / count] * count)


def test_ten_thousand_gpus_are_built_and_crossed_quickly(calm):
    begin = time.process_time()
    site = topology(hosts=[{"gpu": "h100_sxm", "count": 1250}], stores=[STORE])
    built = time.process_time() - begin
    assert len(site.hosts) == 1250
    assert built < 1.0
    pairs = list(itertools.islice(zip(range(1250), itertools.cycle(range(7, 1250, 3)), strict=False), 1000))
    for a, b in pairs:
        site.path(Gpus(((a, 0),)), Gpus(((b, 0),)))
    begin = time.process_time()
    for a, b in pairs:
        site.path(Gpus(((a, 0),)), Gpus(((b, 0),)))
    assert (time.process_time() - begin) / len(pairs) < 10e-6
