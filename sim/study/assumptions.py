"""What a run took for granted about each pool: peaks, prices, the least work a step can be, and where every figure comes from.

Metrics (utilisation, money, energy), the audit's roofline and the report's table of assumptions read these; nothing here feeds the clock.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sim.physics.memory import Memory
from sim.physics.power import clock
from sim.physics.routing import reached
from sim.physics.step import EngineStep
from sim.physics.trainer import TrainStep
from sim.spec.dtype import DTYPES
from sim.spec.fit import Fit
from sim.spec.hardware import node
from sim.spec.lending import lenders
from sim.spec.power import grid
from sim.spec.prices import Terms, book, terms
from sim.spec.profile import Figure
from sim.spec.sandboxes import node_price
from sim.spec.scaling import ColdStart
from sim.spec.scenario import Pool, Scenario
from sim.spec.training import home
from sim.spec.transformer import Matrix

GUESSED = "one value for all models, chosen so that a whole start takes as long as reports of starts say"


def pool_facts(pool: Pool, model: EngineStep, memory: Memory, longest: int, scenario: Scenario | None = None) -> dict[str, Any]:
    """One pool's facts, of one replica where not said otherwise; `longest` is the longest request's tokens.

    FLOP and bytes are lower bounds: sliding-window layers' attention and the vocabulary projection of prompt tokens are left out, so that
    utilisation is never flattered and the roofline is a floor.
    """
    host, paid = node(pool.node or model.gpu.node), _paid(pool, model, scenario)
    chip, llm, gpus, kv = model.gpu, model.llm, pool.parallel.gpus, pool.precision.kv
    linear = [(m, dtype, count) for m, dtype, count in llm.linear(pool.precision) if m.part != "lm_head"]
    full_layers = sum(layers for window, layers in llm.kv_groups if window == 0)
    return {
        "name": pool.name, "model": llm.name, "gpu": chip.name, "gpus": gpus, "replicas": pool.replicas,
        "price_per_hour": paid.price, "beyond_price_per_hour": paid.beyond, "reserved": paid.reserved, "commitment": paid.kind,
        "lender": pool.shares.pool if pool.shares is not None else None,
        "tdp": chip.tdp, "idle_watts": chip.idle_watts, "power_cap": pool.power_cap or chip.tdp, "clock": clock(chip, pool.power_cap),
        "host_watts": host.overhead_watts / host.gpus,
        "peak_flops": max([chip.flops["bf16"], *(chip.peak(DTYPES[dtype].peak) for _, dtype, _ in linear)]) * gpus,
        "bandwidth": chip.bandwidth * gpus,
        "weight_bytes": sum(count * m.n * m.k * m.experts * DTYPES[dtype].weight for m, dtype, count in linear),
        "experts_read": _experts_read(pool, linear),
        "active_weight_floor": sum(count * m.n * m.k * m.active * DTYPES[dtype].weight for m, dtype, count in linear),
        "flops_per_token": sum(2.0 * count * m.n * m.k * m.active for m, _, count in linear),
        "flops_per_pair": llm.flops_per_pair() * full_layers,
        "kv_bytes_per_token": llm.kv_bytes_per_layer(kv, pool.parallel.tp) * pool.parallel.tp * full_layers,
        "kv_blocks": memory.blocks,
        "memory": {"budget": memory.budget, "weights": memory.weights, "activations": memory.activations, "reserve": memory.reserve,
                   "per_block": memory.per_block},
        "provenance": [
            _line(name, figure)
            for name, figure in [*sorted(chip.figures.items()), *paid.figures, *_grid(pool, scenario)]
            if name != "price_per_hour" or paid.kind == "profile"
        ] + [_kernel(fit) for fit in model.used],
        "extrapolated": sorted(model.assumed(longest)),
    }  # fmt: skip


def _experts_read(pool: Pool, linear: list[tuple[Matrix, str, int]]) -> dict[str, list[float]] | None:
    """Bytes of routed experts that a step reads, at numbers of its tokens between which it is nearly linear; None without such experts."""
    routed = [(m, dtype, count) for m, dtype, count in linear if m.experts > 1]
    if not routed:
        return None
    tokens = np.unique(np.round(np.geomspace(1, 65_536, 200)))
    skew, read = pool.engine.expert_skew, np.zeros(len(tokens))
    for m, dtype, count in routed:
        read += count * m.n * m.k * DTYPES[dtype].weight * reached(m.experts, m.active, tokens, skew)
    return {"tokens": tokens.tolist(), "bytes": read.tolist()}


def _paid(pool: Pool, model: EngineStep, scenario: Scenario | None) -> Terms:
    owner = lenders(scenario.cluster).get(pool.name) if scenario else None
    paid = terms(scenario.prices if scenario else None, owner or pool, model.gpu.name, model.gpu.price_per_hour)
    return paid if owner is None else paid._replace(reserved=0)


def _grid(pool: Pool, scenario: Scenario | None) -> list[tuple[str, Figure]]:
    """The mean of the grid that feeds a pool, if there is one, as a line of provenance."""
    if scenario is None or scenario.carbon is None:
        return []
    found = grid(scenario.carbon.of(pool.name, pool.region))  # type: ignore[arg-type]
    return [("grid", replace(found.figure, value=sum(found.hours) / len(found.hours)))]


def site(scenario: Scenario) -> dict[str, Any]:
    """Facts of the site: `other_prices` of the price book, of each pool the grid that feeds it, and `provenance`: by what it is of, where
    the figures of the network and of starts come from that the scenario does not give itself. Empty where there are none.
    """
    network, begun = scenario.cluster.network, {pool.name: starts(pool.start) for pool in scenario.cluster.pools if pool.start is not None}
    several = len(begun) > 1
    others = {"the network": network.figures()} if network is not None else {}
    others |= {f"starts of {name}" if several else "starts": found for name, found in begun.items()}
    others |= {f"nodes of {pool.name}": pool.node.figures() | node_price(scenario, pool)[1] for pool in scenario.cluster.sandboxes}
    cluster = scenario.cluster
    fed = {one.name: one for one in cluster.pools} | {one.name: home(cluster, one) or one for one in cluster.trainers}
    by = scenario.carbon
    grids = {name: grid(by.of(one.name, one.region)) for name, one in fed.items()} if by else {}  # type: ignore[arg-type]
    return {
        "other_prices": book(scenario.prices.book).others if scenario.prices else {},
        "grids": {name: {"grid": one.name, "hours": list(one.hours), "kind": one.figure.kind, "source": one.figure.source}
                  for name, one in grids.items()},
        "provenance": {of: [_line(name, figure) for name, figure in found.items()] for of, found in others.items() if found},
    }  # fmt: skip


def sandboxes(scenario: Scenario, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each pool of sandboxes what was `found` in the run, and the price of a node-hour in dollars, None where nobody says."""
    return [one | {"price_per_hour": node_price(scenario, pool)[0]} for one, pool in zip(found, scenario.cluster.sandboxes, strict=True)]


