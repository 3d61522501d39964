"""A sweep: which keys of a scenario are varied, over which values, and how points are chosen among them.

An axis is `{choices: [...]}` (a list alone is the same), or `{range: {min, max, step, scale}}`. Steps of a linear range are added, those of
a logarithmic one multiplied: `{min: 1, max: 64, step: 2, scale: log}` is 1, 2, 4 up to 64. Ends of a range may have units.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sim.core import units
from sim.core.errors import Problem
from sim.spec.frozen import Spec

MOST = 100_000  # points of a sweep, and values of an axis
SLACK = 1e-9  # of a step, by which the last one may miss the end


def _quantity(value: Any) -> Any:
    """A number, or the SI value of text with a unit of any dimension; an integer stays one."""
    if isinstance(value, str):
        for dimension in units.DIMENSIONS:
            try:
                return units.parse(value, dimension)
            except ValueError:
                continue
        examples = ", ".join(text for _, text in units.DIMENSIONS.values())
        raise ValueError(f"found '{value}'; a number is wanted, or a quantity such as {examples}")
    return value


Quantity = Annotated[int | float, BeforeValidator(_quantity)]


class Range(Spec):
    """From min to max, both included. Without `step` any value between them may be drawn, but a grid has only whole numbers then."""

    min: Quantity
    max: Quantity
    step: Quantity | None = Field(None, description="added to the value before; with scale log it is multiplied")
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min > self.max:
            raise ValueError(f"found min {self.min:g} and max {self.max:g}; min is the smaller one")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"found min {self.min:g}; with scale log it must be above 0")
        least = 1 if self.scale == "log" else 0
        if self.step is not None and self.step <= least:
            raise ValueError(f"found step {self.step:g}; with scale {self.scale} it must be above {least}")
        if self.step is not None and self._count() > MOST:
            way = f"from {self.min:g} to {self.max:g} in steps of {self.step:g}"
            raise ValueError(f"{way} are {self._count():,} values; {MOST:,} are the most")
        return self

    def values(self) -> tuple[int | float, ...]:
        """Every value in steps; without a step, the ends. Decimal fractions come out as they would be written.

        >>> Range(min=1, max=10, step=4).values(), Range(min=0.1, max=0.4, step=0.1).values()
        ((1, 5, 9), (0.1, 0.2, 0.3, 0.4))
        >>> Range(min=1, max=64, step=4, scale="log").values()
        (1, 4, 16, 64)
        """
        if self.step is None:
            return (self.min, self.max) if self.min < self.max else (self.min,)
        steps = range(self._count())
        return tuple(_plain(self.min * self.step**i if self.scale == "log" else self.min + i * self.step) for i in steps)

    def at(self, share: float, whole: bool) -> int | float:
        """The value at a share in [0, 1) of the range, evenly on its scale; `whole`: an integer, each as likely as the scale says.

        >>> Range(min=1, max=4).at(0.99, True), Range(min=1, max=100, scale="log").at(0.5, False)
        (4, 10.0)
        """
        if self.step is not None:
            values = self.values()
            return values[int(share * len(values))]
        low, high = (math.ceil(self.min), math.floor(self.max) + 1) if whole else (self.min, self.max)
        value = low * (high / low) ** share if self.scale == "log" else low + share * (high - low)
        return min(math.floor(value), high - 1) if whole else _plain(float(value))

    def _count(self) -> int:
        assert self.step is not None
        way = math.log(self.max / self.min) / math.log(self.step) if self.scale == "log" else (self.max - self.min) / self.step
        return math.floor(way + SLACK) + 1


def _plain(value: int | float) -> int | float:
    return value if isinstance(value, int) else float(f"{value:.12g}")


class Axis(Spec):
    """The values of one key: `choices`, or a `range` of numbers."""

    choices: tuple[Any, ...] | None = None
    range: Range | None = None

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping | list | tuple | Axis):
            raise ValueError("a list of values is wanted, {choices: [...]}, or {range: {min: ..., max: ..., step: ...}}")
        return {"choices": raw} if isinstance(raw, list | tuple) else raw

    @model_validator(mode="after")
    def _one(self) -> Axis:
        if (self.choices is None) == (self.range is None):
            found = "neither choices nor a range" if self.range is None else "choices and a range"
            raise ValueError(f"found {found}; one of them is wanted")
        if self.choices is not None:
            if not self.choices:
                raise ValueError("found no choices; at least 1 is wanted")
            twice = [one for place, one in enumerate(self.choices) if any(same(one, other) for other in self.choices[:place])]
            if twice:
                raise ValueError(f"the choice {twice[0]} is given twice")
        return self


def same(one: Any, other: Any) -> bool:
    """Whether two values are one choice: 1 and true are two."""
    return type(one) is type(other) and bool(one == other)


Count = Annotated[int, Field(ge=1, le=MOST)]
Times = Annotated[int, Field(ge=1, le=10_000)]


class Sweep(Spec):
    """The scenario, run at many points.

    grid: every combination of the values of `space`. random: `points` drawn evenly, each once. latin_hypercube: `points` so that each
    `points`-th part of every axis is met once. list: the points written, each a mapping of keys to values.
    """

    method: Literal["grid", "list", "random", "latin_hypercube"] | None = Field(None, description="default: list with a list, else grid")
    space: dict[str, Axis] = Field(default_factory=dict, description="dotted keys, such as workloads.0.rate, and their values")
    points: Count | None = Field(None, description="how many are drawn, with random and latin_hypercube")
    list: tuple[dict[str, Any], ...] = Field((), description="points, with method list")
    replications: Times = Field(1, description="runs of each point, the same seeds for all")
    seed: Annotated[int, Field(ge=0)] | None = Field(None, description="of the points drawn; default: the scenario's")
    figures: tuple[str, ...] = Field((), description="such as ttft_s.p99; default: all of the summary")

    @field_validator("figures")
    @classmethod
    def _once(cls, figures: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(figures)) < len(figures):
            raise ValueError("a figure is named twice")
        return figures

    @property
    def way(self) -> str:
        """The method, its default filled in."""
        return self.method or ("list" if self.list else "grid")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys varied, in the order written."""
        return tuple(dict.fromkeys(key for point in self.list for key in point)) if self.way == "list" else tuple(self.space)

    def problems(self, path: str) -> tuple[Problem, ...]:
        """What contradicts itself; `path` is the dotted key of the sweep."""
        way = self.way
        drawn = way in ("random", "latin_hypercube")
        wrong = []
        if way == "list" and not self.list:
            wrong.append(("list", "is empty; method list needs points, such as [{cluster.pools.0.replicas: 2}]"))
        elif way == "list" and self.space:
            wrong.append(("space", "is given beside method list, which takes the points of `list`; leave one of them out"))
        if way != "list" and self.list:
            wrong.append(("list", f"is given, and method {way} draws from space; leave one of them out"))
        if way != "list" and not self.space:
            wrong.append(("space", "is empty; a sweep needs a key and its values, such as workloads.0.rate: {choices: [1, 2, 4]}"))
        if drawn and self.points is None:
            wrong.append(("points", f"missing; method {way} needs to know how many"))
        if not drawn and self.points is not None:
            wrong.append(("points", f"is given, but method {way} does not draw: its points follow from the values; leave it out"))
        if not drawn and self.seed is not None:
            wrong.append(("seed", f"is given, but method {way} does not draw; it has no effect"))
        wrong += [(f"list.{number}", "sets nothing; give it a key and its value") for number, point in enumerate(self.list) if not point]
        return tuple(Problem(message, f"{path}.{key}") for key, message in wrong)
