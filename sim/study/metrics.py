"""Every metric, defined once. `METRICS` maps the dotted name a figure has in `summary.json` to its unit, meaning and function.

Names follow vLLM's benchmark and its users: TTFT is from the arrival at the front door to the first token, TPOT is (last - first) /
(output - 1), ITL is each gap between two tokens, E2E ends at the last token, queue is arrival to first admission by an engine.
Distributions are over completed requests (ITL: over every gap of the run). Rates divide by the span, from the first arrival to the end of
the run. Seconds, tokens, dollars; a figure that is undefined (no request, no price) is None, never NaN.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from sim.core.request import COMPLETED, STATUSES
from sim.spec.hardware import KINDS
from sim.study.adapters import adapters
from sim.study.agents import Crowd, agents
from sim.study.attempts import attempts
from sim.study.by_pool import by_pool
from sim.study.carbon import CARBON
from sim.study.cascade import cascade
from sim.study.colocated import shared_gpus
from sim.study.energy import ENERGY, Draw
from sim.study.evals import evals
from sim.study.facts import Tables
from sim.study.gaps import Gaps
from sim.study.gate import gate
from sim.study.kv_waste import Waste
from sim.study.lending import lending
from sim.study.measures import MEASURES
from sim.study.metric import Metric
from sim.study.metric import ratio as _ratio
from sim.study.money import COST
from sim.study.moved import moved
from sim.study.network import network
from sim.study.regions import regions
from sim.study.replicate.window import is_cut, window
from sim.study.result import Result
from sim.study.rl.rl import rl
from sim.study.sandboxes import sandboxes
from sim.study.slo import LEVELS, request_limits
from sim.study.spread import Spread, distribution
from sim.study.starts import most_at_once, starts
from sim.study.states import pauses, replica_states
from sim.study.tiers import tiers
from sim.study.tools import tools
from sim.study.training import lent, passing, training
from sim.study.why.why import why


class Facts(Tables):
    """The tables of a run, and what several metrics share."""

    @functools.cached_property
    def settled(self) -> Facts:
        """The part of the run after its warm-up (`study/replicate/window.py`); all of it where none is left out."""
        said = self.meta.get("warmup")
        return Facts(window(self.result, said["begin"], math.inf)) if said else self

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
    def crowd(self) -> Crowd | None:
        """The agents of the run, None where there are none."""
        return Crowd(self) if len(self.result.tables.get("agents") or ()) else None

    @functools.cached_property
    def rl(self) -> dict[str, Any] | None:
        """The figures of runs of reinforcement learning, None where there are none."""
        return rl(self)

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
    def engine_time(self) -> np.ndarray:
        """Seconds of the span that each replica had its GPUs: not those in which a trainer that shares them had."""
        return self.lifetimes - lent(self)

    @functools.cached_property
    def work(self) -> Work:
        """Totals of all engine steps."""
        total, gaps, reader, waste, draw = np.zeros(6), Spread(), Gaps(self.intervals, pauses(self)), Waste(self), Draw(self)
        for page in self.stretches():
            seconds = page["seconds"]
            busy = seconds * page.gpus
            tokens = page["prefill_tokens"].sum(), page.decoded.sum()
            total += [busy.sum(), page.flops.sum(), page.bytes_moved.sum(), (page["blocks"] * seconds).sum(), *tokens]
            draw.add(page)
            gaps.add(*reader.of(page))
            waste.add(page)
        for stalls in self.stalls():
            gaps.add(stalls, np.ones(len(stalls), dtype="i8"))
        return Work(*total.tolist(), draw, gaps.distribution(), *waste.fragmentation())


class Work(NamedTuple):
    """Totals of all engine steps: GPU-seconds, FLOP, bytes, KV block-seconds, prompt tokens computed and tokens decoded; joules and phases;
    the spread of gaps between tokens; internal and external fragmentation of the KV cache.
    """

    busy: float
    flops: float
    bytes_moved: float
    block_seconds: float
    computed: float
    decoded: float
    draw: Draw
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

    facts, warmup = Facts(result), result.meta.get("warmup")
    judged = judge(facts)
    cut = tuple(warmup["figures"]) if warmup else ()
    summary: dict[str, Any] = {"verdict": judged.word, "verdict_reason": judged.reason}
    summary |= _figures(METRICS, lambda name: facts.settled if is_cut(name, cut) else facts)
    if warmup:
        summary["warmup"] = warmup
    summary["audit"] = check(facts)
    summary["run"] = {key: _plain(result.meta[key]) for key in ("seed", "sim_s", "cpu_s", "events", "version", "digest")}
    return summary


def cut_out(part: Result, groups: tuple[str, ...]) -> dict[str, Any]:
    """The figures of some groups alone, of a part of a run (`study/replicate/window.py`)."""
    facts = Facts(part)
    return _figures([name for name in METRICS if is_cut(name, groups)], lambda name: facts)


def _figures(names: Iterable[str], facts: Callable[[str], Facts]) -> dict[str, Any]:
    """Some metrics, nested as their names are; `facts` says of what to compute each."""
    found: dict[str, Any] = {}
    for name in names:
        group, _, leaf = name.partition(".")
        value = _plain(METRICS[name].of(facts(name)))
        if leaf:
            found.setdefault(group, {})[leaf] = value
        else:
            found[group] = value
    return found


def _plain(value: Any) -> Any:
    """Numbers as Python's own, NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count(status: int) -> Callable[[Facts], int]:
    return lambda facts: int(facts.counts[status])


