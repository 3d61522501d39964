"""What a plan may choose among, and what it has to hold: the block `plan` of a scenario.

Sized is one pool. How many replicas it has is searched on its own, for more replicas never carry less; everything else is a choice: the
GPU, the layout, number formats and engine options of that pool, how its GPUs are bought, any other key (`vary`), and alternatives that
change several keys at once. `burstsim plan` reads it; `burstsim run` runs the scenario as it is written.
"""
from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from sim.core.explain import show
from sim.spec.frozen import Spec
from sim.spec.sweep import Axis, Range

Growth = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(gt=0, le=1)]


class Alternative(Spec):
    """Keys that go together, such as the mode of a trainer and whose GPUs it has.

    What replaces all pools or trainers goes first: sized is then its pool of the same name, and choices of pools it lacks fall away.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    set: dict[str, Any] = Field(default_factory=dict, description="dotted keys and their values")


class Search(Spec):
    """`growth`: times the traffic written that are planned for, the first of them in full. `meets`: of `replications` runs with seeds of
    their own so large a share has to meet the SLO. `short`: part of the traffic that the search looks at before it confirms.
    """

    pool: str | None = Field(None, description="which is sized; default: the only one")
    replicas: Axis = Axis(range=Range(min=1, max=64))
    gpu: Axis | None = None
    parallel: Axis | None = None
    precision: Axis | None = None
    engine: dict[str, Axis] = Field(default_factory=dict, description="options of its engine, such as max_num_seqs")
    commitment: Axis | None = Field(None, description="how its GPUs are bought; needs a price book")
    vary: dict[str, Axis] = Field(default_factory=dict, description="any other keys, dotted: cluster.trainers.0.gpus")
    alternatives: tuple[Alternative, ...] = ()
    growth: Annotated[tuple[Growth, ...], Field(min_length=1)] = (1.0,)
    meets: Share = 0.95
    replications: Annotated[int, Field(ge=1, le=1000)] = 20
    short: Share = Field(1.0, description="of the requests, for runs of the search; all of them confirm the answer")
    trials: Annotated[int, Field(ge=1, le=10_000)] = Field(64, description="layouts that are looked at; of more, Optuna chooses so many")

    @field_validator("replicas")
    @classmethod
    def _whole(cls, replicas: Axis) -> Axis:
        found = counts(replicas)
        wrong = [count for count in found if not isinstance(count, int) or isinstance(count, bool) or count < 1]
        if wrong or not found:
            what = f"found {show(wrong[0])}" if wrong else "there is none between min and max"
            raise ValueError(f"{what}; whole numbers from 1 on are wanted, such as {{range: {{min: 1, max: 64}}}}")
        return replicas

    @model_validator(mode="after")
    def _apart(self) -> Search:
        names = [one.name for one in self.alternatives]
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise ValueError(f"two alternatives are named '{twice[0]}'; names must differ")
        if list(self.growth) != sorted(set(self.growth)):
            raise ValueError("growth has to rise, such as [1.0, 1.5, 2.0]")
        return self

    @property
    def counts(self) -> tuple[int, ...]:
        """How many replicas there may be, ascending.

        >>> Search(replicas={"range": {"min": 2, "max": 5}}).counts, Search(replicas=[8, 1, 4]).counts
        ((2, 3, 4, 5), (1, 4, 8))
        """
        return counts(self.replicas)


def counts(replicas: Axis) -> tuple[int, ...]:
    """The values of an axis of whole numbers, ascending; others among them as they were written."""
    span = replicas.range
    if span is None:
        return tuple(sorted(replicas.choices or (), key=lambda one: one if isinstance(one, int | float) else -math.inf))
    if span.step is None:
        return tuple(range(math.ceil(span.min), math.floor(span.max) + 1))
    return tuple(int(value) if value == int(value) else value for value in span.values())  # type: ignore[misc]
