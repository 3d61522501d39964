"""Who trains a model, and how it is laid out: the GPUs of a trainer, its backend, and what it does to fit.

Names are those of Megatron-LM and PyTorch FSDP2 where they agree. What has no effect with the chosen backend is an error.
"""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.core.units import Bytes, Seconds, Speed
from sim.spec.frozen import Spec
from sim.spec.layout import Positive

GpuCount = Annotated[int, Field(ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**9)]
STATE_BYTES = 12.0  # of Adam per weight: a 32-bit copy and two 32-bit moments
BYTES = {"fp32": 4.0, "bf16": 2.0}
# What a trainer leaves on a GPU while others use it: slime's is 3 to 5 GB where the process groups of NCCL are destroyed for that time, and
# 15 to 18 where they stay.
RESIDUAL = 4e9


class TrainLayout(Spec):
    """How the GPUs of a trainer divide the work. `tp` divides every matrix, `pp` the layers, `cp` the tokens of a sequence.

    What is left, `dp`, divides the samples; given, it must come out so. `ep` divides the experts of a layer among that many of the
    tp x cp x dp GPUs of a stage. `vpp`: parts of the layers that each stage has (interleaved pipeline).
    """

    tp: Positive = 1
    pp: Positive = 1
    cp: Positive = 1
    ep: Positive = 1
    vpp: Positive = 1
    dp: Positive | None = Field(None, description="default: what is left of the GPUs")

    @model_validator(mode="after")
    def _interleaved(self) -> TrainLayout:
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp is {self.vpp}, but there is one stage; interleaving is of the stages of a pipeline")
        return self


class Trainer(Spec):
    """A trainer on `gpus` GPUs. `micro_batch`: tokens that the tp x cp GPUs of a rank take at a time (verl's max_token_len), by which
    samples are packed end to end; without `packing` each is padded to the longest beside it.

    `backend` fsdp keeps a part of weights, gradients and optimizer states on each rank and gathers a layer when it is wanted; megatron
    keeps the weights whole and divides the states (distributed optimizer). `recompute` (activation checkpointing): full keeps only what
    enters a layer; selective all but the outputs of norms and of the gated activation. `optimizer_bytes` are those of the states of one
    weight. `offload`: optimizer, states lie in the host's memory and travel through PCIe at each step; all: weights and gradients too.

    `shares`: it has no GPUs of its own, but those of a pool while that pool's engines sleep (the hybrid engine of verl and slime); `gpus`
    are all of the pool's. While engines serve, all its states lie in the host's memory but for `residual` bytes of each GPU.
    """

    name: Annotated[str, Field(min_length=1)] = "train"
    model: str | None = Field(None, description="default: the scenario's model")
    gpu: str
    node: str | None = Field(None, description="node of the catalogue; default: the GPU's usual one")
    gpus: GpuCount
    shares: str | None = Field(None, description="the pool whose GPUs it has while that one's engines sleep; default: GPUs of its own")
    residual: Annotated[Bytes, Field(ge=0, le=1e12)] = Field(RESIDUAL, description="shares: bytes it leaves on each GPU for all time")
    sleep_level: Literal[1, 2] = Field(1, description="shares: engines asleep have their weights in the host's memory; 2: nowhere")
    backend: Literal["fsdp", "megatron"] = "fsdp"
    parallel: TrainLayout = TrainLayout()
    precision: Literal["bf16", "fp8"] = Field("bf16", description="in which matrices are multiplied; weights are kept in bf16")
    micro_batch: Tokens = 16_384
    packing: bool = True
    balance: bool = Field(True, description="samples are dealt to ranks by their work; false: in turn")
    recompute: Literal["none", "selective", "full"] = "full"
    gradients: Literal["fp32", "bf16"] = "fp32"
    optimizer_bytes: Annotated[float, Field(ge=0, le=64)] = STATE_BYTES
    offload: Literal["none", "optimizer", "all"] = "none"
    reshard: bool = Field(True, description="fsdp: weights are gathered again for the backward pass")
    loss_chunk: Tokens = Field(4096, description="tokens whose logits are there at a time")
    mfu: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="of an update, attention counted causally; given, it takes the place of the kernels"
    )
    overhead: Annotated[Seconds, Field(ge=0, le=1e6)] = Field(
        0.0, description="of each step of the optimizer or pass for log-probabilities, beside its kernels: samples in and out, Python"
    )
    kernel_time: Annotated[float, Field(ge=0.1, le=10)] = Field(1.0, description="what its kernels take, over what is known of them")
    price_per_hour: Annotated[float, Field(ge=0, le=1e6)] | None = Field(None, description="dollars per GPU-hour; default: its profile's")
    region: str = ""
    checkpoint_bandwidth: Speed | None = Field(None, description="at which all GPUs together write one; default: of their PCIe links")

    @property
    def dp(self) -> int:
        """Ranks that the samples are divided among."""
        return self.gpus // (self.parallel.tp * self.parallel.pp * self.parallel.cp)

    @property
    def shards(self) -> int:
        """Ranks among which weights or states outside experts are divided."""
        return self.dp * self.parallel.cp

    @property
    def expert_span(self) -> int:
        """GPUs over which one copy of the experts of a stage lies."""
        return max(self.parallel.tp, self.parallel.ep)

    @property
    def expert_shards(self) -> int:
        """Ranks among which weights or states of an expert are divided."""
        return self.dp * self.parallel.cp * self.parallel.tp // self.expert_span

    @model_validator(mode="after")
    def _whole(self) -> Trainer:
        wrong = [*self._divided(), *self._unused()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _divided(self) -> list[str]:
        """How the layout does not suit the number of GPUs."""
        at, found = self.parallel, []
        unit = at.tp * at.pp * at.cp
        if self.gpus % unit:
            return [f"gpus ({self.gpus}) is not a multiple of tp x pp x cp = {unit}"]
        if at.dp is not None and at.dp != self.dp:
            found.append(f"dp is {at.dp}, but of {self.gpus} GPUs tp x pp x cp = {unit} leave {self.dp}; leave dp out")
        stage = self.gpus // at.pp
        if max(at.tp, at.ep) % min(at.tp, at.ep) or stage % max(at.tp, at.ep):
            what = f"ep ({at.ep}) does not suit tp ({at.tp}) and the {stage} GPUs of a stage"
            found.append(f"{what}: one of ep and tp must divide the other, and both the GPUs of a stage")
        return found

    def _unused(self) -> list[str]:
        found = []
        if self.backend == "fsdp" and self.parallel.pp > 1:
            found.append("backend fsdp has no pipeline; leave pp at 1, or write backend: megatron")
        if self.backend == "megatron" and not self.reshard:
            found.append("reshard is of backend fsdp; megatron keeps its weights whole")
        if self.backend == "megatron" and self.offload == "all":
            found.append("offload all is of backend fsdp; of megatron the optimizer may be offloaded")
        if self.offload != "none" and not self.optimizer_bytes:
            found.append("optimizer_bytes is 0, so that nothing is offloaded")
        return [*found, *self._shared()]

    def _shared(self) -> list[str]:
        if self.shares is None:
            given = [name for name, usual in (("residual", RESIDUAL), ("sleep_level", 1)) if vars(self)[name] != usual]
            return [f"{name} is of a trainer that shares the GPUs of a pool; name the pool with shares, or leave it out" for name in given]
        given = [name for name, said in (("node", self.node), ("region", self.region)) if said]
        given += ["price_per_hour"] if self.price_per_hour is not None else []
        return [f"{name} is said by pool {self.shares}, whose GPUs these are, and which is paid for them; leave it out" for name in given]