def _spread(measure: str) -> Callable[[Facts], Any]:
    return lambda facts: facts.spreads[measure]


def _gpu_seconds(facts: Facts) -> float:
    return float((facts.gpus * facts.lifetimes).sum())


metric("requests.arrived", "requests", "requests that reached the front door")(lambda facts: len(facts.result.tables["requests"]))
ENDS = (
    "got their last token", "were turned away", "were lost, or called off by their client, after being accepted",
    "were cut off by the end of the run",
)  # fmt: skip
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


METRICS |= {entry.name: entry for entry in LEVELS}


@metric("gpu.count", "GPUs", "GPUs of all replicas; where replicas come and go, the most at a time")
def _gpu_count(facts: Facts) -> Any:
    return int(most_at_once(facts.replicas["start"], facts.replicas["end"], facts.gpus))


metric("gpu.mean", "GPUs", "GPUs of the replicas there were, averaged over the span")(
    lambda facts: _ratio(float((facts.gpus * facts.lifetimes).sum()), facts.span)
)


@metric("gpu.busy_fraction", "", "GPU-seconds in engine steps, and in passes of a trainer that shares the GPUs, over those of the span")
def _busy(facts: Facts) -> Any:
    return _ratio(facts.work.busy + sum(passing(facts, name) for name in facts.pools), _gpu_seconds(facts))


@metric("gpu.mfu", "", "engines' model FLOP (recomputation included) over peak FLOP/s times the span, idle time included, trainers' not")
def _mfu(facts: Facts) -> Any:
    return _ratio(facts.work.flops, (facts.per_replica("peak_flops") * facts.engine_time).sum())


@metric("gpu.mbu", "", "bytes of weights (once per step) and decoders' KV reads over peak bandwidth times the span, as for gpu.mfu")
def _mbu(facts: Facts) -> Any:
    return _ratio(facts.work.bytes_moved, (facts.per_replica("bandwidth") * facts.engine_time).sum())


@metric("kv.peak_fraction", "", "most KV blocks in use at once over a replica's blocks, of the fullest replica")
def _kv_peak(facts: Facts) -> Any:
    peak, blocks = facts.replicas["peak_blocks"], facts.replicas["blocks"]
    return (peak / np.maximum(blocks, 1)).max(initial=0.0)


