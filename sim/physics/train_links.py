"""What the ranks of a trainer send each other: layers gathered, gradients summed, tokens of a sequence exchanged.

Ranks of tensor parallelism fill a node first, then those that divide a sequence, samples and stages. Of ranks that are `stride` GPUs apart
a node holds so many fewer, while each has its network card to itself. Ulysses (Jacobs et al. 2023) divides a sequence: before attention
queries, keys and values go from tokens to heads by an all-to-all, and back after it. Exposed is what is longer than the arithmetic it runs
beside; that collectives slow down that arithmetic, by the multiprocessors they take, is not counted.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.physics.fabric import Fabric
from sim.physics.kernels import Kernels
from sim.physics.optimizer import travel_seconds
from sim.physics.train_memory import COPY, weights
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.hardware import Gpu, Node
from sim.spec.llm import Llm
from sim.spec.trainer import BYTES, Trainer


def strided(gpu: Gpu, node: Node, kernels: Kernels, stride: int) -> Fabric:
    """The links between ranks that are `stride` GPUs apart."""
    host = replace(node, gpus=max(1, node.gpus // stride), domain=max(1, node.domain // stride))
    return Fabric(gpu, host, kernels.fit, kernels.framework)


class TrainLinks:
    """Seconds of a trainer's collectives outside tensor and expert parallelism, which are the layers' own."""

    def __init__(self, llm: Llm, gpu: Gpu, node: Node, trainer: Trainer, kernels: Kernels):
        self.llm, self.trainer = llm, trainer
        at = trainer.parallel
        dense, experts = weights(llm, trainer)
        self._dense = strided(gpu, node, kernels, at.tp), dense, trainer.shards
        self._experts = strided(gpu, node, kernels, trainer.expert_span), experts, trainer.expert_shards
        self._sequence = strided(gpu, node, kernels, at.tp)
        # Over PCIe what a rank keeps of the weights, and its part of the gradients, each pass.
        shard = dense / trainer.shards + experts / trainer.expert_shards
        away = trainer.offload == "all"
        held = COPY if trainer.optimizer_bytes >= COPY else SIXTEEN_BIT
        self.fetch = travel_seconds(gpu, node, held * shard) if away else 0.0
        self.put = travel_seconds(gpu, node, BYTES[trainer.gradients] * shard) if away else 0.0

    def gather(self) -> float:
        """Seconds to bring the 16-bit weights of a stage together on every rank."""
        return self._over("all_gather", SIXTEEN_BIT)

    def scatter(self) -> float:
        """Seconds to sum the gradients of a stage, each rank keeping its part."""
        return self._over("reduce_scatter", BYTES[self.trainer.gradients])

    def _over(self, op: str, width: float) -> float:
        seconds = 0.0
        for fabric, count, ranks in (self._dense, self._experts):
            if ranks > 1 and count:
                cost = fabric.all_gather(width * count, ranks) if op == "all_gather" else fabric.reduce_scatter(width * count, ranks)
                seconds += cost.seconds
        return seconds

    def exchange(self, tokens: np.ndarray) -> np.ndarray:
        """Seconds of the all-to-alls of one forward pass of a stage, for micro-batches of so many tokens that several GPUs share."""
        at, llm = self.trainer.parallel, self.llm
        if at.cp == 1:
            return np.zeros_like(tokens)
        values = llm.v_head_dim or llm.head_dim
        width = (llm.heads * (llm.head_dim + values) + llm.kv_heads * (llm.head_dim + values)) / at.tp
        layers = max(len(some) for some in llm.stages(at.pp))
        size = SIXTEEN_BIT * tokens / at.cp * width
        # Two calls a layer: there and back; bytes are those of both.
        return np.asarray(layers * 2 * self._sequence.all_to_all(size / 2, at.cp).seconds)
