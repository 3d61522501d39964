"""Replicas that come and go: what brings a new one up, how long each stage of that takes, and who decides how many there are.

The defaults are judgements, of one value for all models, chosen so that their sum falls where reports of whole starts do: vLLM 30-100 s and
more, a 7B pod with its image cached 30-60 s (the defaults make it 43 s for an 8B model), graph capture and compilation 20-60 s of it.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim.core.errors import did_you_mean
from sim.core.units import Bytes, Seconds, Speed, parse
from sim.spec.frozen import Spec

# Load times in seconds by share of loads that took no longer. `gentd26_basemodel`: updates of the base model of image pipelines in
# production, 7,531 of them on the containers of one service in 22 hours (GenTD26 traces, basemodel_update_latency). A third found the
# model on the host (2.6-3.6 s), the others fetched it: two modes that no lognormal has. `gentd26_pipeline`: the whole pipeline, 36,046.
PRESETS: dict[str, tuple[tuple[float, float], ...]] = {
    "gentd26_basemodel": (
        (0.0, 1.329), (0.01, 1.531), (0.05, 2.287), (0.1, 2.629), (0.2, 2.918), (0.25, 3.144), (0.3, 3.643), (0.4, 20.056), (0.5, 22.718),
        (0.6, 26.910), (0.7, 35.390), (0.75, 36.921), (0.8, 38.295), (0.9, 41.988), (0.95, 45.446), (0.99, 51.846), (0.999, 57.905),
        (1.0, 79.436),
    ),
    "gentd26_pipeline": (
        (0.0, 0.0), (0.05, 0.0), (0.1, 2.473), (0.2, 4.933), (0.25, 5.645), (0.3, 6.226), (0.4, 7.342), (0.5, 8.454), (0.6, 9.716),
        (0.7, 11.725), (0.75, 13.519), (0.8, 16.875), (0.9, 26.770), (0.95, 39.528), (0.99, 54.285), (0.999, 69.383), (1.0, 107.557),
    ),
}  # fmt: skip
PERCENT_99 = NormalDist().inv_cdf(0.99)
IMAGE = 12e9
Time = Annotated[Seconds, Field(ge=0, le=1e7)]


class Spread(Spec):
    """A time that varies: lognormal by its median and 99th percentile, or as measured (`preset`)."""

    median: Time | None = None
    p99: Time | None = None
    preset: str | None = Field(None, description=f"a measured distribution: {', '.join(sorted(PRESETS))}")

    @model_validator(mode="after")
    def _one(self) -> Spread:
        if self.preset is not None and (self.median is not None or self.p99 is not None):
            raise ValueError("give a preset, or median and p99, not both")
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"found '{self.preset}'; a measured distribution is wanted; {did_you_mean(self.preset, sorted(PRESETS))}")
        if self.preset is None and (self.median is None or self.p99 is None):
            raise ValueError("median and p99 belong together, such as {median: 2m, p99: 6m}; or give a preset")
        if self.median is not None and self.p99 is not None and self.p99 < self.median:
            raise ValueError(f"p99 ({self.p99:g} s) is below the median ({self.median:g} s)")
        if self.median == 0 and self.p99:
            raise ValueError("median is 0 and p99 is not; no lognormal time is like that")
        return self

    def at(self, share: float) -> float:
        """The seconds that this share (0 to 1) of all stay within.

        >>> round(Spread(median=10, p99=20).at(0.5)), round(Spread(median=10, p99=20).at(0.99))
        (10, 20)
        """
        if self.preset is None:
            assert self.median is not None
            assert self.p99 is not None
            if self.median == self.p99:
                return self.median
            sigma = math.log(self.p99 / self.median) / PERCENT_99
            return self.median * math.exp(sigma * NormalDist().inv_cdf(min(max(share, 1e-12), 1.0 - 1e-12)))
        points = PRESETS[self.preset]
        below, above = next((a, b) for a, b in pairwise(points) if share <= b[0])
        return below[1] + (above[1] - below[1]) * (share - below[0]) / (above[0] - below[0])


def _duration(value: Any) -> Any:
    """A plain time is one that does not vary."""
    if isinstance(value, Mapping | Spread):
        return value
    seconds = parse(value, "duration")
    if not 0 <= seconds <= 1e7:
        raise ValueError(f"found {value!r}; a duration of 0 or more is wanted, such as 90s, or {{median: 2m, p99: 6m}}")
    return {"median": seconds, "p99": seconds}


Duration = Annotated[Spread, BeforeValidator(_duration)]
NONE = Spread(median=0, p99=0)


class _Fetched(Spec):
    """Something a start brings to its host. Instead of a bandwidth a `time` can be given, also alone: `image: 30s`."""

    store: str | None = Field(None, description="store of the network that it comes from; default: from beside the host, at `bandwidth`")
    bandwidth: Speed | None = None
    time: Duration | None = Field(None, description="in place of size and bandwidth")

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and {"median", "p99", "preset"}.isdisjoint(value):
            return value
        return value if isinstance(value, _Fetched) else {"time": value}

    @model_validator(mode="after")
    def _one(self) -> _Fetched:
        if self.time is not None and (self.store is not None or self.bandwidth is not None):
            raise ValueError("time is given, and store or bandwidth too; say either how long it takes or where from and how fast")
        return self


class Image(_Fetched):
    """The container's image. `cache`: a host that had it has it still, unless hosts are provisioned anew."""

    size: Annotated[Bytes, Field(ge=0)] = IMAGE
    cache: bool = True

    @model_validator(mode="after")
    def _sized(self) -> Image:
        if self.time is not None and self.size != IMAGE:
            raise ValueError("time is given, and size too; say either how long it takes or how large it is")
        if 0 < self.size < 1e3:
            raise ValueError(f"size is {self.size:g} bytes; an image has more: write the unit, such as {self.size:g}GB")
        return self

    @property
    def speed(self) -> float:
        """Bytes/s of one pull, unpacking included; 1 GB/s where nothing is said and no store sets the pace."""
        return self.bandwidth or (1e9 if self.store is None else math.inf)


