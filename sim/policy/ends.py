"""Who sends weights and who receives them, from a trainer and a pool as the scenario describes them.

Links are those of the slower end. What engines keep follows from the pool's precision, as do the tensors that hold scales.
"""
from __future__ import annotations

import math

from sim.physics import weight_sync as physics
from sim.physics.trainer import TrainStep
from sim.policy.sync.base import Ends
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.hardware import gpu, node
from sim.spec.llm import Llm
from sim.spec.scenario import Pool


def registered(llm: Llm, pool: Pool) -> Ends:
    """Weights that lie in the memory of the engines' own hosts, an equal part beside each GPU: there is no trainer, nothing to gather."""
    its_gpu = gpu(pool.gpu)
    its_node = node(pool.node or its_gpu.node)
    gpus = pool.parallel.gpus
    nodes = math.ceil(pool.replicas * gpus / its_node.gpus)
    return Ends(
        SIXTEEN_BIT * llm.params, llm.weight_bytes(pool.precision), physics.tensors(llm, pool.precision), 0.0, pool.replicas * gpus, nodes,
        pool.replicas, gpus, nodes, its_node.nic_bandwidth, its_gpu.pcie, its_gpu.nvlink, True,
    )  # fmt: skip


def ends(step: TrainStep, pool: Pool, replicas: int, colocated: bool = False) -> Ends:
    """From a trainer to so many replicas of a pool. `colocated`: they share their GPUs; else both are on one node where they fit on it."""
    there = registered(step.llm, pool.model_copy(update={"replicas": replicas}))
    senders, host = step.trainer.gpus, step.node
    together = not colocated and pool.gpu == step.trainer.gpu and senders + there.receivers <= host.gpus
    return there._replace(
        weights=step.weight_bytes(), gather=physics.gather_seconds(step), senders=senders, sender_nodes=math.ceil(senders / host.gpus),
        nic=min(there.nic, host.nic_bandwidth), pcie=min(there.pcie, step.gpu.pcie), nvlink=min(there.nvlink, step.gpu.nvlink),
        colocated=colocated, same_node=together,
    )  # fmt: skip
