"""Where keys and values are kept beside the GPUs."""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.core.units import Bytes, Seconds, Speed
from sim.spec.frozen import Spec


class KvTier(Spec):
    """Room for KV blocks below the GPU's memory. Figures are of a replica: each has its own tiers, which its GPUs share."""

    kind: Literal["host", "ssd", "remote"]
    capacity: Annotated[Bytes, Field(gt=0)]
    bandwidth: Speed | None = Field(None, description="each way together; default for host: PCIe x GPUs")
    latency: Seconds = Field(0.0, ge=0, le=60, description="before each transfer begins")
    store: str | None = Field(None, description="of kind remote: the store of the network that it is; bandwidth then limits each transfer")

    @property
    def has_speed(self) -> bool:
        """Whether something is said of how fast it is."""
        return self.bandwidth is not None or self.store is not None

    @model_validator(mode="after")
    def _stored(self) -> KvTier:
        if self.store is not None and self.kind != "remote":
            raise ValueError(f"store is given, but a tier of kind {self.kind} is beside the GPUs; only kind remote is at a store")
        return self
