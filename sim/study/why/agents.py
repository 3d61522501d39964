"""What held agents back, as shares of their time: reasons beside those of `study/why/why.py`, each with the evidence for it.

Time is that of agents that work: not when their user is away, nor when they wait for their sub-agents, whose time counts itself.

* sandboxes: they waited for one; of it, for a place on a node, for the image, for a boot;
* tools: they waited for tools; the one that took the most time, and what of it was waiting for a service or a slot;
* a gate: calls that it held;
* contexts computed again: prompt tokens that an agent had in its last call and that no cache had any more. That is work and not time:
  a share of all prompt tokens computed.

Tools are told from half of the time on: to work with tools is what agents do.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sim.study.why.reason import Reason, lasting

if TYPE_CHECKING:
    from sim.study.metrics import Facts

MUCH = 0.5


def reasons(facts: Facts) -> Iterator[Reason | None]:
    """In the order of the module's list; nothing where there are no agents."""
    crowd = facts.crowd
    if crowd is None:
        return
    sums = {state: float(seconds.sum()) for state, seconds in crowd.seconds.items() if state not in ("think", "join")}
    total = sum(sums.values())
    if not total:
        return
    yield _sandboxes(facts, sums["sandbox"] / total)
    yield _tools(facts, sums["tool"] / total)
    yield _gate(facts, total)
    yield _again(facts)


def _sandboxes(facts: Facts, share: float) -> Reason | None:
    table = facts.result.tables["sandboxes"]
    if not len(table) or not share:
        return None
    until = np.where(np.isnan(table["granted"]), table["released"], table["granted"])
    waited = (table["workload"] != table.label("workload", "")) & (until > table["asked"])
    asked, placed, until = table["asked"][waited], table["placed"][waited], until[waited]
    if not len(asked):
        return None
    total = float((until - asked).sum())
    place = float((np.where(np.isnan(placed), until, np.clip(placed, asked, until)) - asked).sum())
    missed = ~np.isnan(placed) & (table["hit"][waited] == 0)
    pulls = f"; {missed.mean():.0%} of them had to wait for their image" if missed.any() else ""
    most = "for a place, as nodes were full" if place > total / 2 else "for the boot, from a place on a node to ready"
    part = place / total if place > total / 2 else 1 - place / total
    return Reason("sandboxes", share, (
        f"Sandboxes: agents waited for them in {share:.0%} of their time, {lasting(total / len(asked))} each on average, {part:.0%} of "
        f"that {most}{pulls}."
    ))  # fmt: skip


def _tools(facts: Facts, share: float) -> Reason | None:
    table = facts.result.tables["tool_calls"]
    if not len(table) or share < MUCH:
        return None
    took = table["end"] - table["start"]
    sums = np.bincount(table["tool"], took, len(table.labels["tool"]))
    most = int(sums.argmax())
    mine = table["tool"] == most
    queued = float(table["queued"].sum() / max(took.sum(), 1e-300))
    wait = f" {queued:.0%} of their time was waiting for a service or a slot." if queued >= 0.05 else ""
    return Reason("tools", share, (
        f"Tools: agents waited for them in {share:.0%} of their time, {sums[most] / sums.sum():.0%} of it for {table.labels['tool'][most]} "
        f"({lasting(float(took[mine].mean()))} on average, {lasting(float(np.quantile(took[mine], 0.99)))} at p99).{wait}"
    ))  # fmt: skip


def _gate(facts: Facts, total: float) -> Reason | None:
    table = facts.result.tables["gate"]
    if not len(table):
        return None
    held = np.where(np.isnan(table["end"]), facts.end, table["end"]) - table["start"]
    again = ~np.isnan(table["paused"])
    share = min(float(held.sum()) / total, 1.0)
    return Reason("gate", share, (
        f"Gate: it held {len(table):,} calls for {lasting(float(held.mean()))} each on average, {share:.0%} of agents' time, "
        f"{again.mean():.0%} of them of programs that it had let in before."
    ))  # fmt: skip


def _again(facts: Facts) -> Reason | None:
    crowd = facts.crowd
    assert crowd is not None
    computed, new = crowd.computed_prompts, crowd.new_tokens
    if computed <= new:
        return None
    share = 1 - new / computed
    return Reason("recomputed", share, (
        f"Contexts computed again: {share:.0%} of the prompt tokens computed had been part of an agent's last call, and no cache had them "
        f"when it came back; {computed / new:.3g} times what was new was computed."
    ))  # fmt: skip
