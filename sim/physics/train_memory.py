"""What of a trainer lies in the memory of its fullest GPU, and what does not fit.

Bytes of P weights of a stage (after tensor and expert parallelism), over n ranks among which they are divided:

    fsdp       (g + s) P / n, two gathered layers of 2 P / L and the gradient of one;   megatron   2 P + g P + s P / n

with g bytes of a gradient and s of optimizer states (Adam: 12, the 32-bit copy of the weights among them; ZeRO: Rajbhandari et al. 2020).
Of FSDP that copy is what a rank keeps of the weights, and is never offloaded with the optimizer.
Activations are counted tensor by tensor for fused attention, in 16 bits, and divided by tp and cp, sequence parallelism being on
(Korthikanti et al. 2022 count the same for a plain GPT: 34 s b h a layer). Logits exist for `loss_chunk` tokens at a time: in 16 and in 32
bits, and their gradient.
"""
from __future__ import annotations

from typing import NamedTuple

from sim.core.errors import BadInput, Problem
from sim.physics.memory import DRIVER
from sim.physics.pipeline import in_flight
from sim.spec.dtype import SIXTEEN_BIT
from sim.spec.hardware import Gpu, Node
from sim.spec.layout import Parallel, Precision
from sim.spec.llm import Llm
from sim.spec.trainer import BYTES, Trainer

# The CUDA context, buffers of collectives, workspaces and fragmentation; what slime leaves of a trainer that is offloaded, its process
# groups destroyed, is 3 to 5 GB. One value for all.
RESERVE = 4e9
LOGIT_BYTES = 2 + 4 + 4
COPY = 4.0  # of a weight in 32 bits
MANY = 1 << 30
SIXTEEN = Precision.model_validate("bf16")


class TrainMemory(NamedTuple):
    """Bytes on the fullest GPU. `gathered`: whole layers that FSDP has brought together; `host`: what lies in the memory of the host, per
    GPU. Of one that shares its GPUs, which has all of their memory while engines sleep, what stays when it sleeps is its `residual`.
    """

    budget: float
    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    logits: float
    reserve: float
    host: float

    @property
    def needed(self) -> float:
        return sum(self[1:8])

    @property
    def left(self) -> float:
        """Bytes that are free: negative where the trainer does not fit."""
        return self.budget - self.needed


