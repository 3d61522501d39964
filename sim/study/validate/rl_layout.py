"""How engines and trainer of a published run are laid over its GPUs, where its page does not say: the first layout that fits, by one rule.

Engines have the fewest GPUs on which the 16-bit weights take at most WEIGHTS of the memory; more than one host's are as many attention
groups over which experts are spread, since matrices are divided within a host. A trainer is FSDP if the model is dense, with the fewest
GPUs to a sample that a micro-batch of the longest one fits, and else Megatron, with experts over a host and the fewest stages.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from sim.core.errors import BadInput
from sim.physics.train_memory import fit
from sim.spec.hardware import Gpu, node
from sim.spec.llm import Llm
from sim.spec.trainer import Trainer

WEIGHTS, MOST_WEIGHTS = 0.4, 0.7
SIXTEEN_BIT = 2
SLACK = 0.95
# Seconds of each optimizer step beside its kernels. prime-rl leaves 3.2 s, verl's 7B updates 62 s of 16 steps (physics/trainer.py).
OVERHEAD = 3.5


def engine_gpus(model: Llm, gpu: Gpu, gpus: int) -> int:
    """GPUs of a replica where `gpus` generate: a power of two; fewer where those are no whole number of replicas, if weights take at most
    MOST_WEIGHTS then. Raises BadInput when no number will do.
    """
    wanted = SIXTEEN_BIT * model.params / gpu.memory
    size = 1
    while wanted / size > WEIGHTS:
        size *= 2
    while gpus % size and wanted / (size // 2 or 1) <= MOST_WEIGHTS and size > 1:
        size //= 2
    if gpus % size:
        raise BadInput(f"{gpus} GPUs that generate are no whole number of engines of {size} {gpu.name}, which {model.name} needs")
    return size


def parallel(size: int, model: Llm, gpu: Gpu) -> dict[str, int]:
    """The layout of a replica of so many GPUs, as a scenario has it."""
    host = node(gpu.node).domain
    if size <= host:
        return {"tp": size}
    return {"tp": host, "dp": size // host, "ep": size} if model.moe_layers else {"tp": host, "pp": size // host}


def trainer(model: Llm, gpu: Gpu, gpus: int, longest: int, cp: int = 0) -> dict[str, Any]:
    """Keys of a trainer of so many GPUs that samples of `longest` tokens fit on; `cp`: what is known of its layout, 0: nothing.

    Raises BadInput when none fits.
    """
    for keys in _candidates(model, gpus, longest, cp):
        try:
            spec = Trainer(gpu=gpu.name, gpus=gpus, overhead=OVERHEAD, **keys)
        except ValidationError:  # it does not divide
            continue
        found = fit(model, gpu, spec, longest)
        if found.needed < SLACK * found.budget:
            return {**keys, "overhead": OVERHEAD}
    raise BadInput(f"no layout known to this command trains {model.name} on {gpus} {gpu.name} with samples of {longest:,} tokens")


def _candidates(model: Llm, gpus: int, longest: int, cp: int) -> Iterator[dict[str, Any]]:
    """Layouts in order of preference. A micro-batch holds one of the longest samples at least."""
    sizes = [cp] if cp else [1, 2, 4, 8]
    if model.moe_layers:
        micro = {"micro_batch": max(longest, 4096)}
        for offload, stages in itertools.product(("none", "optimizer"), (1, 2, 4, 8, 16)):
            for context, spread in itertools.product(sizes, (8, 16, 32, 64)):
                if model.layers >= stages and model.n_experts % spread == 0:
                    at = {"cp": context, "pp": stages, "ep": spread}
                    yield {"backend": "megatron", "parallel": at, "offload": offload, **micro}
        return
    micro = {"micro_batch": max(longest, 16_384)}
    for offload in ("none", "optimizer"):
        for context in sizes:
            yield {"backend": "fsdp", "parallel": {"cp": context}, "offload": offload, **micro}
