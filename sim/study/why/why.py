"""What held requests back, as shares of time: the reasons behind the verdict, each with the evidence for it.

A reason is given only where the run's own records show it, and only from `SHARE` of the time on (a judgement, as in `study/verdict.py`):

* cold starts: requests that came while replicas were starting took longer to their first token than the rest, and what they took longer
  is a share of all that was waited for first tokens;
* an autoscaler at its maximum: all the replicas it may have are ready, and at each of them a request queues on average;
* placement: replicas wait for GPUs, none or not the right ones being free, and as many requests queue as replicas are ready;
* links: one carries all it can, and is the bottleneck of something that requests wait for; of several, that on which transfers spent the
  most time. Deliveries of workloads are not waited for, and what goes to replicas that start only where the starts are;
* hand-over of keys and values, of the time from arrivals to last tokens; ways between regions, of the time to first tokens;
* attempts: retries and hedges beside first attempts;
* GPUs that another pool has of those that two share (`study/why/lent.py`);
* queues at replicas, of the time from arrivals to last tokens: the KV cache is full, the batch is full, or prompts are being computed;
* of agents: sandboxes, tools, a gate, and contexts computed again (`study/why/agents.py`);
* of reinforcement learning: what a step waits for (`study/why/rl.py`), which comes first.

Where there is none of them, what the GPUs were busy with is said instead. Shares are of different wholes, which their texts name: what
the largest of them is, is not by itself what to change first.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.core.record import Table
from sim.core.request import COMPLETED, FAILED
from sim.study.facts import Tables
from sim.study.meanwhile import Union
from sim.study.measures import MEASURES
from sim.study.queued import Queued
from sim.study.starts import RISING
from sim.study.why.agents import reasons
from sim.study.why.lent import reasons as of_lent
from sim.study.why.reason import Reason, lasting
from sim.study.why.rl import reasons as of_rl

if TYPE_CHECKING:
    from sim.study.metrics import Facts

SHARE = 0.05
SLOWER = 1.5
FEW = 20
FULL = 0.95  # of a replica's KV blocks
STARTING = ("image", "weights")  # kinds of transfers that replicas wait for when they start


def why(facts: Facts) -> list[dict[str, Any]]:
    """[{cause, share, text}], in the order of the module's list; empty when nothing arrived or nothing was computed."""
    if facts.span <= 0 or not facts.work.busy:
        return []
    waits = _waits(facts)
    cold = _cold(facts, waits)
    found = [reason for reason in (
        *of_rl(facts), cold, *_bounds(facts), _placement(facts), _link(facts, cold is not None), _handed(facts, waits), _away(waits),
        _attempts(facts), *of_lent(facts, waits.e2e), _queues(facts, waits), *reasons(facts),
    ) if reason is not None and reason.share >= SHARE]  # fmt: skip
    # Rounded, for sums of shares depend on the order they are added in.
    return [reason._replace(share=round(reason.share, 4))._asdict() for reason in found or [_gpus(facts)]]


class Waits(NamedTuple):
    """Of completed requests: TTFTs (s) of those that came while replicas were starting, and of the rest; sums (s) of TTFT, of seconds
    underway between regions, and from arrival to last token. `gave_up`: requests that failed without a first token, those of them that came
    while replicas were starting first.
    """

    during: np.ndarray
    rest: np.ndarray
    ttft: float
    away: float
    e2e: float
    gave_up: tuple[int, int]


def _waits(facts: Facts) -> Waits:
    begin, end = Union(*_starting(facts)).spans
    between = facts.away
    during, rest, away, e2e, gave_up = [], [], 0.0, 0.0, np.zeros(2, dtype=int)
    for page in facts.requests():
        told = ~np.isnan(page["first_token"])
        done, lost = (page["status"] == COMPLETED) & told, (page["status"] == FAILED) & ~told
        arrival, ttft = page["arrival"], MEASURES["ttft"](page)
        # Spans do not touch each other: the last that began before it is the only one it can be in.
        at = np.searchsorted(begin, arrival, side="right") - 1
        inside = (at >= 0) & (arrival < np.append(end, 0.0)[at])
        during.append(ttft[done & inside])
        rest.append(ttft[done & ~inside])
        gave_up += np.array([(lost & inside).sum(), (lost & ~inside).sum()])
        replica = page["replica"][done]
        away += 2 * float(between[page["workload"][done], replica].sum())
        e2e += float(np.nansum(MEASURES["e2e"](page)[done]))
    first, second = np.concatenate(during), np.concatenate(rest)
    return Waits(first, second, float(first.sum() + second.sum()), away, e2e, (int(gave_up[0]), int(gave_up[1])))


def _starting(facts: Tables) -> tuple[np.ndarray, np.ndarray]:
    """When replicas were starting: begins and ends (s) of their stages before the traffic; those of GPUs they had to wait for included."""
    table = _table(facts, "starts")
    if table is None:
        return np.empty(0), np.empty(0)
    rising = np.isin(table["stage"], [table.labels["stage"].index(name) for name in RISING])
    end = np.where(np.isnan(table["end"]), facts.replicas["end"][table["replica"]], table["end"])
    return table["start"][rising], end[rising]


