"""How long GPUs take to change hands between a trainer and the engines of a pool that share them (the hybrid engine of verl and slime).

    to the trainer   engine weights to the host's memory (sleep level 1), or dropped (2);  the trainer's states from there
    to the engines   the trainer's states to the host's memory;  room for weights, and at level 1 their return;  [weights published];  room
                     for keys and values

Bytes travel over PCIe, all GPUs of a host at it together (`sim.physics.optimizer`). Gradients are never kept. States that the trainer
offloads at every step lie in the host's memory already, and their way is part of the step. What publishing into the engines' layout takes
is not counted here. Room is mapped, not copied: vLLM wakes small models in 0.1 to 0.4 s, copies included, of which two mappings are given
0.05 s each (judgement).

That is a floor. Of published switches, Kimi k1.5's took less than 60 s to the engines and about 10 s to the trainer; with a 7B on 16 H20
verl's phase of generation was 74 (FSDP2) or 45 s (Megatron) longer than generating itself, an upper bound of its switches. Here both ways
take less than 1 s together. What is missing is no bandwidth: processes that start anew, NCCL groups made again, garbage collected, tensors
gathered one by one from Python. No formula is known for it; such times are stated, in place of these.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.physics import host_room
from sim.physics.optimizer import travel_seconds
from sim.physics.train_memory import states
from sim.physics.trainer import TrainStep

MAPPING = 0.05


class Switch(NamedTuple):
    """Seconds: `sleep`, engine weights out; `onload` and `offload` of the trainer's states; `weights` and `kv`: room for them again, and
    the weights' return.
    """

    sleep: float
    onload: float
    offload: float
    weights: float
    kv: float

    @property
    def to_train(self) -> float:
        return self.sleep + self.onload

    @property
    def to_rollout(self) -> float:
        """Without what publishing takes."""
        return self.offload + self.weights + self.kv


def switch(step: TrainStep, weights: float) -> Switch:
    """The seconds of a trainer that shares GPUs with engines which have so many bytes of `weights` on each."""
    trainer = step.trainer
    kept = travel_seconds(step.gpu, step.node, weights) if trainer.sleep_level == 1 else 0.0
    moved = step.switch_seconds(trainer.offload != "all", trainer.offload == "none")
    return Switch(kept, moved, moved, MAPPING + kept, MAPPING)


def check(step: TrainStep, weights: float, where: str = "") -> float:
    """Bytes that the host holds for each GPU when it holds most: all states of the trainer, and at sleep level 1 engine `weights`, as those
    go out before the states come in. Raises BadInput at `where` when the host has less.
    """
    trainer, node, held = step.trainer, step.node, sum(states(step.llm, step.trainer))
    engines = weights if trainer.sleep_level == 1 else 0.0
    here = min(trainer.gpus, node.gpus)
    drop = "sleep_level: 2 keeps no engine weights; " if engines and held * here <= node.host_memory else ""
    advice = f"{drop}more GPUs on more hosts divide the states"
    return host_room.check(node, here, {"states": held, "engine weights": engines}, advice, where)