def trainers(scenario: Scenario, models: list[TrainStep]) -> list[dict[str, Any]]:
    """Facts of each trainer: bytes on its fullest GPU, FLOP/s of all its GPUs, watts of one; what is not known from measurements."""
    found: list[dict[str, Any]] = []
    for spec, model in zip(scenario.cluster.trainers, models, strict=True):
        chip, host = model.gpu, model.node
        bought = home(scenario.cluster, spec) or Pool(name=spec.name, gpu=spec.gpu, price_per_hour=spec.price_per_hour)
        paid = terms(scenario.prices, bought, chip.name, chip.price_per_hour)
        found.append({
            "name": spec.name, "model": model.llm.name, "gpu": chip.name, "gpus": spec.gpus, "backend": spec.backend, "dp": spec.dp,
            "shares": spec.shares, "price_per_hour": paid.price,
            "tdp": chip.tdp, "idle_watts": chip.idle_watts, "host_watts": host.overhead_watts / host.gpus,
            "peak_flops": model.peak, "memory": model.memory._asdict(), "extrapolated": sorted(model.assumed),
            "provenance": [
                _line(name, figure) for name, figure in [*sorted(chip.figures.items()), *paid.figures]
                if name != "price_per_hour" or paid.kind == "profile"
            ] + [_kernel(fit) for fit in model.passes.layers.kernels.used],
        })  # fmt: skip
    return found


def unpriced(scenario: Scenario) -> list[str]:
    """Remarks on pools of sandboxes whose nodes have no price."""
    asked = "say price_per_hour, in dollars per node, or name a price book, or no sum of money is known"
    return [f"sandboxes {pool.name}: their nodes have no price; {asked}" for pool in scenario.cluster.sandboxes
            if node_price(scenario, pool)[0] is None]  # fmt: skip


def starts(start: ColdStart) -> dict[str, Figure]:
    """What of a cold start is left to its defaults, by name; seconds, bytes, bytes/s.

    >>> {name: figure.value for name, figure in starts(ColdStart(init="30s", weights={"store": "models"})).items()}
    {'capture_seconds': 15.0, 'image_size': 12000000000.0, 'image_bandwidth': 1000000000.0}
    """
    # By value, for a scenario that was saved says everything.
    usual, left = ColdStart(), {}
    for name, time, default in (("init", start.init, usual.init), ("capture", start.capture, usual.capture)):
        if time == default and time.median:
            left[f"{name}_seconds"] = time.median
    if start.image.time is None and start.image.size == usual.image.size:
        left["image_size"] = start.image.size
    for name, one in (("image", start.image), ("weights", start.weights)):
        if one.time is None and one.store is None and one.bandwidth is None:
            left[f"{name}_bandwidth"] = one.speed
    return {name: Figure(value, "judgement", GUESSED, "2026-11") for name, value in left.items()}


def _line(name: str, figure: Figure) -> dict[str, Any]:
    """A figure as a line of provenance."""
    return {"name": name, "value": figure.value, "kind": figure.kind, "source": figure.source, "date": figure.date}


def _kernel(fit: Fit) -> dict[str, Any]:
    """A fit as a line of provenance; its value is the median error on points it has not seen, None where it is not known."""
    name = ".".join(filter(None, ("kernel", fit.op, fit.dtype)))
    source = f"{fit.library}, {fit.source}" if fit.library else fit.source
    return {"name": name, "value": fit.errors.median if fit.errors else None, "kind": fit.kind, "source": source, "date": ""}


def remarks(pool: Pool, model: EngineStep, memory: Memory) -> list[str]:
    """What was asked for that the hardware or the model does not give."""
    said = []
    if memory.blocks > memory.room:
        said.append(f"{pool.name}: num_gpu_blocks_override gives {memory.blocks} KV blocks; the memory holds {memory.room}")
    if (pool.engine.max_model_len or 0) > model.llm.max_position:
        said.append(f"{pool.name}: max_model_len {pool.engine.max_model_len} is beyond the {model.llm.max_position} positions of the model")
    return said
