"""The slow and plain counterpart of the network: max-min rates by the textbook, everything solved again at each begin and end.

`rates` follows the definition step by step with a full scan of all flows on all links, and knows nothing of what it found before;
`completions` moves every flow by its rate from one event to the next.
"""
from __future__ import annotations

import math
from typing import NamedTuple


class Asked(NamedTuple):
    """One flow: when its first byte may move, its bytes, and when it is called off (infinite: never)."""

    begin: float
    size: float
    links: tuple[int, ...]
    shares: tuple[float, ...]
    weight: float = 1.0
    priority: int = 0
    limit: float = math.inf
    off: float = math.inf


def rates(flows: dict[int, Asked], capacities: list[float]) -> dict[int, float]:
    """Bytes/s of each flow: raise all together until something stops one of them, priority by priority."""
    found: dict[int, float] = {}
    for priority in sorted({flow.priority for flow in flows.values()}, reverse=True):
        rising = {number for number, flow in flows.items() if flow.priority == priority}
        while rising:
            level, stopped = math.inf, set()
            for number in rising:
                level = min(level, flows[number].limit / flows[number].weight)
            for link, capacity in enumerate(capacities):
                used, more = 0.0, 0.0
                for number, flow in flows.items():
                    if link in flow.links:
                        share = flow.shares[flow.links.index(link)]
                        used += found.get(number, 0.0) * share
                        more += flow.weight * share if number in rising else 0.0
                left = capacity - used if capacity - used > 1e-12 * capacity else 0.0
                if more and left / more < level:
                    level = left / more
            for link, capacity in enumerate(capacities):
                users = [number for number in flows if link in flows[number].links]
                used = 0.0
                for number in users:
                    rate = found.get(number, flows[number].weight * level if number in rising else 0.0)
                    used += rate * flows[number].shares[flows[number].links.index(link)]
                if used >= capacity * (1 - 1e-12):
                    stopped |= rising.intersection(users)
            stopped |= {number for number in rising if flows[number].limit / flows[number].weight <= level}
            for number in stopped:
                found[number] = level * flows[number].weight
            rising -= stopped
    return found


def completions(flows: dict[int, Asked], capacities: list[float]) -> dict[int, tuple[float, float]]:
    """(when it ended, NaN if it was called off or starves for ever; bytes moved) of each flow."""
    left = {number: flow.size for number, flow in flows.items()}
    ended: dict[int, tuple[float, float]] = {}
    now = 0.0
    while len(ended) < len(flows):
        open_ = {number: flow for number, flow in flows.items() if number not in ended}
        moving = {number: flow for number, flow in open_.items() if flow.begin <= now}
        rate = rates(moving, capacities)
        ends = {number: now + left[number] / rate[number] for number in moving if rate[number] > 0}
        later = [flow.begin for flow in open_.values() if flow.begin > now] + [flow.off for flow in open_.values()]
        until = min([*ends.values(), *later])
        if until == math.inf:
            return ended | {number: (math.nan, flows[number].size - left[number]) for number in open_}
        for number in moving:
            left[number] -= rate[number] * (until - now)
        for number, flow in open_.items():
            if ends.get(number, math.inf) <= until:
                ended[number] = (until, flow.size)
            elif flow.off <= until:
                ended[number] = (math.nan, flow.size - left[number])
        now = until
    return ended
