"""Prefill and decode pools: what is refused, and what the link between them does."""
from __future__ import annotations

import math
from unittest import mock

import pytest
import simpy

import sim
from sim.policy.route.least_loaded import LeastLoaded
from sim.world.link import Link

PREFILL, DECODE = ({"name": role, "role": role, "gpu": "h100_sxm"} for role in ("prefill", "decode"))
WORK = {"kind": "poisson", "rate": 5, "num_requests": 40, "lengths": {"kind": "fixed", "input": 900, "output": 30}}


def run(*pools: dict, work: dict = WORK, **cluster: object) -> sim.Result:
    return sim.run({"model": "meta-llama/Llama-3.1-8B", "cluster": {"pools": list(pools), **cluster}, "workloads": [work]})


@pytest.mark.parametrize(
    ("pools", "cluster", "said"),
    [
        ([PREFILL], {}, "there is a pool with role: prefill but none with role: decode"),
        ([DECODE], {}, "there is a pool with role: decode but none with role: prefill"),
        ([{"gpu": "h100_sxm"}], {"disaggregation": {"short_prompt": 9}}, "no pool has role: prefill; it has no effect"),
        ([PREFILL, DECODE], {"disaggregation": {"bandwidth": "0GB/s"}}, "a value above 0 is wanted"),
        ([PREFILL, DECODE | {"engine": {"num_gpu_blocks_override": 3}}], {}, "holds 48 tokens, fewer than the smallest request \\(930\\)"),
        ([{"gpu": "h100_sxm", "engine": {"swap_space": "1GB"}}], {}, "nothing is swapped; set preemption_mode: swap"),
    ],
)
def test_what_cannot_work_is_refused(pools, cluster, said):
    with pytest.raises(sim.BadInput, match=said):
        run(*pools, **cluster)


def test_a_workload_whose_model_only_prefills_is_refused():
    pools = [PREFILL, DECODE | {"model": "Qwen/Qwen3-8B"}]
    with pytest.raises(sim.BadInput, match="decode"):
        run(*pools, work=WORK | {"model": "meta-llama/Llama-3.1-8B"})


def test_layers_that_leave_early_shorten_the_hand_over():
    """900 tokens of 128 KiB over 1 GB/s take 118 ms; computing them takes some 20 ms, which is what leaving early can save."""
    work = WORK | {"kind": "constant", "rate": 0.5}
    late, early = (
        run(PREFILL, DECODE, work=work, disaggregation={"bandwidth": "1GB/s", "layerwise": layerwise}).tables["transfers"]
        for layerwise in (False, True)
    )
    waits = [float((table["end"] - table["start"]).mean()) for table in (late, early)]
    assert waits[0] == pytest.approx(900 * 131072 / 1e9, abs=3e-9)
    assert 0.01 < waits[0] - waits[1] < 0.05


def test_a_link_is_shared_evenly():
    """Two flows of 3 and 1 GB, the second a second later, over 1 GB/s: after 1 s the first has 2 GB left, each then gets half."""
    env, ends = simpy.Environment(), {}
    link = Link(env, 1e9)

    def flows():
        link.send(3e9, lambda: ends.update(first=env.now))
        yield env.timeout(1)
        link.send(1e9, lambda: ends.update(second=env.now))

    env.process(flows())
    env.run()
    assert ends == {"second": pytest.approx(3.0, abs=2e-9), "first": pytest.approx(4.0, abs=2e-9)}


def test_many_flows_end_when_the_link_is_done_and_latency_comes_first():
    env, ends = simpy.Environment(), []
    link = Link(env, 2e9, latency=0.5)
    for size in range(1, 6):
        link.send(size * 1e9, lambda: ends.append(env.now))
    env.run()
    # Five flows at 0.4 GB/s until the first ends, then four at 0.5, ...
    assert ends == pytest.approx([3.0, 5.0, 6.5, 7.5, 8.0], abs=1e-8)


def test_a_decode_replica_takes_what_the_router_refuses_and_is_said_to_have_it():
    """Nobody is turned away half-way, and a request is of the replica that has it."""
    def refuses(router, request, views):
        return None if math.isfinite(request.first) else views[0].index

    with mock.patch.object(LeastLoaded, "pick", refuses):
        result = run(PREFILL, DECODE | {"replicas": 2})
    assert all(entry["ok"] for entry in result.summary["audit"].values())
    assert sorted(set(result.tables["requests"]["replica"].tolist())) == [1, 2]
    assert result.summary["pools"]["decode"]["completed"] == 40
    assert set(result.tables["transfers"]["target"].tolist()) == {1, 2}
