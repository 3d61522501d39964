"""How a quantity varies: a distribution by the figures that people know of it, drawn through its inverse.

One uniform number gives one value, and a larger number never a smaller value. So a draw belongs to a place (this agent, that turn) whoever
asks and in which order, and two what-ifs that share their luck differ only by what was changed. In a mixture the number also says which
part it falls into, the parts in the order written.

A plain number does not vary. Else `dist` says the law; without it, two figures of a lognormal (`{median: 3s, sigma: 1}`), one `mean`
alone of an exponential, or a `mixture`. `min` and `max` clip what is drawn.
"""
from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sim.core.units import parse
from sim.spec.cpu_node import large
from sim.spec.frozen import Spec

Dist = Literal["fixed", "lognormal", "normal", "exponential", "uniform", "geometric", "negbinom", "quantiles"]
NORMAL = NormalDist()
Z = {name: NORMAL.inv_cdf(share) for name, share in (("p90", 0.90), ("p95", 0.95), ("p99", 0.99))}
SPREADS = ("sigma", "cv", *Z)
# What each law is told by: a centre, and how far it spreads.
FIGURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fixed": (("value",), ()), "lognormal": (("median", "mean"), SPREADS), "normal": (("mean",), ("sd", "cv")),
    "exponential": (("mean", "median"), ()), "uniform": (("min",), ("max",)), "geometric": (("mean",), ()),
    "negbinom": (("mean",), ("sd", "cv")), "quantiles": (("points",), ()),
}  # fmt: skip
TABLE = 100_000


