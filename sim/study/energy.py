"""What a run drew, and what of it prompts and answers took.

GPUs draw `sim.physics.power` in steps and idle power in between. A host's share of watts goes with its pool's GPUs: all of it in steps,
nine tenths in between. A site draws its machines times the PUE. Joules per token are of the GPUs alone, so that they compare with what is
measured on a GPU; `node_kwh` and `site_kwh` say the rest.

By phase: a step with prompt chunks only is prefill, one with decoders only is decode. One with both is divided in proportion to the
seconds that each would need alone at the roofline of the GPU (the larger of FLOP over peak and bytes over bandwidth, weights with both).
Idle time is no phase's here; money, which has to come from somewhere, charges it to both in proportion (`sim.study.money`).
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.physics.power import IDLE_HOST, Activity, watts
from sim.spec.power import Power
from sim.study.facts import Bins, Stretches, Tables
from sim.study.metric import Metric, ratio
from sim.study.training import trainers_kwh

if TYPE_CHECKING:
    from sim.study.metrics import Facts

HOUR = 3600.0


def step_power(page: Stretches) -> np.ndarray:
    """Watts of one GPU in each stretch, by the FLOP and bytes of its steps."""
    seconds = np.maximum(page["seconds"], 1e-12)
    used = Activity(*(done / page.per_pool(peak) / seconds for done, peak in ((page.flops, "peak_flops"), (page.bytes_moved, "bandwidth"))))
    found: np.ndarray = watts(page.per_pool("idle_watts"), page.per_pool("tdp"), used, page.per_pool("clock"), page.per_pool("power_cap"))
    return found


def prefill_share(page: Stretches) -> np.ndarray:
    """The share of each stretch that its prompt chunks account for, from 0 (decoders only) to 1 (chunks only)."""
    peak, bandwidth = page.per_pool("peak_flops"), page.per_pool("bandwidth")
    pairs = page["prefill_pairs"]
    flops = page.per_pool("flops_per_token") * page["prefill_tokens"] + page.per_pool("flops_per_pair") * pairs
    weights = (page.bytes_moved - page.kv_read) / bandwidth
    chunks = np.maximum(flops / peak, weights) * (page["prefill_tokens"] > 0)
    decoders = np.maximum((page.flops - flops) / peak, weights + page.kv_read / bandwidth) * (page["decoders"] > 0)
    return chunks / np.maximum(chunks + decoders, 1e-300)


class Draw:
    """Joules and GPU-seconds of all steps, filled a page at a time. `joules` are GPUs' above idle, [pool, 0 prefill or 1 decode]; `seconds`
    GPU-seconds alike; `by_hour` joules above idle of GPUs and hosts, [pool, hour of the run's clock].
    """

    def __init__(self, tables: Tables):
        names = list(tables.pools)
        self._tables = tables
        self.of_replica = np.array([names.index(name) for name in tables.pool_of_replica], dtype=int)
        self.joules, self.seconds = np.zeros((len(names), 2)), np.zeros((len(names), 2))
        self.by_hour = np.zeros((len(names), hours(tables)))

    def add(self, page: Stretches) -> None:
        pool, share = self.of_replica[page["replica"]], prefill_share(page)
        busy = page["seconds"] * page.gpus
        above = (step_power(page) - page.per_pool("idle_watts")) * busy
        for phase, part in enumerate((share, 1.0 - share)):
            self.joules[:, phase] += np.bincount(pool, above * part, len(self.joules))
            self.seconds[:, phase] += np.bincount(pool, busy * part, len(self.joules))
        drawn = above + (1 - IDLE_HOST) * page.per_pool("host_watts") * busy
        # A stretch lasts seconds, so that the hour of its middle stands for all of it.
        hour = np.minimum((page["start"] + page["seconds"] / 2) // HOUR, self.by_hour.shape[1] - 1).astype(int)
        np.add.at(self.by_hour, (pool, hour), drawn)


def hours(tables: Tables) -> int:
    """Hours of the run's clock, from 0, begun ones counted."""
    return max(int(np.ceil(tables.end / HOUR)), 1)


def gpu_hours(facts: Facts) -> np.ndarray:
    """GPU-hours there were, used or not, [pool, hour of the run's clock]."""
    edges, there = HOUR * np.arange(hours(facts) + 1), np.zeros((len(facts.pools), hours(facts)))
    start = np.maximum(facts.replicas["start"], facts.begin)
    for pool in range(len(facts.pools)):
        mine = facts.work.draw.of_replica == pool
        there[pool] = Bins(edges).add(start[mine], (start + facts.lifetimes)[mine], facts.gpus[mine]).means()
    return there


def _of_pools(facts: Facts, key: str) -> np.ndarray:
    return np.array([pool[key] for pool in facts.pools.values()], dtype=float)


def _gpu_joules(facts: Facts) -> float:
    return float(facts.work.draw.joules.sum() + (facts.per_replica("idle_watts") * facts.gpus * facts.lifetimes).sum())


def site_joules(facts: Facts) -> np.ndarray:
    """Joules of GPUs, hosts and the site around them, [pool, hour of the run's clock]."""
    at_rest = _of_pools(facts, "idle_watts") + IDLE_HOST * _of_pools(facts, "host_watts")
    pue = (facts.result.scenario.power or Power()).pue
    joules: np.ndarray = pue * (facts.work.draw.by_hour + at_rest[:, None] * gpu_hours(facts) * HOUR)
    return joules


def _phase(phase: int) -> Any:
    """Joules of one phase over the tokens computed for it: prompt tokens without those found in the cache, or output tokens
    without the first of each request, which comes with its prompt.
    """

    def of(facts: Facts) -> Any:
        draw = facts.work.draw
        spent = draw.joules[:, phase].sum() + (draw.seconds[:, phase] * _of_pools(facts, "idle_watts")).sum()
        return ratio(spent, facts.work.computed if phase == 0 else facts.work.decoded)

    return of


def site_kwh(facts: Facts) -> Any:
    trained = trainers_kwh(facts, hosts=True) * (facts.result.scenario.power or Power()).pue
    return float(site_joules(facts).sum()) / 3.6e6 + trained


def _node_kwh(facts: Facts) -> Any:
    return site_kwh(facts) / (facts.result.scenario.power or Power()).pue


def _mean_watts(facts: Facts) -> Any:
    return ratio(_gpu_joules(facts), float((facts.gpus * facts.lifetimes).sum()))


def _idle_share(facts: Facts) -> Any:
    """Idle watts of the time between steps, over all joules of the GPUs."""
    draw = facts.work.draw
    busy = draw.seconds.sum(axis=1) * _of_pools(facts, "idle_watts")
    all_idle = float((facts.per_replica("idle_watts") * facts.gpus * facts.lifetimes).sum())
    return ratio(max(all_idle - float(busy.sum()), 0.0), _gpu_joules(facts))


ENERGY = (
    Metric("energy.kwh", "kWh", "of the GPUs: idle, and in steps by FLOP and bytes, up to TDP or cap; fitted on A100, else a judgement",
           lambda facts: _gpu_joules(facts) / 3.6e6 + trainers_kwh(facts, hosts=False)),
    Metric("energy.joules_per_output_token", "J", "of engines' GPUs, idle time and prompts too, over output tokens of completed requests",
           lambda facts: ratio(_gpu_joules(facts), facts.tokens[1])),
    Metric("energy.prefill_joules_per_token", "J", "GPUs in prefill over prompt tokens computed; mixed steps are divided", _phase(0)),
    Metric("energy.decode_joules_per_token", "J", "GPUs in decode over output tokens but the first; mixed steps are divided", _phase(1)),
    Metric("energy.gpu_watts", "W", "mean of a GPU over its time, idle or not", _mean_watts),
    Metric("energy.idle_share", "", "share of the GPUs' energy drawn between steps", _idle_share),
    Metric("energy.node_kwh", "kWh", "of the GPUs and their share of the hosts", _node_kwh),
    Metric("energy.site_kwh", "kWh", "of both, times the PUE", site_kwh),
)  # fmt: skip
