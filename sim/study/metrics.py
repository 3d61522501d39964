"""Every metric, defined once. `METRICS` maps the dotted name a figure has in `summary.json` to its unit, meaning and function.

Names follow vLLM's benchmark and its users: TTFT is from the arrival at the front door to the first token, TPOT is (last - first) /
(output - 1), ITL is each gap between two tokens, E2E ends at the last token, queue is arrival to first admission by an engine.
Distributions are over completed requests (ITL: over every gap of the run). Rates divide by the span, from the first arrival to the end of
the run. Seconds, tokens, dollars; a figure that is undefined (no request, no price) is None, never NaN.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sim.core.request import COMPLETED, FAILED, REJECTED, STATUSES
from sim.spec.hardware import KINDS
from sim.study.adapters import adapters
from sim.study.by_pool import by_pool
from sim.study.cascade import cascade
from sim.study.facts import Stretches, Tables
from sim.study.gaps import Gaps
from sim.study.kv_waste import Waste
from sim.study.measures import MEASURES
from sim.study.moved import moved
from sim.study.result import Result
from sim.study.spread import Spread, distribution
from sim.study.tiers import tiers

# Power of a busy GPU over its idle power, as a share of (TDP - idle): a floor for being busy at all, the rest with the utilisation of the
# tighter of compute and memory. Judgement: decode at full memory bandwidth is known to draw close to TDP, small batches well below.
BUSY_POWER = 0.35


@dataclass(frozen=True)
class Metric:
    """One figure: `of(facts)` gives a number, a dict of numbers, a list or None."""

    name: str
    unit: str
    doc: str
    of: Callable[[Facts], Any]


class Facts(Tables):
    """The tables of a run, and what several metrics share."""

    @functools.cached_property
    def spreads(self) -> dict[str, dict[str, float] | None]:
        """The distribution of each measure (`ttft`, `tpot`, `e2e`, `queue`) over completed requests."""
        return {measure: distribution(self.times(measure)) for measure in MEASURES}

    def times(self, measure: str) -> np.ndarray:
        """Seconds of one measure, of the completed requests that have it."""
        pages = [MEASURES[measure](page)[page["status"] == COMPLETED] for page in self.requests()]
        return np.concatenate([values[~np.isnan(values)] for values in pages]) if pages else np.empty(0)

    @functools.cached_property
    def good(self) -> int:
        """Requests completed within every per-request limit of the SLO; one-token requests have no TPOT and meet it."""
        limits, total = request_limits(self.result.scenario.slo), 0
        for page in self.requests():
            late = [MEASURES[measure](page) > limit for measure, limit in limits.items()]
            total += int(((page["status"] == COMPLETED) & ~np.any(late, axis=0)).sum())
        return total

    @functools.cached_property
    def prompts(self) -> tuple[int, int, int]:
        """Prompt tokens of admitted requests; of them those found in the KV cache, and those found in a system prompt."""
        total = np.zeros(3, dtype="i8")
        for page in self.requests():
            on = ~np.isnan(page["admitted"])
            total += [page[name][on].sum(dtype="i8") for name in ("input_tokens", "cached_tokens", "common_tokens")]
        return int(total[0]), int(total[1]), int(total[2])

    @functools.cached_property
    def tokens(self) -> tuple[float, float]:
        """Prompt and output tokens of completed requests."""
        total = np.zeros(2)
        for page in self.requests():
            done = page["status"] == COMPLETED
            total += [page[name][done].sum(dtype="i8") for name in ("input_tokens", "output_tokens")]
        return float(total[0]), float(total[1])

    @functools.cached_property
    def work(self) -> Work:
        """Totals of all engine steps."""
        total, gaps, reader, waste = np.zeros(5), Spread(), Gaps(self.intervals), Waste(self)
        for page in self.stretches():
            seconds = page["seconds"]
            busy = seconds * page.gpus
            above = (step_power(page) - page.per_pool("idle_watts")) * busy
            total += [busy.sum(), page.flops.sum(), page.bytes_moved.sum(), (page["blocks"] * seconds).sum(), above.sum()]
            gaps.add(*reader.of(page))
            waste.add(page)
        for stalls in self.stalls():
            gaps.add(stalls, np.ones(len(stalls), dtype="i8"))
        return Work(*total.tolist(), gaps.distribution(), *waste.fragmentation())


class Work(NamedTuple):
    """Totals of all engine steps: GPU-seconds, FLOP, bytes, KV block-seconds, joules above idle; the spread of gaps between tokens; and
    internal and external fragmentation of the KV cache.
    """

    busy: float
    flops: float
    bytes_moved: float
    block_seconds: float
    joules: float
    gaps: dict[str, float] | None
    internal: float | None
    external: float | None


METRICS: dict[str, Metric] = {}


def metric(name: str, unit: str, doc: str) -> Callable[[Callable[[Facts], Any]], Callable[[Facts], Any]]:
    """Register a function as the definition of a dotted name."""

    def register(of: Callable[[Facts], Any]) -> Callable[[Facts], Any]:
        METRICS[name] = Metric(name, unit, doc, of)
        return of

    return register


def summarise(result: Result) -> dict[str, Any]:
    """The figures of a run as nested dicts, ready for JSON: verdict first, then every metric, the audit, and facts of the run."""
    from sim.study.audit import check
    from sim.study.verdict import judge

    facts = Facts(result)
    judged = judge(facts)
    summary: dict[str, Any] = {"verdict": judged.word, "verdict_reason": judged.reason}
    for name, entry in METRICS.items():
        group, _, leaf = name.partition(".")
        value = _plain(entry.of(facts))
        if leaf:
            summary.setdefault(group, {})[leaf] = value
        else:
            summary[group] = value
    summary["audit"] = check(facts)
    summary["run"] = {key: _plain(result.meta[key]) for key in ("seed", "sim_s", "cpu_s", "events", "version", "digest")}
    return summary


def step_power(page: Stretches) -> np.ndarray:
    """Watts of one GPU in each stretch: idle + (TDP - idle) * min(1, 0.35 + 0.65 * max(MFU, MBU) of the stretch). Judgement."""
    seconds = np.maximum(page["seconds"], 1e-12)
    used = np.maximum(page.flops / page.per_pool("peak_flops"), page.bytes_moved / page.per_pool("bandwidth")) / seconds
    idle, tdp = page.per_pool("idle_watts"), page.per_pool("tdp")
    return idle + (tdp - idle) * np.minimum(1.0, BUSY_POWER + (1 - BUSY_POWER) * used)


def request_limits(slo: Any) -> dict[str, float]:
    """The limit a single request is held to, per measure (`ttft`, `tpot`, `e2e`): that of the highest percentile the SLO gives."""
    limits = percentile_limits(slo)
    return {measure: limits[measure, percentile] for measure, percentile in sorted(limits)}


def percentile_limits(slo: Any) -> dict[tuple[str, int], float]:
    """Every limit of an SLO by (measure, percentile), seconds."""
    limits = {}
    for name, limit in slo.model_dump().items():
        measure, _, percentile = name.partition("_p")
        if percentile and limit is not None:
            limits[measure, int(percentile)] = limit
    return limits


def _plain(value: Any) -> Any:
    """Numbers as Python's own, NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ratio(top: float, bottom: float) -> float | None:
    return float(top) / float(bottom) if bottom > 0 else None


