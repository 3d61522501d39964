"""Routing by prefix on a real trace: forty minutes of Mooncake's conversation service on eight replicas, by router and age of views.

Run with `-m study -s` it prints the table. Least loaded finds what eight caches happen to share; routers that heed prompts find almost
three times as much and are the sooner with first tokens. Old views cost little where the front door counts its own requests and only the
index is old; where queues and caches are old too, requests herd, until waiting eats up many times what was found.
"""
from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim.spec.load import load

STUDY = Path(__file__).resolve().parents[2] / "configs" / "studies" / "mooncake_prefix.yaml"
TRACE = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces" / "mooncake_conversation_t0-2400.parquet"
HEED = ("prefix_aware", "cache_aware", "kv_aware", "lmetric")

pytestmark = [pytest.mark.study, pytest.mark.skipif(not TRACE.exists(), reason="the Mooncake trace is not in the data folder")]


def served(router, period=None, **changes):
    """Share of prompt tokens found, mean and 90th percentile of TTFT in s; the row of the table is printed."""
    sets = {"workloads.0.path": str(TRACE), "cluster.router": router} | ({"cluster.views": {"period": period}} if period else {}) | changes
    result = sim.run(load(STUDY, sets))
    summary = result.summary
    assert all(check["ok"] for check in summary["audit"].values())
    found, ttft = summary["kv"]["prefix_hit_rate"], summary["ttft_s"]
    name = f"{router['kind']} {router.get('index', '')}"
    row = f"{name:28s} {period or 'live':5s} found {found:6.1%}  TTFT mean {ttft['mean']:7.3f} p90 {ttft['p90']:7.3f} s"
    print(f"{row}  {result.meta['cpu_s']:.2f} CPU-s")
    return found, ttft["mean"], ttft["p90"]


@pytest.fixture(scope="module")
def least_loaded():
    return served({"kind": "least_loaded"})


@pytest.mark.parametrize("kind", HEED)
def test_heeding_prompts_finds_more_and_is_sooner(least_loaded, kind):
    for index in ("approximate", "events"):
        found, mean, p90 = served({"kind": kind, "index": index})
        assert found > 2 * least_loaded[0]
        assert mean < 0.96 * least_loaded[1]
        assert p90 < least_loaded[2]


def test_nearly_all_is_found_that_the_caches_have_room_for():
    """35 % of the prompt tokens came before; a single cache as large as all eight still has half of them when they come again."""
    blocks = 8 * 31_454
    one = served({"kind": "round_robin"}, **{"cluster.pools.0.replicas": 1, "cluster.pools.0.engine.num_gpu_blocks_override": blocks})
    assert served({"kind": "prefix_aware"})[0] > 0.94 * one[0]


def test_an_old_index_finds_less():
    """LMetric looks at nothing else that is old: the front door counts requests in flight itself."""
    found = [served({"kind": "lmetric", "index": "events"}, period)[0] for period in (None, "10s", "60s")]
    assert found[0] == pytest.approx(found[1], rel=0.05)
    assert found[2] < 0.95 * found[0]


def test_old_queues_and_caches_make_requests_herd(least_loaded):
    young, old, older, oldest = (served({"kind": "kv_aware", "index": "events"}, period) for period in (None, "1s", "10s", "60s"))
    assert young[1] < least_loaded[1] < old[1] < older[1] < oldest[1]
    assert young[0] > old[0] > older[0] > oldest[0]


def test_what_a_router_sent_itself_is_no_cure(least_loaded):
    """With the default marks of prefix_aware queues and caches count for four sevenths; a minute old, they are worse than none."""
    means = [served({"kind": "prefix_aware"}, period)[1] for period in (None, "1s", "10s", "60s")]
    assert means == sorted(means)
    assert means[0] < least_loaded[1] < means[1]
