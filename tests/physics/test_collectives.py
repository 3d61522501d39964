"""Collectives against closed forms: what one GPU, one node, several nodes and each kind of link must cost."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.errors import BadInput
from sim.physics.collectives import Collective, crossing, eager_copy, steps
from sim.physics.deepep import CARD, HOP, LOW_LATENCY_TOKENS, Reach, copies, low_latency, normal
from sim.physics.fabric import NETWORK, PAIRS, SLOTS, SWITCH, Fabric
from sim.spec.fit import Fit, optional, table_key
from sim.spec.hardware import gpu, node

H100, HGX = gpu("h100_sxm"), node("hgx_h100")
FORM = {"a1": 4e-6, "g1": 1e-6, "e1": 0.05, "a2": 8e-6, "g2": 1.2e-6, "e2": 0.3, "a3": 2e-5, "g3": 2e-6, "e3": 0.8}
CURVE = {
    "bandwidth": 450e9, "t2_1024": 5e-6, "t2_1048576": 1.2e-5, "t2_16777216": 6e-5,
    "t8_1024": 1.1e-5, "t8_1048576": 2.6e-5, "t8_16777216": 9e-5,
}  # fmt: skip
LOW = {"a": 9e-6, "g": 1.5e-8, "e": 0.6, "b_expert": 4e9, "p": 3.0}
BULK = {"a": 3e-5, "token": 2e-8, "e": 0.8, "b_sm": 1.8e10, "q": 6.0}
SIZES = np.geomspace(64, 4e9, 200)
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def known(**parameters):
    """A lookup that knows fits of these parameters, by op."""
    fits = {op: Fit(op, "", "vllm", values, "h100_sxm", "fitted", "test") for op, values in parameters.items()}
    return lambda op, dtype, framework: fits.get(op)


def fabric(chip=H100, host=HGX, graphed=True, **parameters):
    return Fabric(chip, host, known(**parameters), graphed=graphed)


def test_the_form_is_the_fastest_of_three_protocols():
    form = Collective("all_reduce", FORM, 450e9)
    for size, i in ((1e3, 1), (5e5, 2), (1e9, 3)):
        assert form.seconds(size, 4) == pytest.approx(FORM[f"a{i}"] + 3 * FORM[f"g{i}"] + size * 1.5 / (FORM[f"e{i}"] * 450e9))


def test_what_crosses_a_link():
    assert (crossing("all_reduce_nccl", 8), crossing("all_gather", 8), crossing("all_to_all", 2)) == (1.75, 0.875, 0.5)
    assert steps(8) == 7
    assert 7 < steps(9) < steps(72) < 20


def test_a_measured_curve_is_met_at_its_knots_and_straight_between():
    curve = Collective("all_reduce", FORM | CURVE, 450e9)
    assert curve.seconds(np.array([1024, 1048576]), 8) == pytest.approx([1.1e-5, 2.6e-5])
    assert curve.seconds((1024 + 1048576) / 2, 8) == pytest.approx((1.1e-5 + 2.6e-5) / 2)
    assert curve.seconds(2 * 16777216 - 1048576, 8) == pytest.approx(9e-5 + (9e-5 - 2.6e-5))
    assert curve.seconds(1.0, 8) == pytest.approx(1.1e-5)


def test_gpus_between_those_measured_cost_between():
    curve = Collective("all_reduce", FORM | CURVE, 450e9)
    inside = np.geomspace(1024, 16777216, 50)
    assert (curve.seconds(inside, 2) < curve.seconds(inside, 4)).all()
    assert (curve.seconds(inside, 4) < curve.seconds(inside, 8)).all()
    assert (curve.seconds(inside, 8) <= curve.seconds(inside, 16)).all()


def test_on_another_link_latencies_stay_and_sizes_scale():
    here, there = (Collective("all_gather", FORM | CURVE, link) for link in (450e9, 900e9))
    assert there.seconds(2.0 * SIZES, 8) == pytest.approx(here.seconds(SIZES, 8))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("n", [2, 3, 6, 8, 72])
@pytest.mark.parametrize("parameters", [FORM, FORM | CURVE])
def test_more_bytes_never_take_less_nor_beat_the_link(op, n, parameters):
    seconds = Collective(op, parameters, 450e9).seconds(SIZES, n)
    assert (np.diff(seconds) >= 0).all()
    assert (SIZES * crossing(op, n) / seconds <= 450e9 * (1 + 1e-9)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 71), st.floats(1, 1e10), st.sampled_from(OPS))
def test_more_gpus_never_take_less(n, size, op):
    form = Collective(op, FORM, 450e9)
    assert form.seconds(size, n) <= form.seconds(size, n + 1) * (1 + 1e-12)


def test_one_gpu_pays_nothing():
    alone = fabric()
    assert [getattr(alone, op)(1e6, 1).seconds for op in OPS] == [0.0] * 4
    assert alone.dispatch(64, 7168, 8, 1, 1.0).seconds == alone.combine(64, 7168, 8, 1, 2.0).seconds == 0.0


def test_the_engines_own_all_reduce_where_it_is_faster_and_runs():
    quick = {name: value / 4 if name[0] in "ag" else value for name, value in FORM.items()}
    both = fabric(all_reduce=quick, all_reduce_nccl=FORM)
    own, nccl = (Collective("all_reduce", parameters, 450e9) for parameters in (quick, FORM))
    assert both.all_reduce(8192, 8).seconds == pytest.approx(own.seconds(8192, 8))
    assert both.all_reduce(8192, 7).seconds == pytest.approx(nccl.seconds(8192, 7))
    slow = fabric(all_reduce={name: value * 4 if name[0] in "ag" else value for name, value in FORM.items()}, all_reduce_nccl=FORM)
    assert slow.all_reduce(8192, 8).seconds == pytest.approx(nccl.seconds(8192, 8))
    assert both.basis("all_reduce", 8)[0]["a1"] == quick["a1"]
    assert len(both.basis("all_reduce", 7)) == 1


def test_without_a_graph_a_call_waits_for_its_host_and_copies():
    graphed, eager = (fabric(graphed=way, all_reduce=FORM | {"eager": 2e-5}, all_reduce_nccl=FORM) for way in (True, False))
    small = eager.all_reduce(1024, 2)
    assert small.seconds == pytest.approx(2e-5)
    assert small.host == pytest.approx(2e-5 - small.network)
    assert eager.eager_call == 2e-5
    large = eager.all_reduce(1e8, 2)
    assert large.host == 0.0
    assert large.seconds == pytest.approx(graphed.all_reduce(1e8, 2).seconds + eager_copy(1e8, H100.bandwidth))


def test_costs_are_arrays_for_arrays_and_all_network():
    cost = fabric(all_reduce_nccl=FORM).all_reduce(SIZES, 4)
    assert cost.seconds.shape == SIZES.shape
    assert (cost.seconds == cost.network).all()
    assert cost.compute == cost.memory == 0.0
    assert isinstance(fabric().all_reduce(1e6, 4).seconds, float)


def test_pairs_share_nvlink_and_everybody_else_pcie():
    pairs = replace(HGX, interconnect="nvlink_pairs", gpus=4, domain=2)
    paired = fabric(host=pairs, all_reduce_nccl=FORM | CURVE)
    assert paired.all_reduce(1e8, 2).seconds == pytest.approx(Collective("all_reduce", FORM | CURVE, 450e9).seconds(1e8, 2))
    assert paired.all_reduce(1e8, 4).seconds == pytest.approx(10e-6 + 3 * 6e-6 + 1.5e8 / (0.75 * 64e9))
    assert paired.basis("all_reduce", 4) == (PAIRS,)


def test_cards_in_slots_use_a_fit_of_pcie_and_never_one_of_nvlink():
    card, host = gpu("rtx_pro_6000"), node("pcie_rtx_pro_6000")
    own = FORM | CURVE | {"bandwidth": 64e9}
    alone = Collective("all_gather", own, card.pcie)
    assert fabric(card, host, all_gather=own).all_gather(1e6, 2).seconds == pytest.approx(alone.seconds(1e6, 2))
    assert fabric(card, host, all_gather=FORM | CURVE).basis("all_gather", 2) == (SLOTS,)
    assert fabric().basis("all_gather", 8) == (SWITCH,)


def test_a_hierarchy_of_one_node_is_flat_and_of_two_adds_the_rails():
    cluster = fabric(**dict.fromkeys(("all_reduce_nccl", "all_gather", "reduce_scatter", "all_to_all"), FORM))
    size = 64e6
    assert cluster.all_reduce(size, 8).seconds == pytest.approx(Collective("all_reduce", FORM, 450e9).seconds(size, 8))
    card = NETWORK["efficiency"] * HGX.nic_bandwidth
    rail = NETWORK["alpha"] + size / 8 / 2 / card
    inside = cluster.reduce_scatter(size, 8).seconds + cluster.all_gather(size, 8).seconds
    assert cluster.all_reduce(size, 16).seconds == pytest.approx(inside + 2 * rail)
    assert cluster.all_gather(size, 16).seconds == pytest.approx(cluster.all_gather(size, 8).seconds + rail)
    assert cluster.all_to_all(size, 16).seconds == pytest.approx(NETWORK["alpha"] + size / 2 / card)
    assert cluster.basis("all_reduce", 16)[-1] is NETWORK


@pytest.mark.parametrize("op", OPS)
def test_more_nodes_never_take_less(op):
    cluster = fabric(**dict.fromkeys(("all_reduce_nccl", *OPS), FORM))
    seconds = [getattr(cluster, op)(1e7, n).seconds for n in (8, 16, 32, 64, 128)]
    assert seconds == sorted(seconds)


def test_a_rack_of_one_domain_stays_on_nvlink_but_its_engines_kernel_within_a_tray():
    rack = fabric(gpu("gb200"), node("gb200_nvl72"), all_reduce_nccl=FORM, all_reduce=FORM)
    assert [fit.op for fit in rack.basis("all_reduce", 4)] == ["all_reduce", "all_reduce_nccl"]
    assert [fit.op for fit in rack.basis("all_reduce", 64)] == ["all_reduce_nccl"]
    assert rack.basis("all_reduce", 144)[-1] is NETWORK


def test_point_to_point_is_a_line():
    ends = fabric(p2p={"alpha": 8e-6, "efficiency": 0.8})
    assert ends.p2p(36e6, False).seconds == pytest.approx(8e-6 + 1e-4)
    assert ends.p2p(36e6, True).seconds == pytest.approx(20e-6 + 1e-3)


def test_gpus_without_network_cards_cannot_span_nodes():
    with pytest.raises(BadInput, match="hgx_h100 has no network cards"):
        fabric(host=replace(HGX, nic_bandwidth=0.0)).all_reduce(1e6, 16)


def test_low_latency_exchange_within_a_node_and_over_two():
    inside = low_latency(LOW, 64e6, Reach(8, 1, 450e9, 50e9), 10**6)
    assert inside == pytest.approx(LOW["a"] + LOW["g"] * 1e6 + 64e6 / (0.6 * 450e9), rel=1e-3)
    outside = low_latency(LOW, 64e6, Reach(16, 2, 450e9, 50e9), 256)
    assert outside == pytest.approx(LOW["a"] + LOW["g"] * 256 + HOP + 32e6 / (CARD["ll"] * 50e9))
    assert low_latency(LOW, 64e6, Reach(8, 1, 450e9, 50e9), 8) > 64e6 / 8 / LOW["b_expert"]


def test_normal_exchange_sends_one_copy_per_gpu_and_needs_multiprocessors():
    assert copies(1, 8) == pytest.approx(7 / 8)
    assert copies(100, 8) == pytest.approx(7.0, rel=1e-4)
    assert copies(8, 1) == 0.0
    reach = Reach(8, 1, 450e9, 0.0)
    few, many = (normal(BULK, 8192.0, 7168.0, 8, reach, sms) for sms in (4, 24))
    assert few > 3 * many
    assert few > 8192 * 7168 * copies(8, 8) / (4 * BULK["b_sm"])


def test_the_engine_changes_kernels_and_never_gets_faster_with_more_tokens():
    ways = {f"deepep_{mode}_{way}": fit for mode, fit in (("ll", LOW), ("normal", BULK)) for way in ("dispatch", "combine")}
    tokens = np.arange(1, 4096)
    for n in (8, 32):
        seconds = fabric(**ways).dispatch(tokens, 7168, 8, n, 1.0).seconds
        assert (np.diff(seconds) >= 0).all()
    quick = low_latency(LOW, LOW_LATENCY_TOKENS * 8 * 7168.0, Reach(8, 1, 450e9, 50e9), 256)
    assert fabric(**ways).combine(LOW_LATENCY_TOKENS, 7168, 8, 8, 1.0).seconds == pytest.approx(quick)


def test_without_deepep_tokens_go_by_all_to_all():
    plain = fabric(all_to_all=FORM)
    assert plain.dispatch(128, 7168, 8, 8, 2.0).seconds == pytest.approx(plain.all_to_all(128 * 7168 * 8 * 2.0, 8).seconds)


def test_names_of_knots():
    assert table_key("t8_65536") == (8, 65536)
    assert [table_key(name) for name in ("token", "t8", "t_8", "x8_1", "t8_1.5")] == [None] * 5
    assert (optional("all_reduce", "t2_512"), optional("all_gather", "bandwidth"), optional("gemm", "t2_512")) == ("seconds", "rate", None)