def _count(status: int) -> Callable[[Facts], int]:
    return lambda facts: int(facts.counts[status])


def _spread(measure: str) -> Callable[[Facts], Any]:
    return lambda facts: facts.spreads[measure]


def _gpu_seconds(facts: Facts) -> float:
    return float((facts.gpus * facts.lifetimes).sum())


def _usd(facts: Facts) -> float:
    return float((facts.per_replica("price_per_hour") * facts.gpus * facts.lifetimes).sum()) / 3600


def _joules(facts: Facts) -> float:
    return facts.work.joules + float((facts.per_replica("idle_watts") * facts.gpus * facts.lifetimes).sum())


metric("requests.arrived", "requests", "requests that reached the front door")(lambda facts: len(facts.result.tables["requests"]))
ENDS = ("got their last token", "were turned away", "were lost after being accepted", "were cut off by the end of the run")
for _status, _doc in enumerate(ENDS):
    metric(f"requests.{STATUSES[_status]}", "requests", f"requests that {_doc}")(_count(_status))
metric("ttft_s", "s", "arrival to first token, of completed requests")(_spread("ttft"))
metric("tpot_s", "s", "(last - first token) / (output tokens - 1), of completed requests with two tokens or more")(_spread("tpot"))


@metric("itl_s", "s", "each gap between two tokens of a request, pauses and preemption stalls included")
def _itl(facts: Facts) -> Any:
    return facts.work.gaps


