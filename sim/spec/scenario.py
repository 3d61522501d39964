"""What the user wrote, typed and immutable: the schema of a scenario.

Engine knobs keep vLLM's names and defaults. Pluggable parts (`router`, `admission`, each workload, ...) stay plain mappings here; the
loader checks each against the fields of its kind (`core/registry.py`), so this file never learns what kinds exist.
"""
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from sim.core.units import Bytes, Seconds

Positive = Annotated[int, Field(ge=1)]
# The most that is simulated: far beyond any engine, and a slip of the keyboard does not eat the machine.
Replicas = Annotated[int, Field(ge=1, le=100_000)]
Sequences = Annotated[int, Field(ge=1, le=65_536)]
Budget = Annotated[int, Field(ge=1, le=10_000_000)]
BlockSize = Annotated[int, Field(ge=1, le=1024)]
Int32 = Annotated[int, Field(ge=1, le=2**31 - 1)]
OrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Price = Annotated[float, Field(ge=0, le=1e6)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
Dtype = Literal["bf16", "fp16", "fp8", "fp8_block", "int8", "int8_weights", "int4", "nvfp4", "mxfp4", "mxfp4_mxfp8"]
KvDtype = Literal["bf16", "fp16", "fp8"]
Framework = Literal["vllm", "sglang", "trtllm"]


def _with_a_unit(size: float) -> float:
    if size < 1e6:
        raise ValueError(f"found {size:g} bytes; a GPU has more: write the unit, such as {size:g}GB")
    return size


GpuMemory = Annotated[Bytes, Field(gt=0, le=4e12), AfterValidator(_with_a_unit)]


class Spec(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class EngineOptions(Spec):
    """vLLM's engine arguments, by their names, whatever the `framework`. `exact_steps` runs one event per step: slow, for checking."""

    framework: Framework = Field("vllm", description="whose kernels and host overhead to expect, where the GPU's profile knows them")
    async_scheduling: bool = Field(True, description="the next step is scheduled while the GPU runs; without, the host waits in between")
    attention: Literal["flash", "naive"] = Field("flash", description="naive writes the scores to memory: what FlashAttention saves")
    # One value for all: with even routing, measured TPOT of gpt-oss-120b (H100, B200), Kimi-K2.5 and Qwen3-235B is over-predicted, most at
    # batches of 16 to 64, where the number of experts reached decides; with 0.7 the three come out closest.
    expert_skew: Annotated[float, Field(ge=0, le=3)] = Field(0.7, description="power by which tokens prefer some experts; 0: evenly")
    max_num_seqs: Sequences = 256
    max_num_batched_tokens: Budget = 2048
    max_model_len: Int32 | None = Field(None, description="longest prompt + output; default: the model's own limit")
    block_size: BlockSize = 16
    gpu_memory_utilization: Fraction = 0.9
    num_gpu_blocks_override: Int32 | None = None
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: OrNone = Field(0, description="most prompt tokens of one request in a step; 0: no limit")
    enable_prefix_caching: Literal[False] = Field(False, description="not modelled yet: only false is accepted")
    cuda_graph: bool = True
    cudagraph_capture_sizes: tuple[Sequences, ...] | None = Field(None, description="default: vLLM's, up to min(2 * max_num_seqs, 512)")
    host_overhead: Seconds | None = Field(None, ge=0, le=60, description="CPU time per step not hidden by the GPU; default: the profile's")
    frontend_overhead: Seconds | None = Field(None, ge=0, le=60, description="API server, tokeniser: added to TTFT; default: the profile's")
    exact_steps: bool = False
    batcher: dict[str, Any] = Field(default_factory=lambda: {"kind": "vllm_v1"})

    @model_validator(mode="after")
    def _budget(self) -> EngineOptions:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below max_num_seqs ({self.max_num_seqs}); "
                "every running request needs one token a step, so it must be at least as large"
            )
        return self


class Pool(Spec):
    """Identical replicas of one engine."""

    name: str = "serve"
    model: str | None = Field(None, description="default: the scenario's model")
    gpu: str
    node: str | None = Field(None, description="node of the catalogue; default: the GPU's usual one")
    replicas: Replicas = 1
    parallel: Parallel = Parallel()
    precision: Precision = Precision()
    engine: EngineOptions = EngineOptions()
    gpu_memory: GpuMemory | None = Field(None, description="memory of one GPU; default: the GPU profile's")
    price_per_hour: Price | None = Field(None, description="dollars per GPU-hour; default: the GPU profile's")


class Cluster(Spec):
    pools: tuple[Pool, ...] = Field(min_length=1)
    router: dict[str, Any] = Field(default_factory=lambda: {"kind": "least_loaded"})
    admission: dict[str, Any] = Field(default_factory=lambda: {"kind": "always"})

    @model_validator(mode="after")
    def _names(self) -> Cluster:
        names = [pool.name for pool in self.pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two pools are named {', '.join(twice)}; pool names must differ")
        return self


class Slo(Spec):
    """Service levels: limits on percentiles of TTFT, TPOT and E2E; `attainment` is the share of requests that must stay within them."""

    ttft_p50: PositiveSeconds | None = None
    ttft_p90: PositiveSeconds | None = None
    ttft_p95: PositiveSeconds | None = None
    ttft_p99: PositiveSeconds | None = None
    tpot_p50: PositiveSeconds | None = None
    tpot_p90: PositiveSeconds | None = None
    tpot_p95: PositiveSeconds | None = None
    tpot_p99: PositiveSeconds | None = None
    e2e_p50: PositiveSeconds | None = None
    e2e_p90: PositiveSeconds | None = None
    e2e_p95: PositiveSeconds | None = None
    e2e_p99: PositiveSeconds | None = None
    attainment: Fraction | None = Field(None, description="default: the lowest of the percentiles held to, such as 0.99 for ttft_p99")


class Scenario(Spec):
    """One experiment: a model on a cluster under workloads. `duration` ends it early; without it the run ends with the traffic."""

    name: str = "scenario"
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    duration: PositiveSeconds | None = None
    model: str
    cluster: Cluster
    workloads: tuple[dict[str, Any], ...] = Field(min_length=1)
    slo: Slo = Slo()
    _places: Any = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        # Where a scenario was written, kept in `_places` for late errors, is not part of what it says.
        return isinstance(other, Scenario) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]