def stand_in(trainer: Trainer) -> Parallel:
    """The layout of a replica that computes a forward pass as the trainer's ranks do: as many attention groups as share their experts."""
    at = trainer.parallel
    return Parallel(tp=at.tp, pp=at.pp, dp=trainer.expert_span // at.tp, ep=at.ep)


def weights(llm: Llm, trainer: Trainer) -> tuple[float, float]:
    """Weights of one GPU's fullest stage before they are divided among ranks: outside experts, and of experts."""
    every = llm.weight_bytes(SIXTEEN, stand_in(trainer)) / SIXTEEN_BIT
    fullest = max(len(layers) for layers in llm.stages(trainer.parallel.pp)) / llm.layers
    experts = fullest * sum(m.count * m.experts * m.n * m.k for m in llm.matrices if m.experts > 1) / trainer.expert_span
    return every - experts, experts


def states_width(trainer: Trainer) -> float:
    """Bytes per weight that belong to the optimizer alone."""
    return trainer.optimizer_bytes - (COPY if trainer.backend == "fsdp" and trainer.optimizer_bytes >= COPY else 0.0)


class States(NamedTuple):
    """Bytes of one GPU, wherever they lie, that outlast a step: gradients do not."""

    weights: float
    optimizer: float


def states(llm: Llm, trainer: Trainer) -> States:
    """What a trainer that shares its GPUs puts away before others use them."""
    dense, experts = weights(llm, trainer)
    shard = dense / trainer.shards + experts / trainer.expert_shards
    width = states_width(trainer)
    if trainer.backend == "fsdp":
        return States((trainer.optimizer_bytes - width or SIXTEEN_BIT) * shard, width * shard)
    return States(SIXTEEN_BIT * (dense + experts), width * shard)


def layer_bytes(llm: Llm, recompute: str) -> float:
    """Bytes that the backward pass needs of one token in one layer, all GPUs of a rank together.

    >>> from sim.spec.llm import llm
    >>> layer_bytes(llm("meta-llama/Llama-3.1-8B"), "full") == 2 * 4096
    True
    """
    inputs = SIXTEEN_BIT * llm.hidden
    if recompute == "full":
        return inputs
    values = llm.v_head_dim or llm.head_dim
    kv = llm.heads * (llm.head_dim + values) if llm.attention == "mla" else 2 * llm.kv_heads * llm.head_dim
    attention = SIXTEEN_BIT * (llm.heads * (llm.head_dim + values) + kv) + 4.0 * llm.heads
    # A routed token is there once for each of its experts, before and after them.
    routed = 2 * llm.experts_per_token * llm.hidden if llm.moe_layers else 0
    projected = (2 if llm.gated else 1) * llm.inner + routed
    kept = 2 * inputs + attention + SIXTEEN_BIT * projected
    return kept if recompute == "selective" else kept + 2 * inputs + SIXTEEN_BIT * llm.inner


def activations(llm: Llm, trainer: Trainer, tokens: int, micro_batches: int) -> float:
    """Bytes of a GPU of the first stage with micro-batches of so many `tokens`, of which a step has so many."""
    at = trainer.parallel
    layers = max(len(some) for some in llm.stages(at.pp))
    one = tokens / (at.tp * at.cp)
    whole = layer_bytes(llm, "none") if trainer.recompute == "full" else 0.0  # the layer that is being computed again
    return one * (layers * layer_bytes(llm, trainer.recompute) * in_flight(at.pp, at.vpp, micro_batches) + whole)


def fit(llm: Llm, gpu: Gpu, trainer: Trainer, longest: int = 0) -> TrainMemory:
    """What lies where with micro-batches of `micro_batch` tokens, or of the `longest` sample where that is longer."""
    at, g = trainer.parallel, BYTES[trainer.gradients]
    dense, experts = weights(llm, trainer)
    shard = dense / trainer.shards + experts / trainer.expert_shards
    layers = max(len(some) for some in llm.stages(at.pp))
    layer, fsdp = (dense + experts) / layers, trainer.backend == "fsdp"
    several = fsdp and trainer.shards > 1
    held, moments = states(llm, trainer)
    grads = g * (shard if fsdp else dense + experts)
    away = 0.0 if trainer.offload == "none" else moments + (held + grads if trainer.offload == "all" else 0.0)
    gathered = layer * (2 * SIXTEEN_BIT + g) if several else 0.0
    if fsdp and not trainer.reshard:
        gathered += SIXTEEN_BIT * (dense + experts)
    tokens = max(trainer.micro_batch, longest)
    logits = min(tokens / at.cp, trainer.loss_chunk) * llm.vocab / at.tp * LOGIT_BYTES
    on = trainer.offload != "all"
    return TrainMemory(
        gpu.memory - DRIVER, held * on, grads * on, moments * (trainer.offload == "none"), gathered,
        activations(llm, trainer, tokens, MANY), logits, RESERVE, away,
    )  # fmt: skip


def check(llm: Llm, gpu: Gpu, node: Node, trainer: Trainer, where: str = "", longest: int = 0) -> TrainMemory:
    """The memory of a trainer. Raises BadInput at `where` when it does not fit: its largest part, how much too much, what would help."""
    found = fit(llm, gpu, trainer, longest)
    if found.left < 0:
        parts = found._asdict()
        most = max(("weights", "gradients", "optimizer", "gathered", "activations", "logits"), key=lambda name: parts[name])
        what = ", ".join(f"{name} {parts[name] / 1e9:.1f}" for name in found._fields[1:8] if parts[name] >= 5e7)
        sample = f", with a sample of {longest} tokens" if longest > trainer.micro_batch else ""
        needs = f"a GPU needs {found.needed / 1e9:.1f} GB ({what}) and has {found.budget / 1e9:.1f}, {-found.left / 1e9:.1f} GB too little"
        message = (
            f"{llm.name} cannot be trained on {trainer.gpus} {gpu.name} like this{sample}: {needs}; most of it is {most}. "
            f"{_advice(llm, gpu, trainer, longest)}"
        )
        raise BadInput([Problem(message, where)])
    here = min(trainer.gpus, node.gpus)
    if found.host * here > node.host_memory:
        message = (f"offload {trainer.offload} puts {found.host * here / 1e9:.0f} GB into the memory of {node.name}, "
                   f"which has {node.host_memory / 1e9:.0f} GB; more GPUs on more hosts would divide it")  # fmt: skip
        raise BadInput([Problem(message, f"{where}.offload".lstrip("."))])
    return found


def _advice(llm: Llm, gpu: Gpu, trainer: Trainer, longest: int) -> str:
    """The first of a few changes with which it would fit, in words of a scenario."""
    changes: list[dict[str, object]] = []
    if trainer.recompute != "full":
        changes.append({"recompute": "full"})
    if trainer.offload == "none" and trainer.optimizer_bytes:
        changes.append({"offload": "optimizer"})
    changes += [{"gpus": trainer.gpus * 2**power} for power in range(1, 11)]
    for change in changes:
        at = trainer.parallel.model_copy(update={"dp": None})
        if fit(llm, gpu, trainer.model_copy(update={**change, "parallel": at}), longest).left >= 0:
            also = f", and as many in pool {trainer.shares}" if "gpus" in change and trainer.shares else ""
            return "It would fit with " + ", ".join(f"{key}: {value}" for key, value in change.items()) + also
    return "More ranks would not help; divide the model (parallel: {tp: ..}) or the sequence (cp), or take a smaller micro_batch"