class Weights(_Fetched):
    """The model's weights, for all GPUs of the replica. `cache: host`: the host's memory keeps them for the next start there."""

    cache: Literal["none", "host"] = "none"

    @property
    def speed(self) -> float:
        """Bytes/s of one replica's load; 2 GB/s where nothing is said and no store sets the pace."""
        return self.bandwidth or (2e9 if self.store is None else math.inf)


class ColdStart(Spec):
    """How a replica comes up during a run, stage by stage; those there at the beginning are ready unless it is `cold`."""

    provision: Duration = Field(NONE, description="a node from the cloud; 0 where hosts stand ready")
    image: Image = Image()
    weights: Weights = Weights()
    init: Duration = Field(Spread(median=20, p99=20), description="engine process, CUDA context, memory profiling")
    capture: Duration = Field(Spread(median=15, p99=15), description="CUDA graph capture; none with cuda_graph: false")
    cold: bool = Field(False, description="the replicas of the beginning start like all others")


class Autoscale(Spec):
    """Who decides how many replicas a pool has: `policy`, asked `every` so often, within `min` and `max`.

    What it sees is `lag` old when it acts on it.
    """

    min: Annotated[int, Field(ge=0, le=100_000)] = 1
    max: Annotated[int, Field(ge=1, le=100_000)]
    every: Annotated[Seconds, Field(gt=0, le=86400)] = 15.0
    lag: Annotated[Seconds, Field(ge=0, le=3600)] = 0.0
    policy: dict[str, Any]

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}); the bounds cross")
        return self


def fitting(replicas: int, autoscale: Autoscale | None, start: ColdStart | None, warm: int) -> list[str]:
    """What is wrong with these keys of one pool together."""
    wrong = []
    if autoscale is None:
        if warm:
            wrong.append(f"warm ({warm}) is given, but nothing takes from the warm pool; add autoscale, or leave it out")
        if start is not None and not start.cold:
            wrong.append("start is given, but no replica starts during the run; add autoscale or cold: true, or leave it out")
    elif not autoscale.min <= replicas <= autoscale.max:
        wrong.append(f"replicas ({replicas}), the number at the start, is outside autoscale's min {autoscale.min} and max {autoscale.max}")
    return wrong