def _cold(facts: Facts, waits: Waits) -> Reason | None:
    during, rest = waits.during, waits.rest
    if min(len(during), len(rest)) < FEW:
        return None
    slow, usual = (float(np.quantile(values, 0.95)) for values in (during, rest))
    if slow < SLOWER * usual:
        return None
    share = (float(during.sum()) - len(during) * float(rest.mean())) / waits.ttft
    here, lost = waits.gave_up[0], sum(waits.gave_up)
    gone = f" {here:,} of the {lost:,} requests that were called off before a first token came then too." if here else ""
    text = (
        f"Cold starts: {len(during) / (len(during) + len(rest)):.0%} of the requests with an answer came while replicas were starting, and "
        f"95% of them had a first token within {lasting(slow)}, of the rest within {lasting(usual)}. What they took longer is "
        f"{share:.0%} of all time to first tokens.{gone}"
    )
    return Reason("cold_start", share, text + _slowest(facts))


def _slowest(facts: Facts) -> str:
    """Which stage of a start takes longest."""
    from sim.study.starts import starts

    found = starts(facts)
    if not found or not found["wanted_to_ready"]:
        return ""
    stages = {name: stage for name, stage in found["stages"].items() if name in RISING}
    most = max(stages, key=lambda name: stages[name]["count"] * stages[name]["mean"])
    whole = found["wanted_to_ready"]["mean"]
    return f" A start took {lasting(whole)} on average, of it {lasting(stages[most]['mean'])} for {STAGES[most]}."


STAGES = {"wait": "free GPUs", "provision": "a node", "image": "the image", "weights": "the weights", "init": "the engine's start",
          "capture": "CUDA graphs"}  # fmt: skip


def _bounds(facts: Facts) -> Iterator[Reason | None]:
    """Of each pool that is scaled."""
    table = _table(facts, "scaling")
    for pool in facts.result.scenario.cluster.pools:
        if table is None or pool.autoscale is None or pool.autoscale.min == pool.autoscale.max or pool.name not in table.labels["pool"]:
            continue
        mine = table["pool"] == table.labels["pool"].index(pool.name)
        times, queued = table["time"][mine], table["queued"][mine]
        lasting = np.diff(times, append=facts.end)
        full = (table["ready"][mine] >= pool.autoscale.max) & (table["wanted"][mine] >= pool.autoscale.max)
        if not lasting[full].sum():
            continue
        there = float((queued * lasting)[full].sum() / lasting[full].sum())
        if there < pool.autoscale.max:
            continue
        share = float(lasting[full].sum()) / facts.span
        yield Reason("autoscaler_max", share, (
            f"Autoscaler at its bound: pool {pool.name} had all of its {pool.autoscale.max} replicas ready in {share:.0%} of the time, and "
            f"{there:.3g} requests queued there on average meanwhile."
        ))  # fmt: skip


def _placement(facts: Facts) -> Reason | None:
    table = _table(facts, "starts")
    if table is None:
        return None
    waiting = table["stage"] == table.labels["stage"].index("wait")
    until = np.where(np.isnan(table["end"]), facts.replicas["end"][table["replica"]], table["end"])
    begin, end = Union(table["start"][waiting], until[waiting]).spans
    share = float((end - begin).sum()) / facts.span
    looks = _table(facts, "scaling")
    if looks is not None and not _queued(looks, begin, end):
        return None
    stranded = float(looks["stranded"][looks["stranded"] > 0].mean()) if looks is not None and looks["stranded"].any() else 0.0
    what = f"while {stranded:.3g} GPUs on average were free, stranded where none of them fits" if stranded else "with none free"
    return Reason("placement", share, f"Placement: replicas waited for GPUs in {share:.0%} of the time, {what}.")


def _queued(looks: Table, begin: np.ndarray, end: np.ndarray) -> bool:
    """Whether as many requests queued as replicas were ready, on average over what autoscalers saw in these intervals."""
    at = np.searchsorted(begin, looks["time"], side="right") - 1
    inside = (at >= 0) & (looks["time"] < np.append(end, 0.0)[at])
    return bool(inside.any() and looks["queued"][inside].sum() >= max(1, looks["ready"][inside].sum()))


