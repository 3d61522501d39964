"""Where replicas land, why they do not, and which free GPUs are of no use."""
from __future__ import annotations

import time

import pytest

from sim.core.registry import PLACERS
from sim.policy.place.base import Host, Wanted
from sim.policy.room import why
from sim.policy.stranded import stranded


def fleet(free, gpus=8, domain=1, leaf=4, node="hgx_h100", gpu="h100_sxm"):
    """Hosts with so many free GPUs each (their last ones); `domain` and `leaf`: hosts in one."""
    return [Host(i, gpu, node, "us", i // domain, i // leaf, gpus, tuple(range(gpus - n, gpus))) for i, n in enumerate(free)]


def hosts_of(kind, free, groups, size, **shape):
    slots = PLACERS.make({"kind": kind}).place(Wanted(groups, size, "h100_sxm"), fleet(free, **shape))
    return slots if slots is None else [number for number, _ in slots[::size]]


@pytest.mark.parametrize(("kind", "host"), [("bin_pack", 2), ("spread", 1), ("topology", 2)])
def test_one_group(kind, host):
    assert hosts_of(kind, [4, 8, 2, 1], 1, 2) == [host]


def test_bin_pack_fills_the_fullest_hosts_one_after_the_other():
    assert hosts_of("bin_pack", [8, 5, 2, 1], 4, 2) == [2, 1, 1, 0]


def test_spread_takes_the_emptiest_leaf_then_the_emptiest_host_group_by_group():
    assert hosts_of("spread", [4, 4, 4, 4, 8, 0, 0, 6], 3, 4) == [0, 4, 1]
    assert hosts_of("spread", [8, 8, 8, 8], 4, 2) == [0, 1, 2, 3]


def test_spread_forgets_what_is_too_small_for_another_group():
    assert hosts_of("spread", [5, 0, 0, 0, 4, 0, 0, 0], 3, 4) is None
    assert hosts_of("spread", [5, 0, 0, 0, 4, 4, 0, 0], 3, 4) == [4, 0, 5]


def test_topology_takes_one_host_then_one_domain_then_one_leaf():
    assert hosts_of("topology", [2, 2, 4, 8], 2, 2) == [2, 2]
    assert hosts_of("topology", [2, 8, 8, 2, 2, 2], 2, 2, domain=2) == [1, 1]
    assert hosts_of("topology", [2, 0, 0, 0, 2, 2, 0, 0], 2, 2) == [4, 5]
    assert hosts_of("topology", [2, 3, 2, 2, 2, 2], 2, 2, domain=2) == [2, 3]
    assert hosts_of("topology", [2, 0, 0, 0, 2, 2, 0, 0], 3, 2) == [4, 5, 0]


def test_topology_leaves_the_large_holes_whole():
    """Three replicas of two GPUs fit into the scraps, and two free hosts still take one of eight each; spread breaks both."""
    def left(kind):
        hosts, placer = fleet([8, 2, 8, 4]), PLACERS.make({"kind": kind})
        for _ in range(3):
            slots = placer.place(Wanted(1, 2, "h100_sxm"), hosts)
            for number, gpu in slots:
                hosts[number] = hosts[number]._replace(free=tuple(one for one in hosts[number].free if one != gpu))
        return sum(placer.place(Wanted(count, 8, "h100_sxm"), hosts) is not None for count in (1, 2))

    assert [left(kind) for kind in ("bin_pack", "topology", "spread")] == [2, 2, 0]


def test_a_large_group_lies_in_one_domain_that_spans_hosts():
    place = PLACERS.make({"kind": "topology"}).place
    racks = fleet([4, 4, 3, 4, 4, 4, 4, 4], gpus=4, domain=4, leaf=8)
    slots = place(Wanted(1, 16, "h100_sxm"), racks)
    assert slots == tuple((host, gpu) for host in (4, 5, 6, 7) for gpu in range(4))
    assert place(Wanted(1, 12, "h100_sxm"), racks)[0] == (0, 0)
    assert place(Wanted(2, 16, "h100_sxm"), racks) is None


def test_a_group_larger_than_any_domain_takes_whole_hosts_under_one_leaf_if_it_can():
    assert hosts_of("topology", [8, 8, 0, 0, 8, 8, 8, 0], 1, 24) == [4]
    place = PLACERS.make({"kind": "bin_pack"}).place
    slots = place(Wanted(1, 20, "h100_sxm"), fleet([8, 8, 7, 0, 8, 0, 0, 0]))
    assert slots == (*((host, gpu) for host in (0, 1) for gpu in range(8)), *((4, gpu) for gpu in range(4)))


@pytest.mark.parametrize(("free", "wanted", "text"), [
    ([3, 1, 0], Wanted(1, 8, "h100_sxm"), "3 hosts hgx_h100 have 8 GPUs each, at most 3 free together; 8 wanted"),
    ([8, 7], Wanted(2, 8, "h100_sxm"), "2 hosts hgx_h100 have 8 GPUs each, 15 free in all: room for 1 of 2 groups of 8"),
    ([8, 7], Wanted(1, 16, "h100_sxm"),
     "2 hosts hgx_h100 have 8 GPUs each, 1 of them wholly free: room for 0 of 1 group of 16 GPUs, 2 whole hosts each"),
    ([8], Wanted(1, 1, "h100_pcie"), "1 host hgx_h100 has h100_sxm, not h100_pcie"),
    ([8], Wanted(1, 1, "h100_sxm", "dgx_h100"), "1 host hgx_h100 is not dgx_h100"),
    ([8], Wanted(1, 1, "h100_sxm", "", "eu"), "1 host hgx_h100 is not in eu"),
    ([], Wanted(1, 1, "h100_sxm"), "there are no hosts"),
    ([8], Wanted(1, 8, "h100_sxm"), ""),
])
def test_why(free, wanted, text):
    assert why(wanted, fleet(free)) == text


def test_why_speaks_of_each_kind_of_host():
    racks = [host._replace(number=host.number + 2, region="eu", node="nvl") for host in fleet([4, 0, 4, 4], gpus=4, domain=2)]
    assert why(Wanted(1, 8, "h100_sxm"), [*fleet([7, 2]), *racks[:2], racks[2]]) == (
        "2 hosts hgx_h100 in us have 8 GPUs each, at most 7 free together; 8 wanted; 3 hosts nvl in eu have 4 GPUs each, 2 of them wholly "
        "free, at most 1 in one NVLink domain: room for 0 of 1 group of 8 GPUs, 2 whole hosts each"
    )


def test_stranded_gpus_are_those_that_nobody_who_waits_can_use():
    hosts = fleet([3, 8, 1, 0, 4])
    one = Wanted(1, 4, "h100_sxm")
    assert stranded(hosts, []) == 0
    assert stranded(hosts, [one]) == 4
    assert stranded(hosts, [one, Wanted(1, 3, "h100_sxm")]) == 1
    assert stranded(hosts, [Wanted(4, 4, "h100_sxm")]) == 16
    assert stranded(hosts, [Wanted(1, 1, "a100_sxm")]) == 16
    assert stranded(hosts, [Wanted(1, 16, "h100_sxm")]) == 16
    racks = fleet([4, 4, 4, 3], gpus=4, domain=2)
    assert stranded(racks, [Wanted(1, 8, "h100_sxm")]) == 7


@pytest.mark.parametrize("kind", PLACERS.names())
def test_a_fleet_is_quick_to_search(kind):
    """The last of 1,250 hosts of eight GPUs, in well under a millisecond of a slow machine; the limit is generous."""
    hosts, placer = fleet([0] * 1249 + [8], leaf=32), PLACERS.make({"kind": kind})
    spent = []
    for _ in range(5):
        begin = time.process_time()
        assert placer.place(Wanted(1, 8, "h100_sxm"), hosts) == tuple((1249, gpu) for gpu in range(8))
        spent.append(time.process_time() - begin)
    assert min(spent) < 0.003
