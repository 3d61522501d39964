"""The passes of a trainer over micro-batches, part by part, all micro-batches of all ranks at once.

What depends on the number of tokens alone is tabulated, as for engines; attention is that of prompts, sample by sample. Seconds are those
of the slowest stage of a pipeline.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.physics.attention_prefill import Piece
from sim.physics.attention_prefill import total as together
from sim.physics.base import Cost
from sim.physics.curve import total
from sim.physics.elementwise import elementwise, gated_activation, norm
from sim.physics.gemm import gemm_table
from sim.physics.layers import Layers
from sim.physics.train_links import TrainLinks
from sim.physics.train_memory import stand_in
from sim.spec.dtype import DTYPES
from sim.spec.hardware import Gpu, Node
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import Llm
from sim.spec.scenario import Pool
from sim.spec.trainer import Trainer

BACKWARD, BACKWARD_ATTENTION = 2.0, 2.5
LOSS_BYTES = 10.0  # of a logit: read in 16 bits, written and read in 32
KNOTS = 96

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Passes(NamedTuple):
    """Seconds of each micro-batch, [rank, micro-batch]."""

    forward: Any
    backward: Any
    recompute: Any
    network: Any
    launch: Any

    @property
    def seconds(self) -> Floats:
        return np.asarray(sum(self))


class TrainPass:
    """`trainer` on `gpu`s in `node`s: the kernels and links of one of its GPUs. Raises BadInput when the layout does not suit the model."""

    def __init__(self, llm: Llm, gpu: Gpu, node: Node, trainer: Trainer, where: str = ""):
        self.llm, self.trainer = llm, trainer
        at, plain = trainer.parallel, stand_in(trainer)
        self._precision = Precision.model_validate({"attention": trainer.precision, "mlp": trainer.precision})
        llm.check(self._precision, plain, where)
        llm.check(self._precision, Parallel(tp=at.tp * at.cp), where)
        self.layers = Layers(llm, gpu, self._pool(plain))
        self._gpu = self.layers.gpu
        # Attention is over whole samples, its heads divided by those who share a sequence.
        self._attention = Layers(llm, gpu, self._pool(Parallel(tp=at.tp * at.cp, pp=at.pp))).attention()
        self.links = TrainLinks(llm, self._gpu, node, trainer, self.layers.kernels)
        self.gather, self.scatter = self.links.gather(), self.links.scatter()
        stages = list(map(len, llm.stages(at.pp)))
        # The last stage has the head, and the fewest layers.
        self._lighter = 1.0 - stages[-1] / max(stages)
        self._knots = knots = np.unique(np.geomspace(1, max(trainer.micro_batch, 2), KNOTS).round())
        linear = self.layers.linear(knots)
        self._linear = np.asarray(linear.seconds) - linear.network
        self._outside = np.broadcast_to(linear.network + self.links.exchange(knots * at.cp), knots.shape)
        self._head, self._small = np.asarray(self._logits(knots).seconds), np.asarray(self._cheap(knots).seconds)
        self._launches = self.layers.launches()

    def of(self, micro: Sequence[Sequence[Sequence[int]]], trains: bool) -> Passes:
        """Passes over micro-batches of samples of so many tokens, by rank; all ranks have equally many. `trains`: not only forward."""
        trainer = self.trainer
        tokens = np.array([[sum(one) for one in mine] for mine in micro], float) / trainer.parallel.cp
        there = tokens > 0
        attention = np.array([[self._attend(one) if one else 0.0 for one in mine] for mine in micro])
        plain, head = self._at(self._linear, tokens), self._at(self._head, tokens)
        head = np.maximum(head - self._lighter * (plain + attention), 0.0)
        network, again, backward, rounds = self._at(self._outside, tokens), np.zeros_like(tokens), np.zeros_like(tokens), 1
        if trains:
            full = trainer.recompute == "full"
            again = plain + attention if full else self._at(self._small, tokens) if trainer.recompute == "selective" else again
            backward = BACKWARD * (plain + head) + BACKWARD_ATTENTION * attention
            rounds = 3 if full else 2
        found = Passes(plain + attention + head, backward, again, rounds * network, np.zeros_like(tokens))
        # Going back launches twice the kernels of going forth.
        ahead = self._launches * (1.0 if not trains else 1.0 + BACKWARD + (trainer.recompute == "full"))
        found = found._replace(launch=np.maximum(ahead - found.seconds, 0.0))
        if trainer.backend == "fsdp":
            found = found._replace(network=found.network + self._shown(found, trains))
        return Passes(*(part * there for part in found))

    # -- parts ------------------------------------------------------------
    def _pool(self, parallel: Parallel) -> Pool:
        said = {"name": self.trainer.name, "gpu": self.trainer.gpu, "node": self.trainer.node, "kernel_time": self.trainer.kernel_time}
        return Pool(**said, parallel=parallel, precision=self._precision)

    def _at(self, values: Floats, tokens: Floats) -> Floats:
        """A table at so many tokens; beyond the last knot its last piece goes on."""
        knots = self._knots
        slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
        found: Floats = np.interp(tokens, knots, values) + slope * np.maximum(tokens - knots[-1], 0.0)
        return found

    def _shown(self, found: Passes, trains: bool) -> Floats:
        """What of FSDP's collectives, and of what comes over PCIe, shows. The first layer is gathered before anything can run beside it."""
        gather = max(self.gather, self.links.fetch)
        idle = found.launch / (3.0 if trains else 1.0)
        shown = gather / self.llm.layers + np.maximum(gather - found.forward - idle, 0.0)
        if trains:
            coming = gather if self.trainer.reshard else 0.0
            beside = found.backward + found.recompute + 2.0 * idle
            shown = shown + np.maximum(coming + max(self.scatter, self.links.put) - beside, 0.0)
        return np.asarray(shown)

    def _attend(self, lengths: Sequence[int]) -> float:
        """Seconds of attention of a stage over these samples."""
        seconds = 0.0
        for attention, layers in self._attention:
            pieces: list[Piece] = [attention.chunks.work(((n, 0),)) for n in lengths]
            seconds += layers * attention.chunks.seconds(together(pieces))
        return seconds

    def _logits(self, tokens: Floats) -> Cost:
        """The vocabulary projection and the loss of so many tokens."""
        kernels, tp = self.layers.kernels, self.trainer.parallel.tp
        fit = kernels.need("gemm", "bf16")
        product = gemm_table(self._gpu, fit.parameters, DTYPES["bf16"], tokens, math.ceil(self.llm.vocab / tp), self.llm.hidden)
        small = kernels.fit("norm") or kernels.need("elementwise")
        loss = elementwise(self._gpu, small, LOSS_BYTES * tokens * self.llm.vocab / tp, 2)
        return total([(1, product), (1, loss)])

    def _cheap(self, tokens: Floats) -> Cost:
        """The norms and the activation of a stage, which selective recomputation runs again."""
        llm, kernels, tp = self.llm, self.layers.kernels, self.trainer.parallel.tp
        every = kernels.need("elementwise") if kernels.fit("norm") is None else None
        norms = norm(self._gpu, every or kernels.need("norm"), tokens, llm.hidden)
        activation = gated_activation(self._gpu, every or kernels.need("activation"), tokens, llm.inner / tp)
        layers = llm.layers * self.layers.stage
        return total([(2 * layers, norms), (layers, activation)])