@metric("kv.mean_fraction", "", "KV blocks at the end of each stretch, weighted by its seconds, over engines' block-seconds; idle is empty")
def _kv_mean(facts: Facts) -> Any:
    return _ratio(facts.work.block_seconds, (facts.replicas["blocks"] * facts.engine_time).sum())


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


METRICS |= {entry.name: entry for entry in (*COST, *ENERGY, *CARBON)}


@metric("provenance.worst", "", "the weakest origin of any hardware figure used: judgement < datasheet < fitted < measured")
def _worst(facts: Facts) -> Any:
    machines = [*facts.meta["pools"], *facts.meta.get("trainers", [])]
    parts = [*(one["provenance"] for one in machines), *facts.meta.get("provenance", {}).values()]
    kinds = [row["kind"] for rows in parts for row in rows]
    return max(kinds, key=KINDS.index, default=None)


@metric("provenance.extrapolated", "", "whether any figure lies outside the range its model was calibrated on")
def _extrapolated(facts: Facts) -> Any:
    return any(one["extrapolated"] for one in [*facts.meta["pools"], *facts.meta.get("trainers", [])])


@metric("provenance.extrapolations", "", "which, each with the pools and trainers it is true of")
def _extrapolations(facts: Facts) -> Any:
    names: dict[str, list[str]] = {}
    for one in [*facts.meta["pools"], *facts.meta.get("trainers", [])]:
        for text in one["extrapolated"]:
            names.setdefault(text, []).append(one["name"])
    return [f"{', '.join(pools)}: {text}" for text, pools in names.items()]


metric("pools", "", "the figures of each pool, where there are several; a request counts where it was served last")(by_pool)
metric("scaling", "", "replicas that came and went: each stage of a start, GPU-hours by state, requests held; None: none could")(starts)
metric("gate", "", "calls that a gate held back, as their programs were paused or new, and for how long; None: no gate")(gate)
metric("regions", "", "by origin: requests, where they were served, the share served elsewhere, latency; None: no regions")(regions)
metric("adapters", "", "low-rank adapters: how many were asked for, how often one was on the GPU, seconds waited for the others")(adapters)
metric("network", "", "transfers by kind, the busiest links, the links that held transfers back; None: no network")(network)
metric("cascade", "", "by caller's request: who answered, the share sent on, latency with verification, money, quality as given")(cascade)
metric("calls", "", "by caller's call: answered or given up, latency with retries, attempts by kind and outcome, wasted work")(attempts)
metric("agents", "", "by task: time, money, tokens, calls; where agents' time went, cache hits, amplification; None: no agents")(agents)
metric("tools", "", "tool calls, in all and by tool: how long, shares of calls and of time, outcomes; None: no tools")(tools)
metric("evals", "", "by evaluation: time until all, and until most, were done, where it went, samples, sandboxes; None: none")(evals)
metric("sandboxes", "", "by pool: waits and boots, outcomes, occupancy, use of cores and memory, nodes and money; None: no pool")(sandboxes)
metric("replica_states", "", "by pool: GPU-seconds in steps, idle, paused (update, sleep, drain), starting; None: none was paused")(
    replica_states
)
metric("shared_gpus", "", "by trainer that shares a pool's GPUs: GPU-seconds generating, idle, paused, in switches, in passes; None: none")(
    shared_gpus
)
metric("lending", "", "by pool on another one's GPUs: GPU-hours it had them, hand-overs, requests sent on or called off; None: none")(
    lending
)
metric("training", "", "by trainer: MFU, tokens per second, where its time went, money and energy; None: no trainers")(training)
metric("rl", "", "by run of RL: the step and its parts, waits, staleness, tail, waste, rewards, syncs, money; None: none")(
    lambda facts: facts.rl
)
metric("why", "", "what held requests back, each with the share of time behind it and a sentence; the GPUs, where nothing did")(why)