def _link(facts: Facts, cold: bool) -> Reason | None:
    """The link on which transfers spent the most time, of those that were full for long and that requests waited for; `cold`: they waited
    for starts.
    """
    links, flows = _table(facts, "links"), _table(facts, "flows")
    if links is None or flows is None:
        return None
    names, kinds, bound = flows.labels["bound"], flows.labels["kind"], flows["bound"]
    deliveries = _table(facts, "deliveries")
    others = [*(deliveries.labels["what"] if deliveries is not None else ()), *(() if cold else STARTING)]
    awaited = ~np.isin(flows["kind"], [code for code, name in enumerate(kinds) if name in others])
    waited = {names[code] for code in np.unique(bound[awaited])}
    took = np.nan_to_num(np.where(np.isnan(flows["end"]), facts.end, flows["end"]) - flows["start"])
    held = dict(zip(names, np.bincount(bound, took, len(names)).tolist(), strict=True))
    full = links["full"] / facts.span
    names_of = [links.labels["link"][code] for code in links["link"]]
    long = [number for number in np.flatnonzero(full >= SHARE).tolist() if names_of[number] in waited and held[names_of[number]] > 0]
    if not long:
        return None
    worst = max(long, key=lambda number: held[names_of[number]])
    name, kind = names_of[worst], links.labels["kind"][links["kind"][worst]]
    mine = bound == names.index(name)
    spent = np.bincount(flows["kind"][mine], took[mine], len(kinds))
    most = int(spent.argmax())
    share = float(full[worst])
    return Reason("link", share, (
        f"A full link: {name} ({kind}) carried all it can in {share:.0%} of the time. It was the bottleneck of {int(mine.sum()):,} "
        f"transfers, of {lasting(float(took[mine].mean()))} each on average, {spent[most] / spent.sum():.0%} of that time for "
        f"{kinds[most]}."
    ))  # fmt: skip


def _handed(facts: Facts, waits: Waits) -> Reason | None:
    table = _table(facts, "transfers")
    if table is None or not waits.e2e:
        return None
    took = (table["end"] - table["start"])[table["kind"] == table.labels["kind"].index("handoff")]
    took = took[~np.isnan(took)]
    if not len(took):
        return None
    share = float(took.sum()) / waits.e2e
    text = f"Hand-over: keys and values on their way from prefill to decode took {share:.0%} of the requests' time, "
    return Reason("handoff", share, text + f"{lasting(float(took.mean()))} each on average.")


def _away(waits: Waits) -> Reason | None:
    if not waits.away or not waits.ttft:
        return None
    share = waits.away / waits.ttft
    return Reason("regions", share, f"Distance: ways between regions, there and back, are {share:.0%} of all time to first tokens.")


def _attempts(facts: Facts) -> Reason | None:
    table = _table(facts, "attempts")
    if table is None:
        return None
    counts = np.bincount(table["kind"], minlength=len(table.labels["kind"]))
    first, retries, hedges = (int(counts[table.labels["kind"].index(name)]) for name in ("first", "retry", "hedge"))
    share = (retries + hedges) / max(first, 1)
    return Reason("attempts", share, (
        f"Callers asked again: {retries:,} retries and {hedges:,} hedges on {first:,} calls, {share:.0%} more requests than calls."
    ))  # fmt: skip


def _queues(facts: Facts, waits: Waits) -> Reason | None:
    """Why requests queued at replicas, by request-seconds."""
    options = {pool.name: pool.engine.max_num_seqs * pool.parallel.dp * pool.parallel.pp for pool in facts.result.scenario.cluster.pools}
    most, blocks = np.array([options[name] for name in facts.pool_of_replica]), facts.replicas["blocks"]
    spent, queued = np.zeros(3), Queued(len(most))
    for page in facts.stretches():
        replica, waited = page["replica"], queued.seconds(page)
        full = page["blocks"] >= FULL * blocks[replica]
        batch = ~full & (page["decoders"] + page["prefills"] >= most[replica])
        spent += [waited[full].sum(), waited[batch].sum(), waited[~full & ~batch].sum()]
    total = float(spent.sum())
    if not total:
        return None
    words = ("the KV cache was full", "the batch was full", "prompts before them were being computed")
    order = np.argsort(-spent, kind="stable").tolist()
    parts = ", ".join(f"{spent[code] / total:.0%} while {words[code]}" for code in order if spent[code] >= SHARE * total)
    # Those that were cut off by the end of the run queued too, and are not in the time of the completed.
    share = min(total / waits.e2e, 1.0) if waits.e2e else 1.0
    return Reason("queue", share, f"Queues at replicas: {share:.0%} of the requests' time; {parts}.")


def _gpus(facts: Facts) -> Reason:
    """What the GPUs were busy with, when nothing else held requests back."""
    work, seconds = facts.work, facts.work.draw.seconds
    there = float((facts.gpus * facts.lifetimes).sum())
    share, prompts = work.busy / there, float(seconds[:, 0].sum() / max(seconds.sum(), 1e-300))
    idle = (facts.per_replica("peak_flops") * facts.lifetimes).sum(), (facts.per_replica("bandwidth") * facts.lifetimes).sum()
    arithmetic, memory = (done / (peak * share) for done, peak in zip((work.flops, work.bytes_moved), idle, strict=True))
    return Reason("gpus", share, (
        f"Nothing but the GPUs themselves: in steps {share:.0%} of the time, of it {prompts:.0%} for prompts; a step used "
        f"{memory:.0%} of their memory bandwidth and {arithmetic:.0%} of their arithmetic."
    ))  # fmt: skip


def _table(tables: Tables, name: str) -> Table | None:
    table = tables.result.tables.get(name)
    return table if table is not None and len(table) else None
