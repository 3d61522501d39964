"""What an answer hangs on: each assumption a fifth higher and lower, and what would let it do with one replica fewer.

The tornado finds, with each assumption changed, the fewest replicas of the same layout that hold: what the cluster would cost if it had
been planned for that. It goes by single runs with the luck that decided the answer (`edge.py`), so that the same search without a change
ends at the answer itself: with the scenario's own seed it may end at fewer replicas, which other seeds refuted. Kernels are changed by
`kernel_time` of all pools and trainers: every kernel takes so many times what is known of it. Prices are changed without a run; with them
goes what the GPUs may cost until a rival wins.

A lever is tried, not guessed at: the run that fails with one replica fewer is changed in one thing and made again.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.core.errors import BadInput
from sim.spec.limits import percentile_limits, worded
from sim.spec.load import loads, plain
from sim.spec.scenario import Scenario
from sim.study.plan.bench import Bench, Draw
from sim.study.plan.edge import Edge
from sim.study.plan.layouts import NODES
from sim.study.plan.traffic import busier, longer, scales
from sim.study.plan.trial import Trial
from sim.study.smallest import least

SWING = 0.2
EASIER = 1.2  # times a limit, as a lever
Row = dict[str, Any]
Sized = tuple[int | None, float | None]  # replicas, dollars per hour


def tornado(
    bench: Bench, place: int, count: int, growth: float, draw: Draw, rivals: Sequence[tuple[int, int]]
) -> list[Row]:  # fmt: skip
    """One row per assumption, the one worth most first: replicas and dollars per hour with it lower and higher, and of the answer as it
    `was`. `draw`: that of the run that decided it. `rivals`: other layouts with replicas that hold; `until`: times the price of the
    answer's GPUs, wherever they are used, at which a rival (`rival`: its name, `rival_usd_per_hour`: its price today) costs no more than
    the answer. None where none does.
    """
    base = bench.scenario(place, count, growth, draw.share)
    was = count, _paid(bench, place, count, bench.known(place, count, growth)[draw])
    rows = []
    for name, change in (("kernel times", slowed), ("traffic", busier), ("lengths", longer)):
        if change is slowed or scales(base, change):
            made = ((change(base, by), f"{name} x {by:g}") for by in (1 - SWING, 1 + SWING))
            low, high = (_resized(bench, place, count, draw, *one) for one in made)
            rows.append(_row(name, (low, was, high)))
    cost = bench.usd(place, count, growth)
    priced = _row("price of the GPUs", ((count, cost),) * 3)
    swing = SWING * _gpus(bench.layouts[place].bill(count)) * cost
    rows.append(priced | {"low_usd_per_hour": cost - swing, "high_usd_per_hour": cost + swing})
    met = [(_parity(bench, (place, count), rival, growth), rival) for rival in rivals]
    until, (other, number) = min(met, default=(math.inf, (place, count)))
    if until < math.inf:
        rows[-1] |= {"until": until, "rival": bench.layouts[other].words, "rival_usd_per_hour": bench.usd(other, number, growth)}
    return sorted(rows, key=lambda row: -_width(row))


def _parity(bench: Bench, mine: tuple[int, int], rival: tuple[int, int], growth: float) -> float:
    """Times their price at which GPUs of the answer make it as dear as a rival, who pays that price too for those that it has of them."""
    own, bill = bench.layouts[mine[0]].bill(mine[1]), bench.layouts[rival[0]].bill(rival[1])
    cost, asked = bench.usd(*mine, growth), bench.usd(*rival, growth)
    rising = _gpus(own) * cost
    with_it = _gpus({kind: usd if kind in own else 0.0 for kind, usd in bill.items()}, sum(bill.values())) * asked
    # Both are lines in the price: a level and what rises with it.
    return ((asked - with_it) - (cost - rising)) / (rising - with_it) if rising > with_it * (1 + 1e-9) else math.inf


def _gpus(bill: Mapping[str, float], whole: float | None = None) -> float:
    """What part of a bill is for GPUs, or of a `whole` one."""
    total = sum(bill.values()) if whole is None else whole
    return sum(usd for kind, usd in bill.items() if kind != NODES) / total if total else 0.0


def slowed(scenario: Scenario, times: float) -> Scenario:
    """The scenario with all kernels of pools and trainers taking so many times as long."""
    cluster = scenario.cluster
    pools = tuple(pool.model_copy(update={"kernel_time": pool.kernel_time * times}) for pool in cluster.pools)
    trainers = tuple(one.model_copy(update={"kernel_time": one.kernel_time * times}) for one in cluster.trainers)
    return scenario.model_copy(update={"cluster": cluster.model_copy(update={"pools": pools, "trainers": trainers})})


def relaxed(bench: Bench, place: int, edge: Edge, growth: float) -> list[Row]:
    """Levers tried on the run that fails with fewer replicas: whether it then holds, and of its tightest limit measured over allowed.
    Nothing where no run is known that fails.
    """
    if edge.fewer is None or edge.failed is None:
        return []
    base, rows = bench.scenario(place, edge.fewer, growth, edge.draw.share), []
    for name, scenario in levers(base, bench.layouts[place].pool):
        one = bench.other(place, edge.fewer, scenario, f"lever: {name}", edge.draw)
        if not one.refused:
            limit, over = one.tightest
            rows.append({"lever": name, "met": one.met, "limit": limit, "over_limit": over, "before": edge.failed.tightest[1]})
    return sorted(rows, key=lambda row: (not row["met"], row["over_limit"]))


def levers(scenario: Scenario, number: int) -> Iterator[tuple[str, Scenario]]:
    """What might relax a limit, as names and scenarios; what cannot be on this hardware is left out."""
    pool, here = scenario.cluster.pools[number], f"cluster.pools.{number}"
    data = {key: value for key, value in plain(scenario).items() if key not in ("plan", "ladder", "curve", "sweep")}
    engine = pool.engine
    changes: list[tuple[str, dict[str, Any]]] = []
    if pool.precision.kv != "fp8":
        changes.append(("KV cache in fp8", {f"{here}.precision.kv": "fp8"}))
    if pool.precision.mlp in ("bf16", "fp16"):
        changes.append(("weights in fp8", {f"{here}.precision.mlp": "fp8", f"{here}.precision.attention": "fp8"}))
    changes += [
        (f"max_num_batched_tokens {size:,}", {f"{here}.engine.max_num_batched_tokens": size})
        for size in (engine.max_num_batched_tokens // 2, engine.max_num_batched_tokens * 2) if size >= engine.max_num_seqs
    ]  # fmt: skip
    changes.append((f"max_num_seqs {engine.max_num_seqs // 2:,}", {f"{here}.engine.max_num_seqs": max(1, engine.max_num_seqs // 2)}))
    if engine.gpu_memory_utilization < 0.95 and pool.shares is None:
        changes.append(("gpu_memory_utilization 0.95", {f"{here}.engine.gpu_memory_utilization": 0.95}))
    for (measure, percentile), limit in percentile_limits(scenario.slo).items():
        name = f"{measure}_p{percentile}"
        changes.append((f"{worded(name)} limit {EASIER - 1:.0%} higher", {f"slo.{name}": limit * EASIER}))
    for name, sets in changes:
        try:
            yield name, loads(data, sets)
        except BadInput:
            continue


def _resized(bench: Bench, place: int, count: int, draw: Draw, changed: Scenario, what: str) -> Sized:
    """The fewest replicas of a layout that hold under a changed scenario, and dollars per hour; None where the most allowed do not."""
    layout = bench.layouts[place]
    counts = [one for one in bench.search.counts if one >= layout.least]

    def run(replicas: int) -> Trial:
        return bench.other(place, replicas, layout.sized(replicas, changed), what, draw)

    rank = least(lambda rank: run(counts[rank - 1]).met, counts.index(count) + 1, len(counts))
    if rank is None:
        return None, None
    found = counts[rank - 1]
    return found, _paid(bench, place, found, run(found))


def _paid(bench: Bench, place: int, count: int, run: Trial) -> float:
    """Dollars per hour of so many replicas; of a pool that is scaled, of all that the run had."""
    layout = bench.layouts[place]
    return layout.hourly(count) if layout.fixed else run.paid(layout.hourly(count))


def _row(name: str, found: Sequence[Sized]) -> Row:
    row: Row = {"name": name, "until": None, "rival": None, "rival_usd_per_hour": None}
    for side, (count, usd) in zip(("low", "was", "high"), found, strict=True):
        row |= {f"{side}_replicas": count, f"{side}_usd_per_hour": usd}
    return row


def _width(row: Row) -> float:
    low, high = row["low_usd_per_hour"], row["high_usd_per_hour"]
    return float("inf") if low is None or high is None else abs(high - low)
