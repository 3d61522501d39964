"""What it takes to bring new weights from a trainer to engines, message by message: the steps that every way of doing it is made of.

    broadcast   bytes / (e BW) + calls x alpha log2(nodes + 1)      every receiver gets every byte; in a ring their number hardly matters
    pipelined   (s_1 + .. + s_k) / m + (1 - 1/m) max(s)             k stages of seconds s, in m pieces, each with a buffer of its own

e and alpha are those of `sim.physics.fabric` (NVLink and network) and `sim.physics.optimizer` (PCIe). A broadcast enters a node through as
many network cards as the group has GPUs there, and never runs faster than the NVLink that passes it on.

What a tensor costs beside its bytes is time of a host, and where there are tens of thousands of them it rules. With 75 us for each tensor
that an engine loads, the only figure here that is fitted, six broadcasts of 0.2 to 1.0 TB come out as the README of checkpoint-engine has
them (`sim/policy/sync/checkpoint_engine.py`). The other figures are judgements, or from one published time each, as said beside them; none
is known better than within a factor of two.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from sim.core.errors import BadInput
from sim.physics.fabric import NETWORK, SWITCH
from sim.physics.optimizer import PCIE_REACHED
from sim.physics.trainer import TrainStep
from sim.spec.layout import Precision
from sim.spec.llm import Llm

START = 0.5  # s to stop engines at a step and agree that a sync begins (judgement)
LISTED = 10e-6  # s a tensor, names and shapes made known to all (checkpoint-engine: 0.12 to 1.33 s in all)
# s a tensor, found by its name and copied into the engine's layout: least squares say 71 us if the published times of checkpoint-engine
# hold the metadata, and 81 us if they do not.
LOAD = 75e-6
GATHERED = 200e-6  # s a tensor, brought together by a call of its own in the trainer (judgement: a few calls of PyTorch and one collective)
CALL = 2e-3  # s a message, a remote call to all engines and their answer (judgement)
POST = 25e-6  # s a tensor, read through RDMA (so that Kimi-K2, 140,000 tensors, takes SGLang's 7.2 s on replicas of 16 GPUs)
HANDOVER = 100e9  # bytes/s from a trainer to relays beside it (Laminar, second-hand: 0.64 s at 32B, 1.40 s at 72B)
NVLINK_REACHED, NETWORK_REACHED, HOST_REACHED, LATENCY = SWITCH["e3"], NETWORK["efficiency"], PCIE_REACHED, NETWORK["alpha"]

# Matrices as engines fuse them, and how many tensors a checkpoint has for each.
FUSED = {"qkv": 3, "qkv_down": 2, "gate_up": 2, "experts.gate_up": 2, "shared.gate_up": 2}
SIXTEEN = ("bf16", "fp16")


def tensors(llm: Llm, precision: Precision | None = None) -> int:
    """Named tensors of a checkpoint: each matrix of each layer and expert, not fused, two norms a layer (four with MLA), the biases.

    In a `precision` of fewer than 16 bits each matrix has its scales in a tensor of their own. Norms of queries and keys are not known to
    the architecture and left out, as are experts that a few models keep in one tensor.

    >>> from sim.spec.llm import llm
    >>> tensors(llm("qwen2.5-7b")), tensors(llm("qwen3-235b-a22b"))
    (339, 36757)
    """
    bias = 3 * llm.layers if llm.qkv_bias and llm.attention == "gqa" else 0
    norms = (4 if llm.attention == "mla" else 2) * llm.layers + 1
    whole = sum(FUSED.get(m.name, 1) * m.count * m.experts for m in llm.matrices)
    scaled = [(m, layers) for m, dtype, layers in llm.linear(precision) if dtype not in SIXTEEN] if precision is not None else []
    return whole + sum(FUSED.get(m.name, 1) * layers * m.experts for m, layers in scaled) + norms + bias


def pipelined(stages: Sequence[float], pieces: int) -> float:
    """Seconds until the last of so many equal pieces has gone through stages that each take so many seconds for all of them.

    >>> pipelined([2.0, 4.0], 1), pipelined([2.0, 4.0], 4)
    (6.0, 4.5)
    """
    return sum(stages) / pieces + (1.0 - 1.0 / pieces) * max(stages)


def hops(nodes: int, calls: int = 1) -> float:
    """Seconds of latency of so many collectives in a row over so many nodes."""
    return calls * LATENCY * math.log2(nodes + 1.0)


def gather_seconds(step: TrainStep) -> float:
    """Seconds for a trainer to bring its weights together, tensor by tensor: nothing where one GPU has them all.

    FSDP gathers what ranks keep. Megatron gathers over tp and ep, and over pp, one pass of all bytes each, in a node or over the network.
    """
    trainer, at = step.trainer, step.trainer.parallel
    if trainer.backend == "fsdp":
        moving = step.gather_seconds()
        divided = trainer.shards > 1 or trainer.expert_span > 1
    else:
        spans = [trainer.expert_span] * (trainer.expert_span > 1) + [trainer.gpus] * (at.pp > 1)
        moving = sum(step.weight_bytes() / _within(step, span) for span in spans)
        divided = bool(spans)
    return moving + tensors(step.llm) * GATHERED if divided else 0.0


def _within(step: TrainStep, span: int) -> float:
    """Bytes/s at which each of so many neighbouring GPUs receives what all of them have. Raises BadInput where no network joins them."""
    gpu, node = step.gpu, step.node
    nvlink = gpu.nvlink > 0 and min(span, node.gpus) <= node.domain
    near = NVLINK_REACHED * gpu.nvlink if nvlink else HOST_REACHED * gpu.pcie
    if span <= max(node.gpus, node.domain if nvlink else 1):
        return near
    if not node.nic_bandwidth:
        raise BadInput(f"{node.name} has no network cards: its GPUs cannot work with those of another node")
    return min(near, NETWORK_REACHED * node.nic_bandwidth * node.gpus)
