"""Which low-rank adapters an engine can serve, in vLLM's words."""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.core.units import Seconds, Speed
from sim.spec.frozen import Spec

Slots = Annotated[int, Field(ge=1, le=4096)]
DISK = 1e9
Kept = Annotated[int, Field(ge=1, le=1_000_000)]


class Lora(Spec):
    """vLLM's enable_lora: adapters of `rank` beside the matrices of `target`, all of one size.

    DISK is a judgement: with so many bytes per second a service reads adapters from a local disk or a store nearby, checks included.
    """

    max_loras: Slots = Field(1, description="different adapters in one batch, each with a slot in GPU memory")
    max_cpu_loras: Kept | None = Field(None, description="adapters kept in the host's memory; default: max_loras")
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    target: Literal["all-linear", "attention"] = Field("all-linear", description="which matrices have one; routed experts never do")
    disk_bandwidth: Speed | None = Field(None, description="storage to host's memory; default: 1 GB/s")
    load_time: Seconds | None = Field(None, ge=0, le=3600, description="how long that takes, in place of a bandwidth")

    @property
    def kept(self) -> int:
        """Adapters kept in the host's memory."""
        return self.max_cpu_loras or self.max_loras

    @model_validator(mode="after")
    def _consistent(self) -> Lora:
        if self.kept < self.max_loras:
            raise ValueError(
                f"max_cpu_loras ({self.kept}) is below max_loras ({self.max_loras}); what has a slot on the GPU is kept by the host too"
            )
        if self.load_time is not None and self.disk_bandwidth is not None:
            raise ValueError("load_time and disk_bandwidth are both given; one says how long an adapter takes from storage")
        return self
