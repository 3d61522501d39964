"""How long a trainer takes over an update, or over the log-probabilities of samples, and where the time goes.

A forward pass is priced by the kernels that prompts run on (`sim.physics.layers`, flash attention over whole samples), with the tensor- and
expert-parallel collectives in it. From it follows the rest:

    backward   2 x matrices and small kernels, 2.5 x attention (five products in place of two: Dao 2023), the same collectives
    recompute  full: a forward pass again; selective: norms and activation again
    network    what of FSDP's gathers and sums, layer by layer, takes longer than the arithmetic beside it
    launch     what the host needs to launch the kernels of a micro-batch beyond the GPU's time, as training runs without graphs

A step is paced by its slowest rank: after every micro-batch with FSDP, whose collectives bind all ranks, else at its end. A pipeline adds
its bubble, the optimizer its pass over memory. FLOP are those of the model: 6 per weight and token and 12 heads x dim per pair of query and
key that counts; `flops_full` counts both halves of the causal square. What is recomputed never counts.

Against published runs, nothing fitted: GPT-3 175B by Megatron-LM on 96 and 4,608 H100 has an MFU of 47 and 42 %; it comes to 51 and 44
(whole square, layout assumed). Trainers of RL reach less, by what no kernel explains. prime-rl says 13.9 and 35.4 % for 4B on 8 H100 with
samples of 16k and 64k tokens; with one sample per GPU and step it comes to 46 and 45, counted causally, so that both of its steps are 3.2 s
longer. verl's 7B updates on 32 and 128 H20 take 270 and 114 s, as would 208 / (n / 32) + 62; with 2,150 tokens a sample, which is assumed,
they come to 280 and 73. `overhead` states such a time; left out it is 0, as nothing known here tells it beforehand.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.physics import packing
from sim.physics.gemm import peak
from sim.physics.optimizer import step_seconds, travel_seconds
from sim.physics.pipeline import bubble
from sim.physics.train_memory import TrainMemory, check, states, states_width, weights
from sim.physics.train_pass import Passes, TrainPass
from sim.spec.dtype import DTYPES
from sim.spec.hardware import Gpu, Node, gpu, node
from sim.spec.llm import Llm
from sim.spec.trainer import BYTES, Trainer


class Parts(NamedTuple):
    """Seconds of a step, which sum to it: those of the mean rank, and what the others wait for."""

    forward: float = 0.0
    backward: float = 0.0
    recompute: float = 0.0
    network: float = 0.0
    launch: float = 0.0
    imbalance: float = 0.0
    bubble: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    offload: float = 0.0
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self)

    def plus(self, other: Parts) -> Parts:
        return Parts(*(a + b for a, b in zip(self, other, strict=True)))


class TrainCost(NamedTuple):
    """What a pass over samples took: seconds by `parts`; FLOP of the model with causal attention, and with all of the square; what the GPUs
    computed, recomputation included; tokens and samples counted once for each epoch; micro-batches of each rank.
    """

    parts: Parts
    flops: float
    flops_full: float
    computed: float
    tokens: int
    samples: int
    micro_batches: int

    @property
    def seconds(self) -> float:
        return self.parts.seconds

    def plus(self, other: TrainCost) -> TrainCost:
        return TrainCost(
            self.parts.plus(other.parts), self.flops + other.flops, self.flops_full + other.flops_full, self.computed + other.computed,
            self.tokens + other.tokens, self.samples + other.samples, self.micro_batches + other.micro_batches,
        )  # fmt: skip


NO_COST = TrainCost(Parts(), 0.0, 0.0, 0.0, 0, 0, 0)


class TrainStep:
    """A trainer bound to its model and hardware. `where`: the key of the scenario that speaks of it.

    Raises BadInput when the layout does not suit the model, or when a micro-batch does not fit into memory.
    """

    def __init__(self, llm: Llm, trainer: Trainer, where: str = ""):
        self.llm, self.trainer = llm, trainer
        self.gpu: Gpu = gpu(trainer.gpu)
        self.node: Node = node(trainer.node or self.gpu.node)
        self.passes = TrainPass(llm, self.gpu, self.node, trainer, where)
        self.memory: TrainMemory = check(llm, self.gpu, self.node, trainer, where)
        self._longest, self._where = trainer.micro_batch, where

    @property
    def peak(self) -> float:
        """FLOP/s of all its GPUs in the format that matrices are multiplied in."""
        return peak(self.gpu, DTYPES[self.trainer.precision]) * self.trainer.gpus

    @property
    def assumed(self) -> set[str]:
        """What is priced without a measurement of its own."""
        return self.passes.layers.assumed(self.trainer.micro_batch, self.trainer.micro_batch)

    # -- passes -----------------------------------------------------------
    def update(self, lengths: Sequence[int], epochs: int = 1, mini_batches: int = 1) -> TrainCost:
        """Train on samples of so many tokens each, `epochs` times; every time in `mini_batches` parts, each with a step of the optimizer.

        Ranks that get no sample wait. Raises BadInput when a sample does not fit into memory.
        """
        once = NO_COST
        for part in np.array_split(np.asarray(lengths, dtype="i8"), mini_batches):
            if len(part):
                once = once.plus(self.accumulate(part.tolist())).plus(self.finish())
        cost = once
        for _ in range(epochs - 1):
            cost = cost.plus(once)
        return cost

    def accumulate(self, lengths: Sequence[int]) -> TrainCost:
        """Forward and backward passes over some samples of a mini-batch, whose gradients are kept: where samples are trained on as they
        come, `finish` ends the mini-batch. Raises BadInput as `update` does.
        """
        return self._pass(list(lengths), True)

    def finish(self) -> TrainCost:
        """What ends a mini-batch: the step of the optimizer. Gradients are summed with the passes that they come from."""
        trainer = self.trainer
        if trainer.mfu is not None:
            return NO_COST._replace(parts=Parts(overhead=trainer.overhead))
        dense, experts = weights(self.llm, trainer)
        shard = dense / trainer.shards + experts / trainer.expert_shards
        step = step_seconds(self.gpu, shard, BYTES[trainer.gradients], trainer.optimizer_bytes)
        away = 0.0 if trainer.offload == "none" else 2.0 * travel_seconds(self.gpu, self.node, states_width(trainer) * shard)
        return NO_COST._replace(parts=Parts(optimizer=step, offload=away, overhead=trainer.overhead))

    def logprob(self, lengths: Sequence[int]) -> TrainCost:
        """Log-probabilities of the tokens of these samples: a forward pass, of the policy or of a reference of the same size."""
        cost = self._pass(list(lengths), False)
        return cost._replace(parts=cost.parts._replace(overhead=self.trainer.overhead))

    def switch_seconds(self, weights: bool = True, optimizer: bool = True) -> float:
        """Seconds to bring weights and optimizer states of a trainer that shares its GPUs from the host's memory into them, or back."""
        held = states(self.llm, self.trainer)
        return travel_seconds(self.gpu, self.node, held.weights * weights + held.optimizer * optimizer)

    def gather_seconds(self) -> float:
        """Seconds to bring the 16-bit weights together on every rank, before they are published; 0 where they are whole."""
        return self.passes.gather if self.trainer.backend == "fsdp" else 0.0

    def checkpoint_bytes(self) -> float:
        """Bytes of a checkpoint: 16-bit weights and the optimizer's states, of all GPUs together."""
        return self.llm.params * (2.0 + self.trainer.optimizer_bytes)

    def weight_bytes(self) -> float:
        """Bytes of the 16-bit weights, as they are published to engines."""
        return 2.0 * self.llm.params

    def checkpoint_seconds(self) -> float:
        """Seconds to copy a checkpoint out of the GPUs."""
        speed = self.trainer.checkpoint_bandwidth
        if speed:
            return self.checkpoint_bytes() / speed
        return travel_seconds(self.gpu, self.node, self.checkpoint_bytes() / self.trainer.gpus)

    def flops(self, lengths: Sequence[int], full: bool = False) -> float:
        """FLOP of the model to train on these samples once; `full`: attention as if it were not causal."""
        sizes, llm = np.asarray(lengths, float), self.llm
        found = float(llm.flops_per_token * sizes.sum())
        for window, layers in llm.kv_groups:
            past = np.maximum(sizes - window, 0.0) if window else 0.0 * sizes
            pairs = sizes**2 - past**2 if full else (sizes * (sizes + 1) - past * (past + 1)) / 2
            found += layers * llm.flops_per_pair() * float(pairs.sum())
        return 3.0 * found

    # -- parts ------------------------------------------------------------
    def _pass(self, lengths: list[int], trains: bool) -> TrainCost:
        trainer, ranks = self.trainer, self.trainer.dp
        if not lengths:
            return NO_COST
        self._room(max(lengths))
        flops, full = self.flops(lengths), self.flops(lengths, full=True)
        share = 1.0 if trains else 1.0 / 3.0
        again = 4.0 / 3.0 if trains and trainer.recompute == "full" else 1.0
        done = flops * share, full * share, flops * share * again, sum(lengths), len(lengths)
        if trainer.mfu is not None:
            third = flops / 3.0 / (self.peak * trainer.mfu)
            return TrainCost(Parts(third, 2.0 * third * trains), *done, 0)
        dealt = packing.deal(self._work(lengths), ranks) if trainer.balance else packing.in_turn(len(lengths), ranks)
        micro = packing.micro_batches([[lengths[n] for n in mine] for mine in dealt], trainer.micro_batch, trainer.packing)
        return TrainCost(self._paced(self.passes.of(micro, trains), trains), *done, len(micro[0]))

    def _room(self, longest: int) -> None:
        """Raises BadInput when a sample that is longer than all before it does not fit."""
        if longest > self._longest:
            check(self.llm, self.gpu, self.node, self.trainer, self._where, longest)
            self._longest = longest

    def _paced(self, passes: Passes, trains: bool) -> Parts:
        """All micro-batches of all ranks, and what comes once."""
        trainer, at, seconds = self.trainer, self.trainer.parallel, passes.seconds
        ranks, count = seconds.shape
        mean = Parts(*(float(part.sum()) / ranks for part in passes))
        slowest = float(np.sort(seconds, axis=1).max(axis=0).sum() if trainer.backend == "fsdp" else seconds.sum(axis=1).max())
        parts = mean._replace(imbalance=max(slowest - mean.seconds, 0.0), bubble=bubble(at.pp, at.vpp, slowest / count))
        if trains and trainer.backend == "megatron":
            # Summed as the last micro-batch goes back, and gathered as the first one of the next step goes forth.
            back, forth = (mean.backward + mean.recompute) / count, mean.forward / count
            parts = parts._replace(gradients=max(0.0, self.passes.scatter - back) + max(0.0, self.passes.gather - forth))
        return parts

    def _work(self, lengths: Sequence[int]) -> list[float]:
        """What each sample asks for, FLOP."""
        sizes, llm = np.asarray(lengths, float), self.llm
        full = sum(layers for window, layers in llm.kv_groups if not window)
        found: list[float] = (llm.flops_per_token * sizes + full * llm.flops_per_pair() * sizes * sizes / 2).tolist()
        return found
