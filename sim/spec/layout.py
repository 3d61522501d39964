"""How a model is laid out over GPUs, and in which number formats its parts are kept."""
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sim.spec.frozen import Spec

Positive = Annotated[int, Field(ge=1)]
Dtype = Literal["bf16", "fp16", "fp8", "fp8_block", "int8", "int8_weights", "int4", "nvfp4", "mxfp4", "mxfp4_mxfp8"]
KvDtype = Literal["bf16", "fp16", "fp8"]


class Parallel(Spec):
    """How one replica is laid over tp x pp x dp GPUs.

    `tp` divides every matrix, `pp` the layers into stages, `dp` the requests among attention groups that step together. `ep` divides the
    experts of a layer among that many of the tp x dp GPUs of a stage (vLLM's enable_expert_parallel is ep = tp x dp); what is left of
    tp x dp divides each expert.
    """

    tp: Positive = 1
    pp: Positive = 1
    dp: Positive = 1
    ep: Positive = 1

    @model_validator(mode="after")
    def _experts(self) -> Parallel:
        if (self.tp * self.dp) % self.ep:
            raise ValueError(f"ep ({self.ep}) must divide tp x dp ({self.tp} x {self.dp}): experts are spread over the GPUs of one stage")
        return self

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.dp

    @property
    def expert_tp(self) -> int:
        """GPUs that share each expert."""
        return self.tp * self.dp // self.ep


class Edges(Spec):
    """The first and last layers that keep another number format, as quantised checkpoints often have."""

    first: Annotated[int, Field(ge=0)] = 0
    last: Annotated[int, Field(ge=0)] = 0
    dtype: Dtype = "bf16"


class Precision(Spec):
    """Number format of each part of the model; in YAML one word (`bf16`) or a map of parts. `edges` are the layers excepted from it."""

    attention: Dtype = "bf16"
    mlp: Dtype = "bf16"
    lm_head: Dtype = "bf16"
    kv: KvDtype = "bf16"
    edges: Edges = Edges()

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        # One word sets the linear layers; the head and the cache stay 16-bit, as quantised checkpoints keep them.
        if isinstance(value, str):
            sixteen = value if value in ("bf16", "fp16") else "bf16"
            return {"attention": value, "mlp": value, "lm_head": sixteen, "kv": sixteen}
        return value
