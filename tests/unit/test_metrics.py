"""Every figure of the summary against numbers that can be worked out by hand."""
from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from synthetic import PROMPT_SECONDS, SLOPE, STEP, edit, pool, put, queue, serve

from sim.core.request import REJECTED
from sim.core.tables import tables
from sim.physics.power import FLOOR
from sim.study.energy import step_power
from sim.study.gaps import Gaps
from sim.study.measures import request_columns
from sim.study.metrics import METRICS, Facts, summarise

GROUPS = {
    "requests": {"arrived", "completed", "rejected", "failed", "unfinished"},
    "throughput": {"requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "output_tokens_per_s_per_gpu"},
    "slo": {"attainment", "goodput_requests_per_s", "target", "limits", "met"},
    "gpu": {"count", "mean", "busy_fraction", "mfu", "mbu"},
    "kv": {
        "peak_fraction", "mean_fraction", "preemptions", "prefix_hit_rate", "prefix_hits", "moved",
        "internal_fragmentation", "external_fragmentation", "tiers",
    },
    "energy": {
        "kwh", "joules_per_output_token", "prefill_joules_per_token", "decode_joules_per_token", "gpu_watts", "idle_share", "node_kwh",
        "site_kwh",
    },
    "provenance": {"worst", "extrapolated", "extrapolations"},
    "run": {"seed", "sim_s", "cpu_s", "events", "version", "digest"},
}


def two(**changes):
    """Two requests of 11 and 1 tokens at 0 s and 1 s."""
    return serve(np.array([0.0, 1.0]), np.array([11, 1]), **changes)


def test_request_columns():
    times = request_columns(two().tables["requests"])
    decode = 10 * (STEP + SLOPE * 9 / 2)
    assert times["ttft"] == pytest.approx([PROMPT_SECONDS] * 2)
    assert times["tpot"][0] == pytest.approx(decode / 10)
    assert np.isnan(times["tpot"][1])
    assert times["e2e"] == pytest.approx([PROMPT_SECONDS + decode, PROMPT_SECONDS])
    assert times["queue"] == pytest.approx([0, 0])


def test_summary_has_the_promised_keys_and_is_json():
    summary = summarise(queue(0.5, 500, slo={"ttft_p99": "1s", "tpot_p50": "50ms"}))
    for group, keys in GROUPS.items():
        assert set(summary[group]) == keys
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s"):
        assert set(summary[name]) == {"mean", "p50", "p90", "p95", "p99"}
    assert "NaN" not in json.dumps(summary, allow_nan=False)
    assert next(iter(summary)) == "verdict"
    assert all(entry["ok"] for entry in summary["audit"].values())


def test_every_metric_says_what_it_is():
    for name, entry in METRICS.items():
        assert entry.name == name
        assert entry.doc


UNITS = {
    "_s": {"s", "requests/s", "tokens/s"}, "usd": {"USD", "USD/h"}, "fraction": {""}, "share": {""}, "rate": {""},
    "kwh": {"kWh", "gCO2e/kWh"}, "joules": {"J"}, "watts": {"W"}, "grams": {"gCO2e", "gCO2e/kWh"}, "hours": {"GPU-h"},
}  # fmt: skip


def test_units_are_those_of_the_names():
    for name, entry in METRICS.items():
        for part, units in UNITS.items():
            if name.endswith(part) or (part != "_s" and part in name.rpartition(".")[2].split("_")):
                assert entry.unit in units, name


def test_rates_divide_by_the_span():
    summary = summarise(two())
    span = 1 + PROMPT_SECONDS
    assert summary["throughput"]["requests_per_s"] == pytest.approx(2 / span)
    assert summary["throughput"]["output_tokens_per_s"] == pytest.approx(12 / span)
    assert summary["throughput"]["total_tokens_per_s"] == pytest.approx(212 / span)
    assert summary["throughput"]["output_tokens_per_s_per_gpu"] == pytest.approx(12 / span)


def test_gpu_time_money_and_energy():
    summary = summarise(two())
    span = 1 + PROMPT_SECONDS
    busy = 2 * PROMPT_SECONDS + 10 * (STEP + SLOPE * 9 / 2)
    pairs = 2 * 5050 + 10 * 100 + 55
    held = 10 * 100 + 45
    assert summary["gpu"]["busy_fraction"] == pytest.approx(busy / span)
    assert summary["gpu"]["mfu"] == pytest.approx((210 * 2e9 + pairs * 1e5) / (1e15 * span))
    assert summary["gpu"]["mbu"] == pytest.approx((12 * 2e9 + held * 1e5) / (3e12 * span))
    assert summary["cost"]["usd_per_hour"] == pytest.approx(3.6)
    assert summary["cost"]["usd_total"] == pytest.approx(span / 1000)
    assert summary["cost"]["usd_per_million_output_tokens"] == pytest.approx(span / 1000 / 12 * 1e6)
    assert summary["cost"]["usd_per_request"] == pytest.approx(span / 2000)
    joules = summary["energy"]["kwh"] * 3.6e6
    assert 70 * span + 630 * FLOOR * busy < joules < 700 * span
    assert summary["energy"]["joules_per_output_token"] == pytest.approx(joules / 12)


def test_power_saturates_at_tdp():
    hot = pool(peak_flops=1e9, bandwidth=1e9)
    (page,) = Facts(two(pools=[hot])).stretches()
    assert step_power(page) == pytest.approx([700.0] * 3)


def test_no_price_no_cost():
    cost = summarise(two(pools=[pool(price_per_hour=None, beyond_price_per_hour=None)]))["cost"]
    known = {"usd_storage", "usd_egress", "usd_wasted", "gpu_hours_by_hour", "usd_by_hour"}
    assert {name for name, value in cost.items() if value is not None} == known
    assert cost["usd_by_hour"] == [None]


def test_kv_fractions():
    summary = summarise(two())
    assert summary["kv"]["peak_fraction"] == pytest.approx(7 / 1000)
    busy = 2 * PROMPT_SECONDS + 10 * (STEP + SLOPE * 9 / 2)
    assert summary["kv"]["mean_fraction"] == pytest.approx(7 * busy / 1000 / (1 + PROMPT_SECONDS))
    assert summary["kv"]["prefix_hit_rate"] == 0


def test_gaps_are_run_length_coded_with_an_exact_mean():
    result = queue(0.5, 300)
    (page,) = Facts(result).stretches()
    values, weights = Gaps().of(page)
    requests = result.tables["requests"]
    assert weights.sum() == (requests["output_tokens"] - 1).sum()
    assert values @ weights == pytest.approx((requests["last_token"] - requests["first_token"]).sum())
    # Against every single gap, spelled out.
    steps = page["steps"][page["decoders"] > 0]
    every = np.concatenate([STEP + SLOPE * np.arange(k) for k in steps])
    assert summarise(result)["itl_s"]["p50"] == pytest.approx(np.median(every), rel=1e-3)


def paused(*rows, replica=0):
    """A page of stretches from (seconds, steps, decoders, paused) rows of one replica, each step a second long in those with decoders."""
    table = tables()["stretches"]
    for row in rows:
        table.append(stretch(*row, replica))
    return table


def stretch(seconds, steps, decoders, waiting, replica):
    prefills = 0 if decoders else 1
    return 0.0, seconds, seconds / steps, replica, steps, decoders, 0, prefills, 0, 0.0, 0, 0, waiting, float(decoders * steps)


def gaps_of(*parts):
    """{gap: how many} over pages read one after the other."""
    reader, found = Gaps(), Counter()
    for part in parts:
        for page in part.pages():
            for value, weight in zip(*reader.of(page), strict=True):
                found[round(float(value), 9)] += int(weight)
    return +found


def test_a_pause_lengthens_the_gap_of_those_that_paused():
    """Two decode; a prompt of 5 s and one of 3 s, of which the second also makes the first newcomer wait; then three steps of four."""
    rows = [(2.0, 2, 2, 0), (5.0, 1, 0, 2), (3.0, 1, 0, 3), (3.0, 3, 4, 0)]
    assert gaps_of(paused(*rows)) == {1.0: 4 + 1 + 8, 9.0: 2, 4.0: 1}
    for cut in range(1, 4):
        assert gaps_of(paused(*rows[:cut]), paused(*rows[cut:])) == {1.0: 13, 9.0: 2, 4.0: 1}


def test_pauses_of_replicas_are_kept_apart():
    mixed = paused((5.0, 1, 0, 2))
    for replica, row in [(1, (7.0, 1, 0, 1)), (0, (1.0, 1, 2, 0)), (1, (1.0, 1, 2, 0))]:
        mixed.append(stretch(*row, replica))
    assert gaps_of(mixed) == {6.0: 2, 8.0: 1, 1.0: 1}


def test_a_pause_cut_off_by_the_end_or_by_preemption_leaves_no_gap():
    assert gaps_of(paused((5.0, 1, 0, 2))) == {}
    assert gaps_of(paused((5.0, 1, 0, 3), (1.0, 1, 1, 0))) == {6.0: 1}


def test_fragmentation_by_hand():
    """Taken blocks have room for 160 tokens and hold 100 at the end of a second, then for 320 and hold 200 for three more."""
    result = two()
    stretches = tables()["stretches"]
    put(stretches, (0.0, 1.0, 0.1, 0, 10, 5, 50, 0, 0, 0.0, 2, 10, 0, 50.0))
    put(stretches, (1.0, 3.0, 0.1, 0, 10, 10, 100, 0, 0, 0.0, 0, 20, 0, 100.0))
    put(stretches, (4.0, 1.0, 1.0, 0, 1, 0, 0, 1, 9, 45.0, 0, 20, 0, 0.0))
    result.tables["stretches"] = stretches
    summary = summarise(result)["kv"]
    assert summary["internal_fragmentation"] == pytest.approx(1 - (100 + 3 * 200) / (160 + 3 * 320))
    # Somebody queued when the second began, and 980 of 1000 blocks were free.
    assert summary["external_fragmentation"] == pytest.approx(3 * 980 / 5000)


def test_a_stall_is_one_gap():
    result = two()
    result.tables["stalls"].append((0, 0, 1.0, 3.0))
    assert summarise(result)["itl_s"]["p99"] == pytest.approx(2.0)


def test_slo_counts_the_lost_and_lists_the_limits():
    result = two(slo={"ttft_p50": "10ms", "ttft_p99": "30ms", "e2e_p90": "1s", "attainment": 0.9})
    summary = summarise(result)["slo"]
    assert summary["attainment"] == 1
    assert [row["limit"] for row in summary["limits"]] == ["ttft_p50", "ttft_p99", "e2e_p90"]
    assert [row["ok"] for row in summary["limits"]] == [False, True, True]
    assert summary["met"] is False
    edit(result.tables["requests"], "status", 1, REJECTED)
    assert summarise(result)["slo"]["attainment"] == 0.5


def test_a_request_is_held_to_the_highest_percentile_of_each_measure():
    result = two(slo={"ttft_p50": "1ms", "ttft_p99": "30ms", "tpot_p99": "5ms"})
    assert summarise(result)["slo"]["attainment"] == 0.5
    assert summarise(result)["slo"]["goodput_requests_per_s"] == pytest.approx(1 / (1 + PROMPT_SECONDS))


def test_a_median_alone_asks_for_half():
    assert summarise(two(slo={"ttft_p50": "30ms"}))["slo"]["target"] == 0.5
    assert summarise(two(slo={"ttft_p99": "30ms", "e2e_p50": "80ms"}))["slo"]["met"] is True
    assert summarise(two(slo={"ttft_p50": "30ms", "ttft_p99": "30ms"}))["slo"]["target"] == 0.99


def test_without_limits_there_is_nothing_to_meet():
    assert summarise(two())["slo"] == {"attainment": None, "goodput_requests_per_s": None, "target": None, "limits": [], "met": None}


def test_an_empty_run_is_all_none():
    summary = summarise(serve(np.empty(0), np.empty(0, dtype=int)))
    assert summary["requests"]["arrived"] == 0
    assert summary["ttft_s"] is None
    assert summary["throughput"]["requests_per_s"] is None
    json.dumps(summary, allow_nan=False)


def test_provenance_is_the_weakest_link():
    summary = summarise(two(pools=[pool(extrapolated=["fp8 GEMM"])]))["provenance"]
    assert summary == {"worst": "judgement", "extrapolated": True, "extrapolations": ["serve: fp8 GEMM"]}


def test_a_pool_that_never_worked():
    result = two(cluster={"pools": [{"gpu": "h100_sxm"}, {"name": "spare", "gpu": "h100_sxm"}]})
    replicas = result.tables["replicas"]
    put(replicas, (replicas.label("pool", "spare"), 0, 8, 0.0, float("nan"), 10, 16, 0, 0, 0, 0, 0))
    result.meta["pools"].append(pool("spare", gpus=8))
    summary = summarise(result)
    assert summary["gpu"]["count"] == 9
    assert summary["cost"]["usd_per_hour"] == pytest.approx(9 * 3.6)


def test_summaries_need_neither_pandas_nor_matplotlib():
    code = "import sys, sim.study.metrics, sim.study.audit, sim.study.verdict; print({'pandas', 'matplotlib', 'simpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tables_without_stalls():
    result = two()
    del result.tables["stalls"]
    assert summarise(result)["itl_s"]["mean"] == pytest.approx(STEP + SLOPE * 9 / 2)
    assert "stalls" in tables()


def test_tokens_sent_some_at_a_time_have_fewer_and_longer_gaps():
    one, four = (queue(0.5, 300, cluster={"pools": [{"gpu": "h100_sxm", "engine": {"stream_interval": n}}]}) for n in (1, 4))
    gaps = [summarise(result)["itl_s"] for result in (one, four)]
    assert gaps[1]["mean"] == pytest.approx(4 * gaps[0]["mean"])
    assert gaps[1]["p99"] == pytest.approx(4 * gaps[0]["p99"], rel=1e-3)
    assert summarise(one)["tpot_s"] == summarise(four)["tpot_s"]


def test_a_step_reads_the_experts_that_its_tokens_reach():
    import sim
    from sim.spec.load import loads

    serving = {"name": "serve", "gpu": "h100_sxm", "engine": {"expert_skew": 0}}
    workload = {"kind": "closed", "concurrency": 1, "num_requests": 2, "lengths": {"kind": "fixed", "input": 10, "output": 50}}
    scenario = {"model": "Qwen/Qwen3-30B-A3B", "cluster": {"pools": [serving]}, "workloads": [workload]}
    result = sim.run(loads(scenario))
    facts = Facts(result)
    known = result.meta["pools"][0]
    for page in facts.stretches():
        alone = page["prefill_tokens"] == 0
        weights = (page.bytes_moved - page.kv_read) / page["steps"]
        assert alone.any()
        assert weights[alone] == pytest.approx(known["active_weight_floor"])
        assert (weights[~alone] > known["active_weight_floor"]).all()
        assert (weights < known["weight_bytes"]).all()