metric("e2e_s", "s", "arrival to last token, of completed requests")(_spread("e2e"))
metric("queue_s", "s", "arrival to first admission by an engine, of completed requests")(_spread("queue"))


@metric("throughput.requests_per_s", "requests/s", "completed requests over the span")
def _requests_rate(facts: Facts) -> Any:
    return _ratio(facts.counts[COMPLETED], facts.span)


@metric("throughput.output_tokens_per_s", "tokens/s", "output tokens of completed requests over the span")
def _output_rate(facts: Facts) -> Any:
    return _ratio(facts.tokens[1], facts.span)


@metric("throughput.total_tokens_per_s", "tokens/s", "prompt and output tokens of completed requests over the span")
def _total_rate(facts: Facts) -> Any:
    return _ratio(sum(facts.tokens), facts.span)


@metric("throughput.output_tokens_per_s_per_gpu", "tokens/s", "output tokens of completed requests over GPU-seconds of the span")
def _gpu_rate(facts: Facts) -> Any:
    return _ratio(facts.tokens[1], _gpu_seconds(facts))


@metric("slo.attainment", "", "share of completed, rejected and failed requests within each measure's limit of the highest percentile")
def _attainment(facts: Facts) -> Any:
    ended = facts.counts[[COMPLETED, REJECTED, FAILED]].sum()
    return _ratio(facts.good, ended) if request_limits(facts.result.scenario.slo) else None


@metric("slo.goodput_requests_per_s", "requests/s", "requests within every such limit, over the span")
def _goodput(facts: Facts) -> Any:
    return _ratio(facts.good, facts.span) if request_limits(facts.result.scenario.slo) else None


@metric("slo.target", "", "share of requests that must be within those limits: the SLO's attainment, else their lowest percentile")
def _target(facts: Facts) -> Any:
    slo = facts.result.scenario.slo
    highest = dict(sorted(percentile_limits(slo)))
    return slo.attainment or min(highest.values()) / 100 if highest else None


@metric("slo.limits", "s", "each percentile limit: what was asked, what was measured over completed requests, and whether it holds")
def _limits(facts: Facts) -> Any:
    rows = []
    for (measure, percentile), limit in percentile_limits(facts.result.scenario.slo).items():
        measured = (facts.spreads[measure] or {}).get(f"p{percentile}")
        ok = None if measured is None else measured <= limit
        rows.append({"limit": f"{measure}_p{percentile}", "limit_s": limit, "measured_s": measured, "ok": ok})
    return rows


@metric("slo.met", "", "whether every limit holds and the attainment reaches its target; None without limits or without finished requests")
def _met(facts: Facts) -> Any:
    attainment, rows = _attainment(facts), _limits(facts)
    if attainment is None:
        return None
    return attainment >= _target(facts) and all(row["ok"] is not False for row in rows)


@metric("gpu.count", "GPUs", "GPUs of all replicas")
def _gpu_count(facts: Facts) -> Any:
    return int(facts.gpus.sum())


@metric("gpu.busy_fraction", "", "GPU-seconds inside engine steps over GPU-seconds of the span")
def _busy(facts: Facts) -> Any:
    return _ratio(facts.work.busy, _gpu_seconds(facts))


@metric("gpu.mfu", "", "model FLOP of all tokens computed (recomputation included) over peak FLOP/s times the span, idle time included")
def _mfu(facts: Facts) -> Any:
    return _ratio(facts.work.flops, (facts.per_replica("peak_flops") * facts.lifetimes).sum())


@metric("gpu.mbu", "", "bytes of weights (once per step) and of decoders' KV reads over peak bandwidth times the span, idle time included")
def _mbu(facts: Facts) -> Any:
    return _ratio(facts.work.bytes_moved, (facts.per_replica("bandwidth") * facts.lifetimes).sum())


@metric("kv.peak_fraction", "", "most KV blocks in use at once over a replica's blocks, of the fullest replica")
def _kv_peak(facts: Facts) -> Any:
    peak, blocks = facts.replicas["peak_blocks"], facts.replicas["blocks"]
    return (peak / np.maximum(blocks, 1)).max(initial=0.0)