class Law(Spec):
    """A distribution of numbers >= 0. `sigma` is the standard deviation of the logarithm, `cv` that of the value over its mean.

    `geometric` counts from 1 and `negbinom` (with sd**2 > mean) from 0. `points` of quantiles are pairs [share, value], from share 0 to 1,
    and between two of them the logarithm of the value is linear in the share where both are above 0, and else the value.
    """

    dist: Dist = "fixed"
    value: float | None = None
    mean: float | None = None
    median: float | None = None
    sigma: Annotated[float, Field(ge=0, le=10)] | None = None
    sd: float | None = None
    cv: Annotated[float, Field(ge=0, le=100)] | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    min: float | None = None
    max: float | None = None
    points: tuple[tuple[float, float], ...] | None = None
    mixture: tuple[Part, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _guessed(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "dist" in value or value.get("mixture"):
            return value
        spread = any(value.get(name) is not None for name in SPREADS)
        if spread and value.get("sd") is None:
            return {"dist": "lognormal", **value}
        if value.get("points") is not None:
            return {"dist": "quantiles", **value}
        return {"dist": "exponential", **value} if value.get("mean") is not None and value.get("sd") is None else value

    @model_validator(mode="after")
    def _whole(self) -> Law:
        wrong = _problem(self)
        if wrong:
            raise ValueError(wrong)
        return self

    @property
    def varies(self) -> bool:
        return bool(self.mixture) or self.dist != "fixed"

    @cached_property
    def average(self) -> float:
        """The mean of what is drawn, by the midpoint rule over the inverse with 100,000 points (within 0.1 % for sigma up to 2)."""
        if not self.varies:
            return self.at(0.5)
        return math.fsum(self.at((number + 0.5) / TABLE) for number in range(TABLE)) / TABLE

    def at(self, share: float) -> float:
        """The value that this share (0 to 1) of all stay within.

        >>> law = Law.model_validate({"median": 10, "p99": 20})
        >>> round(law.at(0.5)), round(law.at(0.99))
        (10, 20)
        >>> both = Law.model_validate({"mixture": [{"p": 1, "dist": "fixed", "value": 1}, {"p": 3, "dist": "fixed", "value": 5}]})
        >>> both.at(0.2), both.at(0.3)
        (1.0, 5.0)
        """
        if self.mixture:
            place = min(bisect_left(self._ends, share), len(self.mixture) - 1)
            begin = self._ends[place - 1] if place else 0.0
            value = self.mixture[place].at((share - begin) / (self._ends[place] - begin))
        else:
            value = self._inverse(share)
        if self.dist == "uniform" and not self.mixture:
            return value
        low = self.min if self.min is not None else 0.0
        return low if value < low else self.max if self.max is not None and value > self.max else value

    def whole(self, share: float) -> int:
        """The same for what is counted: rounded to the nearest."""
        return int(self.at(share) + 0.5)

    def _inverse(self, share: float) -> float:
        kind = self.dist
        if kind == "fixed":
            assert self.value is not None
            return self.value
        if kind == "lognormal":
            middle, sigma = self._lognormal
            return middle * math.exp(sigma * NORMAL.inv_cdf(min(max(share, 1e-12), 1.0 - 1e-12)))
        if kind == "uniform":
            assert self.min is not None
            assert self.max is not None
            return self.min + share * (self.max - self.min)
        if kind == "exponential":
            mean = self.mean if self.mean is not None else (self.median or 0.0) / math.log(2)
            return -mean * math.log1p(-min(share, 1.0 - 1e-12))
        if kind == "normal":
            assert self.mean is not None
            return self.mean + self._deviation * NORMAL.inv_cdf(min(max(share, 1e-12), 1.0 - 1e-12))
        if kind == "geometric":
            assert self.mean is not None
            tries = math.log1p(-min(share, 1.0 - 1e-12)) / math.log1p(-1.0 / self.mean) if self.mean > 1.0 else 1.0
            return float(max(1, math.ceil(tries)))
        if kind == "negbinom":
            return float(min(bisect_left(self._counts, share), len(self._counts) - 1))
        return self._between(share)

    def _between(self, share: float) -> float:
        points = self.points or ()
        place = min(max(bisect_left(points, (share, -1.0)), 1), len(points) - 1)
        (left, low), (right, high) = points[place - 1], points[place]
        part = (share - left) / (right - left) if right > left else 1.0
        if low > 0 and math.isfinite(high / low):
            grown: float = low * (high / low) ** part
            return grown
        return low + part * (high - low)

    @cached_property
    def _ends(self) -> list[float]:
        total = math.fsum(part.p for part in self.mixture)
        return [end / total for end in accumulate(part.p for part in self.mixture)]

    @cached_property
    def _lognormal(self) -> tuple[float, float]:
        """(median, sigma). Of a mean and a quantile: z s - s^2 / 2 = ln(quantile / mean), whose smaller root is the law meant."""
        if self.sigma is not None:
            sigma = self.sigma
        elif self.cv is not None:
            sigma = math.sqrt(math.log1p(self.cv**2))
        else:
            z, ratio = self._quantile
            sigma = ratio / z if self.median is not None else z - math.sqrt(z * z - 2 * ratio)
        if self.median is not None:
            return self.median, sigma
        assert self.mean is not None
        return self.mean * math.exp(-sigma * sigma / 2), sigma

    @property
    def _quantile(self) -> tuple[float, float]:
        """(z, ln(quantile / centre)) of the quantile that was given."""
        name, value = next((name, value) for name in Z for value in [vars(self)[name]] if value is not None)
        centre = self.median if self.median is not None else self.mean
        assert centre is not None
        return Z[name], math.log(value / centre)

    @property
    def _deviation(self) -> float:
        assert self.mean is not None
        return self.sd if self.sd is not None else self.mean * (self.cv or 0.0)

    @cached_property
    def _counts(self) -> list[float]:
        """The cumulative chances of 0, 1, 2, ... up to all but 1e-9: of r = mean^2 / (var - mean) and p = mean / var,
        P(k + 1) = P(k) (k + r) (1 - p) / (k + 1).
        """
        assert self.mean is not None
        variance = self._deviation**2
        r, p = self.mean**2 / (variance - self.mean), self.mean / variance
        chance, total, counts = p**r, 0.0, []
        for k in range(TABLE):
            total += chance
            counts.append(total)
            if total > 1.0 - 1e-9:
                break
            chance *= (k + r) * (1.0 - p) / (k + 1)
        return counts


class Part(Law):
    """One law of a mixture, and its share `p` of what is drawn; shares need not sum to 1."""

    p: Annotated[float, Field(gt=0)]


Law.model_rebuild()


def _problem(law: Law) -> str:
    """What is wrong with the figures of a law, or nothing."""
    given = [name for name in ("value", "mean", "median", *SPREADS, "sd", "points") if vars(law)[name] is not None]
    if law.mixture:
        return f"mixture is given, and {' and '.join(given)} too; each part has its own" if given else _bounds(law)
    if law.dist == "fixed" and law.value is None:
        return _untold(law, given)
    centres, spreads = FIGURES[law.dist]
    for wanted in (centres, spreads):
        found = [name for name in wanted if vars(law)[name] is not None]
        if wanted and len(found) != 1:
            return f"{law.dist} wants {'one of ' if len(wanted) > 1 else ''}{', '.join(wanted)}; found {' and '.join(found) or 'none'}"
    extra = [name for name in given if name not in (*centres, *spreads)]
    if extra:
        return f"{law.dist} has no {' or '.join(extra)}; it is told by {', '.join((*centres, *spreads))}"
    for name in given:
        value = vars(law)[name]
        if name != "points" and (value < 0 or not math.isfinite(value)):
            return f"{name} is {value:g}; nothing here is below 0"
    if law.dist == "quantiles":
        return _points(law.points or ()) or _bounds(law)
    return _figures(law) or _bounds(law)


def _untold(law: Law, given: Sequence[str]) -> str:
    """What to say of figures that tell no law by themselves."""
    found = [*given, *(name for name in ("min", "max") if vars(law)[name] is not None)]
    fitting = [name for name, parts in FIGURES.items() if given and {*given} <= {*parts[0], *parts[1]}]
    fitting += ["uniform"] if found == ["min", "max"] else []
    how = f"say of which law, such as dist: {' or '.join(fitting)}" if fitting else "a number or a distribution is wanted"
    return f"found {' and '.join(found) or 'no figure'}; {how}"


def _figures(law: Law) -> str:
    if law.dist == "lognormal" and not (law.median or law.mean):
        return "a lognormal of median or mean 0 is nothing; write 0"
    if law.dist == "lognormal" and law.sigma is None and law.cv is None:
        z, ratio = law._quantile if all(vars(law)[name] != 0 for name in Z) else (1.0, -1.0)
        if ratio < 0:
            return "the quantile is below the centre; of a lognormal it is above"
        if law.mean is not None and 2 * ratio > z * z:
            return f"no lognormal has a quantile beyond {math.exp(z * z / 2):.3g} times its mean; give median and sigma"
    if law.dist == "geometric" and law.mean is not None and law.mean < 1:
        return f"mean is {law.mean:g}; a geometric count begins at 1"
    if law.dist == "negbinom" and law.mean is not None and law._deviation**2 <= law.mean:
        return f"a negative binomial varies more than sd {math.sqrt(law.mean):.3g} (the root of its mean); found {law._deviation:.3g}"
    if law.dist == "negbinom" and law.mean is not None and (law.mean > 10_000 or law._deviation > 10_000):
        return "counts of 10,000 and more are better told by a lognormal"
    return ""


def _points(points: Sequence[tuple[float, float]]) -> str:
    if len(points) < 2 or points[0][0] != 0 or points[-1][0] != 1:
        return "points are wanted from share 0 to share 1, such as [[0, 1], [0.5, 10], [1, 300]]"
    if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(points)) or points[0][1] < 0:
        return "points are wanted in ascending order of share and of value, none below 0"
    return ""


def _bounds(law: Law) -> str:
    if law.min is not None and law.min < 0:
        return f"min is {law.min:g}; nothing here is below 0"
    if law.min is not None and law.max is not None and law.min > law.max:
        return f"min ({law.min:g}) is above max ({law.max:g})"
    return ""


def _read(value: Any, dimension: str | None) -> Any:
    """A law as people write it, units read."""
    if isinstance(value, Law):
        return value
    if isinstance(value, Mapping):
        kept = ("dist", "sigma", "cv", "p", "mixture", "points")
        read = {key: inner if key in kept or inner is None else _number(inner, dimension) for key, inner in value.items()}
        if isinstance(value.get("mixture"), list | tuple):
            read["mixture"] = [_read(part, dimension) for part in value["mixture"]]
        if isinstance(value.get("points"), list | tuple):
            read["points"] = [[pair[0], _number(pair[1], dimension)] if isinstance(pair, list | tuple) and len(pair) == 2 else pair
                              for pair in value["points"]]  # fmt: skip
        return read
    return {"dist": "fixed", "value": _number(value, dimension)}


def _number(value: Any, dimension: str | None) -> Any:
    if dimension is not None:
        return parse(value, dimension)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {value!r}; a number or a distribution is wanted, such as 5 or {{median: 5, sigma: 1}}")
    return value


def _below(law: Law, most: float, unit: str) -> Law:
    """A law none of whose values is beyond what can be simulated. Raises ValueError."""
    if (largest := law.at(1.0)) > most:
        raise ValueError(f"values up to {largest:.3g}{unit} would be drawn; at most {most:g} is simulated: write a max, or less")
    return law


def _with_unit(law: Law) -> Law:
    """A law of bytes of which none was forgotten. Raises ValueError."""
    large(law.at(0.5))
    return law


def _of(dimension: str | None, most: float, unit: str = "") -> Any:
    return BeforeValidator(lambda value: _read(value, dimension)), AfterValidator(lambda law: _below(law, most, unit))


Amounts = Annotated[Law, *_of(None, 1e15)]
Times = Annotated[Law, *_of("duration", 1e15, " s")]
Sizes = Annotated[Law, *_of("size", 1e24, " bytes"), AfterValidator(_with_unit)]
