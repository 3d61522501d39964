"""What a run took for granted about each pool: peaks, prices, the least work a step can be, and where every figure comes from.

Metrics (utilisation, money, energy), the audit's roofline and the report's table of assumptions read these; nothing here feeds the clock.
"""
from __future__ import annotations

from typing import Any

from sim.physics.memory import Memory
from sim.physics.step import RooflineStep
from sim.spec.llm import WEIGHT_BYTES
from sim.spec.scenario import Pool


def pool_facts(pool: Pool, model: RooflineStep, memory: Memory) -> dict[str, Any]:
    """One pool's facts, of one replica where not said otherwise. FLOP and bytes are lower bounds: sliding-window layers' attention and the
    vocabulary projection of prompt tokens are left out, so that utilisation is never flattered and the roofline is a floor.
    """
    chip, llm, gpus = model.gpu, model.llm, pool.parallel.gpus
    matrices = [matrix for matrix in llm.matrices if matrix.part not in ("embedding", "lm_head")]
    full_layers = sum(layers for window, layers in llm.kv_groups if window == 0)
    dtype = pool.precision.mlp if pool.precision.mlp in chip.flops else "bf16"
    return {
        "name": pool.name, "model": llm.name, "gpu": chip.name, "gpus": gpus, "replicas": pool.replicas,
        "price_per_hour": pool.price_per_hour if pool.price_per_hour is not None else chip.price_per_hour,
        "tdp": chip.tdp, "idle_watts": chip.idle_watts,
        "peak_flops": max(chip.flops[dtype], chip.flops["bf16"]) * gpus,
        "bandwidth": chip.bandwidth * gpus,
        "weight_bytes": sum(m.count * m.n * m.k * m.experts * _bytes(pool, m.part) for m in matrices),
        "active_weight_floor": sum(m.count * m.n * m.k * m.active * _bytes(pool, m.part) for m in matrices),
        "flops_per_token": sum(2.0 * m.count * m.n * m.k * m.active for m in matrices),
        "flops_per_pair": model.pair_flops * pool.parallel.tp * full_layers,
        "kv_bytes_per_token": model.decode_bytes * pool.parallel.tp * full_layers,
        "kv_blocks": memory.blocks,
        "memory": {"budget": memory.budget, "weights": memory.weights, "activations": memory.activations, "reserve": memory.reserve,
                   "per_block": memory.per_block},
        "provenance": [
            {"name": name, "value": figure.value, "kind": figure.kind, "source": figure.source, "date": figure.date}
            for name, figure in sorted(chip.figures.items())
        ],
        "extrapolated": sorted(model.kernels.assumed),
    }  # fmt: skip


def remarks(pool: Pool, model: RooflineStep, memory: Memory) -> list[str]:
    """What was asked for that the hardware or the model does not give."""
    said = []
    if memory.blocks > memory.room:
        said.append(f"{pool.name}: num_gpu_blocks_override gives {memory.blocks} KV blocks; the memory holds {memory.room}")
    if (pool.engine.max_model_len or 0) > model.llm.max_position:
        said.append(f"{pool.name}: max_model_len {pool.engine.max_model_len} is beyond the {model.llm.max_position} positions of the model")
    return said


def _bytes(pool: Pool, part: str) -> float:
    return WEIGHT_BYTES["bf16" if part == "router" else pool.precision.mlp if part == "mlp" else pool.precision.attention]
