"""What the user wrote, typed and immutable: the schema of a scenario.

Engine knobs keep vLLM's names and defaults. Pluggable parts (`router`, `admission`, each workload, ...) stay plain mappings here; the
loader checks each against the fields of its kind (`core/registry.py`), so this file never learns what kinds exist.
"""
from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from sim.core.units import Bytes, BytesPerSecond, Seconds
from sim.spec.cascade import Cascade
from sim.spec.curve import Curve
from sim.spec.fit import release
from sim.spec.fitting import claims, clashes, filled, misplaced
from sim.spec.frozen import Spec
from sim.spec.ladder import Rung
from sim.spec.lora import Lora
from sim.spec.network import Network
from sim.spec.power import Carbon, Power
from sim.spec.prices import Prices
from sim.spec.regions import Way
from sim.spec.scaling import Autoscale, ColdStart, fitting
from sim.spec.tiers import KvTier
from sim.spec.views import Views

Positive = Annotated[int, Field(ge=1)]
# The most that is simulated: far beyond any engine, and a slip of the keyboard does not eat the machine.
Replicas = Annotated[int, Field(ge=0, le=100_000)]
Sequences = Annotated[int, Field(ge=1, le=65_536)]
Budget = Annotated[int, Field(ge=1, le=10_000_000)]
BlockSize = Annotated[int, Field(ge=1, le=1024)]
Int32 = Annotated[int, Field(ge=1, le=2**31 - 1)]
OrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
Drafted = Annotated[int, Field(ge=1, le=32)]
Price = Annotated[float, Field(ge=0, le=1e6)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
Dtype = Literal["bf16", "fp16", "fp8", "fp8_block", "int8", "int8_weights", "int4", "nvfp4", "mxfp4", "mxfp4_mxfp8"]
KvDtype = Literal["bf16", "fp16", "fp8"]
Framework = Literal["vllm", "sglang", "trtllm"]


def _with_a_unit(size: float) -> float:
    if size < 1e6:
        raise ValueError(f"found {size:g} bytes; a GPU has more: write the unit, such as {size:g}GB")
    return size


def _release(version: Any) -> Any:
    if not isinstance(version, str):
        raise ValueError(f"found {version!r}; write a version in quotes, such as '0.15.1', or 0.10 is read as 0.1")
    if not release(version):
        raise ValueError(f"found '{version}'; the number of a release is wanted, such as '0.15.1'")
    return version


Version = Annotated[str, BeforeValidator(_release)]
GpuMemory = Annotated[Bytes, Field(gt=0, le=4e12), AfterValidator(_with_a_unit)]


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


def _form(acceptance: Any) -> str:
    return "list" if isinstance(acceptance, (list, tuple)) else "chance"


Accepted = Annotated[Annotated[Chance, Tag("chance")] | Annotated[tuple[Chance, ...], Tag("list")], Discriminator(_form)]


class Speculation(Spec):
    """vLLM's speculative_config, and what no engine knows beforehand: how many of the drafted tokens are accepted.

    `acceptance` is one chance a: a drafted token is accepted, given that all before it in its draft were, so that the first i of a draft
    are with a^i. Or it is a list, one entry per position, of what vLLM logs as per-position acceptance rates: the share of drafts of which
    the first i tokens were accepted, so that it never rises. 0.8 and [0.8, 0.64, 0.512] say the same.

    `model` is the draft model, or the config.json of an EAGLE head's layers; without one such a head is one layer of the target's sizes.
    `sampling`: every request advances by the expected number of tokens, or by one drawn anew in each step.
    """

    method: Literal["draft_model", "eagle", "eagle3", "mtp", "ngram"]
    model: str | None = None
    num_speculative_tokens: Drafted
    acceptance: Accepted
    sampling: Literal["expected", "sampled"] = "expected"
    draft_tensor_parallel_size: Positive | None = Field(None, description="1 or the target's; default: the target's")

    @property
    def rates(self) -> tuple[float, ...]:
        """The share of drafts of which the first i + 1 tokens are accepted, for each position i."""
        if isinstance(self.acceptance, tuple):
            return self.acceptance
        return tuple(self.acceptance ** (i + 1) for i in range(self.num_speculative_tokens))

    @property
    def queries(self) -> int:
        """New tokens that a decoder brings to a step: its last one, and its draft."""
        return self.num_speculative_tokens + 1

    @model_validator(mode="after")
    def _consistent(self) -> Speculation:
        rates, k = self.rates, self.num_speculative_tokens
        if len(rates) != k:
            raise ValueError(f"acceptance has {len(rates)} entries; one for each of num_speculative_tokens ({k}) is wanted, or one number")
        for before, rate in pairwise(rates):
            if rate > before:
                raise ValueError(
                    f"acceptance rises from {before:g} to {rate:g}; an entry is the share of drafts accepted up to its position, as vLLM "
                    "logs it. Of chances given that all before were accepted, write the running product"
                )
        if self.method == "draft_model" and self.model is None:
            raise ValueError("model is missing; method draft_model needs one, a catalogue name or the path of a config.json")
        for key, value in (("model", self.model), ("draft_tensor_parallel_size", self.draft_tensor_parallel_size)):
            if self.method in ("mtp", "ngram") and value is not None:
                raise ValueError(f"{key} is for the methods draft_model, eagle and eagle3; {self.method} has no use for it")
        return self


class EngineOptions(Spec):
    """vLLM's engine arguments, by their names, whatever the `framework`. `exact_steps` runs one event per step: slow, for checking."""

    framework: Framework = Field("vllm", description="whose kernels and host overhead to expect, where the GPU's profile knows them")
    framework_version: Version | None = Field(None, description="release whose host and front end to expect, such as '0.15.1'")
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
    stream_interval: Positive = Field(1, description="tokens sent to the client at a time, after the first: ITL is between those")
    enable_prefix_caching: bool = Field(True, description="requests share the KV blocks of equal beginnings, as far as workloads say")
    paged: bool = Field(True, description="false: each request reserves its KV blocks in one range on admission, as before PagedAttention")
    kv_reservation: Literal["max", "pow2", "oracle"] | None = Field(None, description="how many then; default: max, max_model_len tokens")
    preemption_mode: Literal["recompute", "swap"] = Field("recompute", description="swap: a preempted cache waits in the host's memory")
    swap_space: Bytes | None = Field(None, gt=0, description="host memory of a GPU for that; default: 4 GiB; only if swapped")
    cuda_graph: bool = True
    cudagraph_capture_sizes: tuple[Sequences, ...] | None = Field(None, description="default: vLLM's, up to min(2 * max_num_seqs, 512)")
    host_overhead: Seconds | None = Field(None, ge=0, le=60, description="CPU time per step not hidden by the GPU; default: the profile's")
    frontend_overhead: Seconds | None = Field(None, ge=0, le=60, description="API server, tokeniser: added to TTFT; default: the profile's")
    speculative_config: Speculation | None = Field(None, description="draft tokens ahead and verify them together; default: no drafts")
    lora: Lora | None = Field(None, description="adapters that requests may ask for; default: none")
    kv_tiers: tuple[KvTier, ...] = Field((), description="where KV blocks are kept beside the GPU, the nearest first")
    kv_offload: Literal["write_through", "on_evict"] | None = Field(None, description="when tiers get them; default: write_through")
    kv_reload: Literal["faster", "always"] | None = Field(None, description="or compute what is faster computed; default: faster")
    retention: dict[str, Any] = Field(default_factory=lambda: {"kind": "lru"}, description="of a session's cache while it pauses")
    frontend_per_token: Seconds = Field(0.0, ge=0, le=1e-3, description="what the tokeniser adds to that for each token of the prompt")
    exact_steps: bool = False
    batcher: dict[str, Any] = Field(default_factory=lambda: {"kind": "vllm_v1"})

    @model_validator(mode="before")
    @classmethod
    def _silent(cls, value: Any) -> Any:
        return filled(value, cls.model_fields) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fitting(self) -> EngineOptions:
        wrong = clashes(dict(self), self.batcher) if {"batcher", "paged", "kv_reservation"} & self.model_fields_set else []
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _kept(self) -> EngineOptions:
        wrong = misplaced(dict(self), [(tier.kind, tier.has_speed) for tier in self.kv_tiers], self.retention)
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _swapped(self) -> EngineOptions:
        if self.swap_space is not None and self.preemption_mode != "swap":
            raise ValueError("swap_space is given, but nothing is swapped; set preemption_mode: swap or leave it out")
        return self

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
    role: Literal["both", "prefill", "decode"] = Field("both", description="prefill: computes prompts and hands their KV to decode pools")
    gpu: str
    node: str | None = Field(None, description="node of the catalogue; default: the GPU's usual one")
    autoscale: Autoscale | None = Field(None, description="who decides how many replicas there are; default: `replicas`, for ever")
    replicas: Replicas = Field(1, description="with autoscale: at the start")
    parallel: Parallel = Parallel()
    precision: Precision = Precision()
    engine: EngineOptions = EngineOptions()
    gpu_memory: GpuMemory | None = Field(None, description="memory of one GPU; default: the GPU profile's")
    price_per_hour: Price | None = Field(None, description="dollars per GPU-hour; default: the GPU profile's")
    region: str = Field("", description="where it stands; given, all pools and workloads say theirs")
    weight: Annotated[float, Field(gt=0, le=1e9)] | None = Field(None, description="of each of its replicas, for weighted routing")
    power_cap: Annotated[float, Field(gt=0, le=1e5)] | None = Field(None, description="watts of one GPU, held by a lower clock")
    start: ColdStart | None = Field(None, description="how a replica comes up during the run")
    warm: Annotated[int, Field(ge=0, le=100_000)] = Field(0, description="replicas kept initialised without traffic, beside the others")

    @field_validator("replicas")
    @classmethod
    def _some(cls, replicas: int, info: Any) -> int:
        if replicas < 1 and not info.data.get("autoscale"):
            raise ValueError(f"found {replicas}; a value of at least 1 is wanted, unless autoscale may start some")
        return replicas

    @model_validator(mode="after")
    def _scaled(self) -> Pool:
        wrong = fitting(self.replicas, self.autoscale, self.start, self.warm)
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _passed_on(self) -> Pool:
        why = claims(self.engine.batcher.get("kind"), self.engine.paged).off.get("role") if self.role != "both" else None
        if why:
            raise ValueError(f"role ({self.role}) is set; {why}")
        return self


class Disaggregation(Spec):
    """How prompts computed on prefill pools reach decode pools. `bandwidth` is one GPU's, one way; default: the node's network cards.

    With `cluster.network` they share its links: `bandwidth` is then the most that a GPU sends of one of them, and `latency` comes on top.
    """

    short_prompt: OrNone = Field(0, description="prompts up to so many tokens are computed by the decode pool itself")
    bandwidth: Annotated[BytesPerSecond, Field(gt=0)] | None = None
    latency: Seconds = Field(0.0, ge=0, le=60)
    layerwise: bool = Field(True, description="a layer's KV may leave while later layers are computed")
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="share of links beside other traffic of the network")
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="on the network; what has a higher one goes first")


