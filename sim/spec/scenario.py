"""What the user wrote, typed and immutable: the schema of a scenario.

Engine knobs keep vLLM's names and defaults. Pluggable parts (`router`, `admission`, each workload, ...) stay plain mappings here; the
loader checks each against the fields of its kind (`core/registry.py`), so this file never learns what kinds exist.
"""
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from sim.core.units import Bytes, Seconds, Speed
from sim.spec.cascade import Cascade
from sim.spec.curve import Curve
from sim.spec.engine import EngineOptions
from sim.spec.fitting import claims
from sim.spec.frozen import Spec
from sim.spec.ladder import Rung
from sim.spec.layout import Parallel, Precision
from sim.spec.lending import Shares
from sim.spec.network import Network
from sim.spec.plan import Search
from sim.spec.power import Carbon, Power
from sim.spec.prices import Prices
from sim.spec.regions import Way
from sim.spec.sandboxes import Pools as SandboxPools
from sim.spec.scaling import Autoscale, ColdStart, fitting
from sim.spec.sweep import Sweep
from sim.spec.trainer import Trainer
from sim.spec.views import Views

# The most that is simulated: far beyond any engine, and a slip of the keyboard does not eat the machine.
Replicas = Annotated[int, Field(ge=0, le=100_000)]
OrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Price = Annotated[float, Field(ge=0, le=1e6)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]


def _with_a_unit(size: float) -> float:
    if size < 1e6:
        raise ValueError(f"found {size:g} bytes; a GPU has more: write the unit, such as {size:g}GB")
    return size


GpuMemory = Annotated[Bytes, Field(gt=0, le=4e12), AfterValidator(_with_a_unit)]


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
    kernel_time: Annotated[float, Field(ge=0.1, le=10)] = Field(1.0, description="what its kernels take, over what is known of them")
    start: ColdStart | None = Field(None, description="how a replica comes up during the run")
    warm: Annotated[int, Field(ge=0, le=100_000)] = Field(0, description="replicas kept initialised without traffic, beside the others")
    shares: Shares | None = Field(None, description="another pool, on whose GPUs it stands while that one sleeps; default: GPUs of its own")

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
    bandwidth: Speed | None = None
    latency: Seconds = Field(0.0, ge=0, le=60)
    layerwise: bool = Field(True, description="a layer's KV may leave while later layers are computed")
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="share of links beside other traffic of the network")
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="on the network; what has a higher one goes first")


class Cluster(Spec):
    trainers: tuple[Trainer, ...] = ()
    pools: tuple[Pool, ...] = Field((), validate_default=True, description="needed, but where there are trainers")
    router: dict[str, Any] = Field(default_factory=lambda: {"kind": "least_loaded"})
    admission: dict[str, Any] = Field(default_factory=lambda: {"kind": "always"})
    gate: dict[str, Any] | None = Field(None, description="which programs may send calls; default: all")
    disaggregation: Disaggregation | None = Field(None, description="only with prefill and decode pools")
    network: Network | None = Field(None, description="hosts and what connects them; default: every transfer has its link to itself")
    views: Views | None = Field(None, description="how old what routers see is; default: as of now")
    regions: tuple[Way, ...] = Field((), description="how far requests travel between regions")
    cascades: tuple[Cascade, ...] = ()
    sandboxes: SandboxPools = Field((), description="CPU nodes and the sandboxes of agents on them")
    quality: dict[str, float] = Field(default_factory=dict, description="of the answers of a pool or model, as you know it")

    @field_validator("pools")
    @classmethod
    def _any(cls, pools: tuple[Pool, ...], info: Any) -> tuple[Pool, ...]:
        # Trainers that could not be read are wrong enough.
        if not pools and not info.data.get("trainers", True):
            raise ValueError("found an empty list; at least 1 is wanted, unless there are trainers")
        return pools

    @model_validator(mode="after")
    def _names(self) -> Cluster:
        names = [pool.name for pool in self.pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two pools are named {', '.join(twice)}; pool names must differ")
        every = [*names, *(trainer.name for trainer in self.trainers)]
        again = sorted({name for name in every if every.count(name) > 1})
        if again:
            raise ValueError(f"two trainers, or a pool and a trainer, are named {', '.join(again)}; names must differ")
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
    """Service levels: limits on percentiles of TTFT, TPOT and E2E, of agents' task times and of steps of reinforcement learning.

    `attainment` is the share of requests that must stay within the first three.
    """

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
    task_p50: PositiveSeconds | None = None
    task_p90: PositiveSeconds | None = None
    task_p95: PositiveSeconds | None = None
    task_p99: PositiveSeconds | None = None
    rl_step_p50: PositiveSeconds | None = None
    rl_step_p90: PositiveSeconds | None = None
    rl_step_p95: PositiveSeconds | None = None
    rl_step_p99: PositiveSeconds | None = None
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
    plan: Search | None = Field(None, description="which clusters to choose the cheapest of that holds the SLO")
    sweep: Sweep | None = Field(None, description="the keys to vary, and the points to run")
    _places: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_study(self) -> Scenario:
        found = [name for name in ("ladder", "curve", "plan", "sweep") if vars(self)[name]]
        if len(found) > 1:
            raise ValueError(f"there are a {' and a '.join(found)}; give one of them, and the other in a scenario that extends this one")
        return self

    def __eq__(self, other: object) -> bool:
        # Where a scenario was written, kept in `_places` for late errors, is not part of what it says.
        return isinstance(other, Scenario) and self.model_dump() == other.model_dump()

    def _repr_html_(self) -> str:
        from sim.spec.display import html

        return html(self)

    __hash__ = None  # type: ignore[assignment]