@metric("kv.mean_fraction", "", "KV blocks at the end of each stretch, weighted by its seconds, over block-seconds; idle is empty")
def _kv_mean(facts: Facts) -> Any:
    return _ratio(facts.work.block_seconds, (facts.replicas["blocks"] * facts.lifetimes).sum())


@metric("kv.preemptions", "", "times a running request lost its cache and was computed again")
def _preemptions(facts: Facts) -> Any:
    return int(facts.replicas["preemptions"].sum())


@metric("kv.prefix_hit_rate", "", "share of the prompt tokens of admitted requests that were found in the KV cache")
def _prefix(facts: Facts) -> Any:
    return _ratio(facts.prompts[1], facts.prompts[0])


@metric("kv.prefix_hits", "", "the same by source: system prompts that sessions share, and the past of sessions or other equal content")
def _prefix_sources(facts: Facts) -> Any:
    prompt, found, common = facts.prompts
    return {"system_prompt": _ratio(common, prompt), "past": _ratio(found - common, prompt)}


metric("kv.moved", "", "keys and values moved, by why: how often, bytes, and seconds from asked for to arrived")(moved)
metric("kv.tiers", "", "tokens found and bytes moved by tier, blocks kept for sessions; None: neither tiers nor retention")(tiers)
metric("kv.internal_fragmentation", "", "share of room in taken blocks without a token, while only decoders run; None: shared blocks")(
    lambda facts: None if facts.prompts[1] else facts.work.internal
)
metric("kv.external_fragmentation", "", "share of busy engines' blocks that are free while some queue for room; None: static batches")(
    lambda facts: facts.work.external
)


@metric("cost.usd_per_hour", "USD/h", "price of all GPUs, averaged over the span; None when a pool has no price")
def _hourly(facts: Facts) -> Any:
    fleet = float((facts.per_replica("price_per_hour") * facts.gpus).sum())
    return _usd(facts) * 3600 / facts.span if facts.span > 0 else fleet


metric("cost.usd_total", "USD", "price of all GPUs over the span, idle or not")(_usd)


@metric("cost.usd_per_million_output_tokens", "USD", "cost of the span over output tokens of completed requests")
def _usd_output(facts: Facts) -> Any:
    return _ratio(_usd(facts) * 1e6, facts.tokens[1])


@metric("cost.usd_per_million_total_tokens", "USD", "cost of the span over prompt and output tokens of completed requests")
def _usd_tokens(facts: Facts) -> Any:
    return _ratio(_usd(facts) * 1e6, sum(facts.tokens))


@metric("cost.usd_per_request", "USD", "cost of the span over completed requests")
def _usd_request(facts: Facts) -> Any:
    return _ratio(_usd(facts), facts.counts[COMPLETED])


@metric("energy.kwh", "kWh", "GPUs only: idle power, and in steps idle + (TDP - idle) * min(1, 0.35 + 0.65 max(MFU, MBU)); judgement")
def _kwh(facts: Facts) -> Any:
    return _joules(facts) / 3.6e6


@metric("energy.joules_per_output_token", "J", "that energy over output tokens of completed requests")
def _joules_per_token(facts: Facts) -> Any:
    return _ratio(_joules(facts), facts.tokens[1])


@metric("provenance.worst", "", "the weakest origin of any hardware figure used: judgement < datasheet < fitted < measured")
def _worst(facts: Facts) -> Any:
    kinds = [row["kind"] for pool in facts.meta["pools"] for row in pool["provenance"]]
    return max(kinds, key=KINDS.index, default=None)


@metric("provenance.extrapolated", "", "whether any figure lies outside the range its model was calibrated on")
def _extrapolated(facts: Facts) -> Any:
    return any(pool["extrapolated"] for pool in facts.meta["pools"])


@metric("provenance.extrapolations", "", "which, pool by pool")
def _extrapolations(facts: Facts) -> Any:
    return [f"{pool['name']}: {text}" for pool in facts.meta["pools"] for text in pool["extrapolated"]]


metric("pools", "", "the figures of each pool, where there are several; a request counts where it was served last")(by_pool)
metric("adapters", "", "low-rank adapters: how many were asked for, how often one was on the GPU, seconds waited for the others")(adapters)
metric("cascade", "", "by caller's request: who answered, the share sent on, latency with verification, money, quality as given")(cascade)
