"""What orders of service and ways of preemption are worth, against closed forms where there are any.

One seat makes an engine a single server: with rates l and service times s of two kinds, r = l s each, W0 = sum of l s^2 / 2, mean waits are
W0 / (1 - r) for first come first served (Pollaczek, Khinchine), and for priorities without preemption W0 / (1 - r1) and
W0 / ((1 - r1)(1 - r)) (Cobham, Operations Research 1954).
"""
from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.reality.search import ENGINE, TRAFFIC, normalised, study

ORDER = f"{ENGINE}.batcher.order.kind"


@functools.cache
def served(order):
    return study("schedulers", f"{ORDER}={order}").requests


def waits(frame):
    """Mean wait and service time of the interactive and of the long requests, s."""
    return [(kind["queue"].mean(), (kind["e2e"] - kind["queue"]).mean()) for _, kind in sorted(frame.groupby("output_tokens"))]


def theory(frame):
    """(W0, load of the interactive, load of all) by the rates and service times of a run."""
    first, second = (kind for _, kind in sorted(frame.groupby("output_tokens")))
    parts = []
    for kind in (first, second):
        rate, service = (len(kind) - 1) / np.ptp(kind["arrival"]), (kind["e2e"] - kind["queue"]).mean()
        parts.append((rate * service, rate * service**2 / 2))
    return sum(part[1] for part in parts), parts[0][0], parts[0][0] + parts[1][0]


def test_first_come_first_served_waits_as_pollaczek_and_khinchine_say():
    frame = served("fcfs")
    residual, _, load = theory(frame)
    assert 0.6 < load < 0.9
    assert frame["queue"].mean() == pytest.approx(residual / (1 - load), rel=0.1)


@pytest.mark.parametrize("order", ["priority", "shortest_job"])
def test_the_high_class_is_protected_as_cobham_says(order):
    frame = served(order)
    residual, high, load = theory(frame)
    (interactive, _), (long, _) = waits(frame)
    assert interactive == pytest.approx(residual / (1 - high), rel=0.1)
    assert long == pytest.approx(residual / ((1 - high) * (1 - load)), rel=0.1)


def test_shortest_job_has_the_least_mean_latency():
    """Smith, Naval Research Logistics 1956. The class that gives way pays: the work that waits is the same."""
    means = {order: served(order)["e2e"].mean() for order in ("fcfs", "shortest_job", "fair_share")}
    assert means["shortest_job"] == min(means.values())
    assert means["shortest_job"] < 0.7 * means["fcfs"]
    work = {}
    for order in ("fcfs", "shortest_job"):
        frame = served(order)
        (first, one), (second, two) = waits(frame)
        work[order] = first * one * 5 + second * two  # five short ones come for a long one
    # Kleinrock's conservation law: loads times waits sum to the same under any order that knows no preemption.
    assert work["shortest_job"] == pytest.approx(work["fcfs"], rel=0.05)


def test_fair_share_gives_backlogged_tenants_the_same_service():
    """The bound of the virtual token counter (Sheng et al., OSDI 2024, theorem 4.4) for one seat: a request of the costlier kind each.

    Both tenants ask for more than there is, the long one for four times as much as the other.
    """
    overload = "duration=120s", "workloads.0.rate=20", "workloads.1.rate=8"
    gaps = {}
    for order in ("fcfs", "fair_share"):
        frame = study("schedulers", f"{ORDER}={order}", *overload).requests
        frame = frame[frame["last_token"].notna()]
        service = frame["input_tokens"] + 2 * frame["output_tokens"]
        gaps[order] = abs(service[frame["output_tokens"] == 50].sum() - service[frame["output_tokens"] == 400].sum())
    assert gaps["fair_share"] <= 2 * (1000 + 2 * 400)
    assert gaps["fcfs"] > 5 * gaps["fair_share"]


def preempted(mode):
    result = study("paged_kv", f"{TRAFFIC}.rate=3", f"{TRAFFIC}.num_requests=800", f"{ENGINE}.preemption_mode={mode}")
    computed = result.tables["stretches"].to_pandas()["prefill_tokens"].sum()
    return result.requests["preemptions"].sum(), computed - result.requests["input_tokens"].sum(), np.mean(normalised(result))


def test_swap_moves_what_recompute_computes_again():
    """Kwon et al., SOSP 2023, section 7.3, recalled: with blocks of 16 to 64 tokens the two perform comparably end to end."""
    (times, again, slow), (swaps, moved, fast) = preempted("recompute"), preempted("swap")
    assert min(times, swaps) > 20
    assert again > 100 * times
    assert moved == swaps  # the token whose keys and values were not computed yet
    assert fast == pytest.approx(slow, rel=0.2)