class Cluster(Spec):
    pools: tuple[Pool, ...] = Field(min_length=1)
    router: dict[str, Any] = Field(default_factory=lambda: {"kind": "least_loaded"})
    admission: dict[str, Any] = Field(default_factory=lambda: {"kind": "always"})
    disaggregation: Disaggregation | None = Field(None, description="only with prefill and decode pools")
    network: Network | None = Field(None, description="hosts and what connects them; default: every transfer has its link to itself")
    views: Views | None = Field(None, description="how old what routers see is; default: as of now")
    regions: tuple[Way, ...] = Field((), description="how far requests travel between regions")
    cascades: tuple[Cascade, ...] = ()
    quality: dict[str, float] = Field(default_factory=dict, description="of the answers of a pool or model, as you know it")

    @model_validator(mode="after")
    def _names(self) -> Cluster:
        names = [pool.name for pool in self.pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two pools are named {', '.join(twice)}; pool names must differ")
        return self

    @model_validator(mode="after")
    def _weighed(self) -> Cluster:
        without = [pool.name for pool in self.pools if pool.weight is None]
        if without and len(without) < len(self.pools):
            raise ValueError(f"some pools have a weight and {', '.join(without)} none; give all one, or none, and they come from speed")
        return self

    @model_validator(mode="after")
    def _roles(self) -> Cluster:
        roles = {pool.role for pool in self.pools}
        for role, other in (("prefill", "decode"), ("decode", "prefill")):
            if role in roles and other not in roles:
                raise ValueError(f"there is a pool with role: {role} but none with role: {other}; each needs the other")
        if self.disaggregation is not None and "prefill" not in roles:
            raise ValueError("disaggregation is given, but no pool has role: prefill; it has no effect")
        return self

    @model_validator(mode="after")
    def _judged(self) -> Cluster:
        if self.quality and not self.cascades:
            raise ValueError("quality is given, but there are no cascades; it has no effect")
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
    prices: Prices | None = Field(None, description="default: the GPU profiles' prices")
    power: Power | None = Field(None, description="of the site; default: a PUE of 1.2")
    carbon: Carbon | None = Field(None, description="whose electricity; default: no carbon figures")
    ladder: tuple[Rung, ...] = Field((), description="the scenario changed step by step, each on top of those before it")
    curve: Curve | None = Field(None, description="run at one load after the other, to see speed against cost")
    _places: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_study(self) -> Scenario:
        if self.ladder and self.curve:
            raise ValueError("there are a ladder and a curve; give one of them, and the other in a scenario that extends this one")
        return self

    def __eq__(self, other: object) -> bool:
        # Where a scenario was written, kept in `_places` for late errors, is not part of what it says.
        return isinstance(other, Scenario) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]
