"""What is wrong between the keys of a run of reinforcement learning, told before it begins: parts that do not divide, keys without effect,
a bound under which no batch ever fills, a filter that lets nothing through.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim.core.ledger import Course
from sim.core.registry import STALENESS
from workloads.rewards import graders
from workloads.rollouts import team
from workloads.rollouts.answers import Answers
from workloads.rollouts.options import BufferOptions, Interrupt
from workloads.rollouts.prompts import AGENT
from workloads.rollouts.team import Team

WITHIN = ("truncate", "divided", "consolidate")
# What makes sense without rounds: a divided rollout sends the next piece to caches that a publication has made void.
ALWAYS = ("truncate", "consolidate")
HOPELESS = 0.999


def problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong and what would be right)."""
    rounds = values["mode"].startswith("sync")
    yield from _work(values)
    yield from _mode(values, rounds)
    yield from _division(values, rounds)
    yield from graders.problems(values["rewards"])
    if not rounds:
        yield from _gate(values)
    if values["dynamic_sampling"] is not None:
        yield from _filter(values, rounds)


def _work(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    agents = bool(values["agents"])
    if agents == (values["answers"] is not None):
        found = "both are given" if agents else "neither is given"
        yield "answers", f"{found}: say answers, when each sample is one answer, or agents (or agents_preset), when it is the work of one"
    elif not agents and values["prompt"] is None:
        yield "prompt", "missing: how many tokens prompts have, such as {median: 300, sigma: 0.5}"
    members = Team(values["agents"], values["agent"], values["tools"], values["apis"], values["environment"], stepping=values["stepping"])
    yield from team.problems(members)
    if agents and values["tail"] is not None and values["tail"]["kind"] in ("truncate", "divided", "consolidate"):
        yield "tail", f"found {values['tail']['kind']}, which is for answers of one turn; limit agents by their budget and context"
    if values["model"]:
        yield "model", "not used here: rollout names the pool that generates"
    if values["client"] is not None:
        yield "client", "not used here: nobody's patience ends; leave it out"
    for key in ("shared_prefix", "prefixes"):
        if values[key]:
            yield key, "not used here: what samples share is their prompt; leave it out"


def _mode(values: Mapping[str, Any], rounds: bool) -> Iterator[tuple[str, str]]:
    mode = values["mode"]
    if mode == "async" and values["staleness"] is None:
        yield "staleness", f"missing: say how far rollouts may fall behind, as a gate of kind {', '.join(STALENESS.names())}"
    if mode != "async" and values["staleness"] is not None:
        yield "staleness", f"not used here: mode {mode} leaves no choice; leave it out, or take mode async"
    tail = values["tail"]["kind"] if values["tail"] is not None else "wait_all"
    inner = (values["tail"] or {}).get("rounds") or {}
    if not rounds and tail not in ALWAYS and values["tail"] is not None:
        yield "tail", f"found {tail}; without rounds {' and '.join(ALWAYS)} have a meaning: take one of them, or leave it out"
    whole = tail in ("wait_all", *WITHIN) and inner.get("kind", "wait_all") == "wait_all"
    if rounds and values["dynamic_sampling"] is not None and not whole:
        yield "tail", f"found {tail}; with dynamic_sampling a round ends when enough groups are valid: take wait_all"
    if rounds:
        for key, default in (("interrupt", Interrupt()), ("redundant", 0)):
            if values[key] != default:
                yield key, f"not used here: in mode {mode} nothing runs when weights go out; leave it out, or take a tail policy"
        if values["buffer"] != BufferOptions():
            yield "buffer", f"not used here: in mode {mode} the trainer takes what a round has made; leave it out"
        if (values["sync"] or {}).get("blocking", "blocking") != "blocking":
            yield "sync.blocking", f"not used here: in mode {mode} nobody works while weights go out"
    elif values["reward_at"] == "batch":
        yield "reward_at", f"not used here: mode {mode} has no rounds whose end rewards could wait for"
    if values["lends"] is not None and mode != "sync_disaggregated":
        why = "trainer and engines share their GPUs already" if mode == "sync_colocated" else "engines hardly ever idle"
        yield "lends", f"not used here: in mode {mode} {why}; leave it out, or take mode sync_disaggregated"
    if mode != "sync_colocated" and (values["switch"].to_train is not None or values["switch"].to_rollout is not None):
        yield "switch", f"not used here: in mode {mode} trainer and rollouts have GPUs of their own"


def _division(values: Mapping[str, Any], rounds: bool) -> Iterator[tuple[str, str]]:
    updates, prompts = values["updates"], values["prompts"]
    if prompts % updates.trigger:
        yield "updates.trigger", f"found {updates.trigger}; {prompts} prompts do not divide into so many local updates"
        return
    take = prompts // updates.trigger
    if updates.mini_batches > take * values["samples"]:
        yield "updates.mini_batches", f"found {updates.mini_batches}, but a local update has {take * values['samples']} samples"
    if updates.stream is None:
        return
    if updates.stream > take:
        yield "updates.stream", f"found {updates.stream}, but a local update has {take} groups"
    if rounds and updates.trigger > 1:
        yield "updates.trigger", "with stream a round is one update; leave trigger at 1"
    if values["mode"] == "sync_colocated":
        yield "updates.stream", "trainer and rollouts share their GPUs, so that nothing can be trained on meanwhile; leave it out"
    if values["reward_at"] == "batch":
        yield "updates.stream", "with reward_at batch nothing is ready before the round is over; leave one of them out"


def _answers(values: Mapping[str, Any]) -> Answers:
    return Answers(values["answers"] or AGENT, values["solving"], 0)


def _gate(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why the trainer would wait for ever."""
    if (values["mode"] == "async" and values["staleness"] is None) or values["prompts"] % values["updates"].trigger:
        return
    options = values["staleness"] or {"kind": "one_step_off"}
    sampling, samples = values["dynamic_sampling"], values["samples"]
    accepts = 1.0 if sampling is None else _answers(values).valid(samples)
    if accepts <= 0:
        return  # said by whoever looks at the filter
    trigger = values["updates"].trigger
    stuck = STALENESS.make(options).stuck(Course(values["prompts"] // trigger, samples, trigger, accepts, values["buffer"].cap))
    if stuck:
        yield "staleness" if values["staleness"] is not None else "mode", stuck


def _filter(values: Mapping[str, Any], rounds: bool) -> Iterator[tuple[str, str]]:
    sampling, samples = values["dynamic_sampling"], values["samples"]
    share = _answers(values).valid(samples)
    if share <= 0 or (rounds and sampling.gives_up(values["prompts"], share) > HOPELESS):
        passes = f"of groups of {samples}, a share of {share:.3g} is neither all right nor all wrong"
        most = f"{sampling.max_num_gen_batches} batches of {sampling.gen_batch(values['prompts'])}"
        yield "dynamic_sampling", f"{passes}: {most} groups never hold the {values['prompts']} wanted; see solving"
    if sampling.style == "stream" and values["reward_at"] == "batch":
        yield "reward_at", "with dynamic_sampling in a stream a group is judged as soon as it is complete; leave one of them out"
